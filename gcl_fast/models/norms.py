"""The generator's normalisations: instance norm, adaptive too, and layer norm with a gain and an offset per channel."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gcl_fast.models.map_layout import layout_of

EPS = 1e-5  # of every normalisation
SPACE = (2, 3)  # of [B, C, H, W]
SAMPLE = (1, 2, 3)


def instance_norm(x: Tensor, scale: Tensor | None = None, shift: Tensor | None = None, *, slope: float = 1.0) -> Tensor:
    """Each channel to mean 0, variance 1 over H x W; adaptive instance normalisation: times scale, plus shift.

    Arguments:
        x: [B, C, H, W].
        scale, shift: [B, C], used as they are (no 1 is added to scale); None: neither.
        slope: of a leaky ReLU that follows; 1 for none.

    Returns: [B, C, H, W] in x's memory layout.
    Gradient: to the three tensors.
    Source: Ulyanov et al., arXiv 1607.08022; Huang & Belongie, ICCV 2017.
    """
    # Batch norm with each sample's channels as channels of one: scale and shift in the same pass.
    flat = x.reshape(1, -1, *x.shape[2:])  # [1, B * C, H, W]
    weight, bias = (None if part is None else part.reshape(-1) for part in (scale, shift))
    y = F.batch_norm(flat, None, None, weight, bias, training=True, eps=EPS)
    if slope != 1.0:
        y = F.leaky_relu_(y, slope)
    return y.view(x.shape).contiguous(memory_format=layout_of(x))


class InstanceNorm(nn.Module):
    """`instance_norm` without scale and shift."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        del channels  # as the others are made

    def forward(self, x: Tensor) -> Tensor:  # [B, C, H, W]
        return instance_norm(x)


class _LayerNorm(torch.autograd.Function):
    """(x - mean) / (std + eps) * gamma + beta in three passes over x; of the images only x itself is kept for backward."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, gamma: Tensor, beta: Tensor) -> Tensor:
        variance, mean = torch.var_mean(x, dim=SAMPLE, keepdim=True)  # [B, 1, 1, 1]
        std = variance.to(gamma.dtype).sqrt()
        ctx.save_for_backward(x, gamma, mean, std)
        factor = gamma[:, None, None] / (std + EPS)  # [B, C, 1, 1]
        y = x - mean
        return y.mul_(factor).add_(beta[:, None, None])

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x, gamma, mean, std = ctx.saved_tensors
        again = torch.is_grad_enabled() and not torch.compiler.is_compiling()  # a second derivative is asked for
        if again:  # what was kept is no function of x to autograd
            variance, mean = torch.var_mean(x, dim=SAMPLE, keepdim=True)
            std = variance.to(gamma.dtype).sqrt()
        inverse, centred = 1 / (std + EPS), x - mean
        # over height and width: [B, C, 1, 1]
        total, moment = (part.sum(SPACE, keepdim=True, dtype=gamma.dtype) for part in (grad, grad * centred))
        of_mean, of_std = ((gamma[:, None, None] * part).sum(1, keepdim=True) for part in (total, moment))
        count = x[0].numel()
        through_std = torch.where(std > 0, of_std * inverse.square() / ((count - 1) * std), 0)
        turned = centred * -through_std if again else centred.mul_(-through_std)
        grad_x = turned.sub_(of_mean * inverse / count).addcmul_(grad, gamma[:, None, None] * inverse)
        return grad_x, (moment * inverse).sum((0, 2, 3)), total.sum((0, 2, 3))


class ChannelLayerNorm(nn.Module):
    """Layer normalisation over C, H, W with one gamma and one beta per channel.

    Divides by (std + 1e-5) with the unbiased std, unlike `nn.LayerNorm`; gamma starts as U(0, 1), beta as 0. Twice
    differentiable, but not where it is compiled.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.rand(channels))
        self.beta = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:  # [B, C, H, W], of x's dtype
        y: Tensor = _LayerNorm.apply(x, self.gamma, self.beta)
        return y
