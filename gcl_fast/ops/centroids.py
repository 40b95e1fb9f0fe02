"""Cross-entropy over all rows of a small bank, such as the centroids of clusters.

`bank_nce` is made for banks that are large beside the batch. Over few rows, or for a large batch, the work is two plain products,
which the BLAS does best (on the CPU for all but a few queries); what it makes on the way, [B, C], is small then.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from gcl_fast import _native
from gcl_fast.ops._bank_autograd import no_second_derivative
from gcl_fast.ops._check import FLOATS, check_rows
from gcl_fast.ops._products import without_autocast
from gcl_fast.ops.bank import bank_nce

FEW = 2048  # centroids
LARGE_BATCH, MOST_LOGITS = 128, 1 << 22
SKINNY = (4, 32)  # queries, fewest and most, for which the CPU's BLAS is slow
MANY, LARGE_BANK = 1000, 2_000_000  # over at least so many centroids of so many numbers
NO_INDEX = -(1 << 62)  # nothing is ignored: -100 would be, by default


def _loss_and_gradient(
    query: Tensor, centroids: Tensor, targets: Tensor, temperature: float, with_grad: bool
) -> tuple[Tensor, Tensor]:
    """The gradient is made with the loss: the centroids may move before the backward. [], and [B, D] or, not asked for, [0]."""
    if query.device.type == "cpu" and _native.loaded and query.dtype in FLOATS:
        weight = query @ centroids.T  # [B, C]: logits, which the next line turns into what they weigh in the gradient
        loss: Tensor = torch.ops.gcl_fast.cross_entropy_rows_.default(weight, targets, temperature, with_grad)
        return loss, weight @ centroids if with_grad else query.new_empty(0)
    log_share = torch.log_softmax((query @ centroids.T).div_(temperature), 1)  # [B, C]
    loss = F.nll_loss(log_share, targets, ignore_index=NO_INDEX)
    if not with_grad:
        return loss, query.new_empty(0)
    weight = log_share.exp_().scatter_add_(1, targets[:, None], log_share.new_full((len(targets), 1), -1.0))
    return loss, (weight @ centroids).div_(temperature * len(targets))


class _ByProduct(torch.autograd.Function):
    """For eager code: what torch.library makes of an op costs several times as much."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, centroids: Tensor, targets: Tensor, temperature: float) -> Tensor:
        loss, gradient = _loss_and_gradient(query, centroids, targets, temperature, ctx.needs_input_grad[0])
        ctx.save_for_backward(gradient)
        return loss

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        no_second_derivative("centroid_cross_entropy")
        return grad * ctx.saved_tensors[0], None, None, None


@torch.library.custom_op("gcl_fast::centroid_cross_entropy", mutates_args=())
def _whole(query: Tensor, centroids: Tensor, targets: Tensor, temperature: float, with_grad: bool) -> tuple[Tensor, Tensor]:
    """For graphs: of its parts a compiler would leave the gradient to the backward, and read centroids there that have moved."""
    with without_autocast(query.device):
        return _loss_and_gradient(query, centroids, targets, temperature, with_grad)


def _fake(query: Tensor, centroids: Tensor, targets: Tensor, temperature: float, with_grad: bool) -> tuple[Tensor, Tensor]:
    return query.new_empty(()), query.new_empty(query.shape if with_grad else (0,))


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    ctx.mark_non_differentiable(output[1])
    ctx.save_for_backward(output[1])


def _backward(ctx: Any, grad: Tensor, _: Tensor | None) -> tuple[Tensor | None, ...]:
    no_second_derivative("centroid_cross_entropy")
    return grad * ctx.saved_tensors[0], None, None, None, None


_whole.register_fake(_fake)
_whole.register_autograd(_backward, setup_context=_setup_context)


def centroid_cross_entropy(query: Tensor, centroids: Tensor, targets: Tensor, temperature: float) -> Tensor:
    """Mean cross-entropy of query . centroids^T / temperature, as torch's cross_entropy would give it.

    Over few centroids by a product (deterministic as torch's products are), over many by `bank_nce`. Not cast by autocast.

    Arguments:
        query: [B, D] float32 or float64, used as given.
        centroids: [C, D] float, a constant that may be updated between forward and backward.
        targets: [B] integers, rows of centroids.
        temperature: above 0.

    Returns:
        A scalar in the type of query, 0 for an empty batch.

    Gradient:
        To query, once differentiable.

    Errors:
        IndexRangeError: a target that is no row of centroids, on CPU in eager code.
        ValueError: temperature is not above 0.
    """
    (batch, _), count = query.shape, len(centroids)
    if not temperature > 0:
        raise ValueError(f"centroid_cross_entropy: temperature must be above 0, got {temperature}")
    if batch == 0:
        return query.sum()
    few = count < FEW and not _is_skinny(query, centroids, targets)
    if few or (batch >= LARGE_BATCH and batch * count <= MOST_LOGITS):
        arguments = query, centroids.detach().to(query.dtype), targets.long(), float(temperature)
        if torch.compiler.is_compiling():
            loss: Tensor = _whole(*arguments, torch.is_grad_enabled() and query.requires_grad)[0]
            return loss
        try:
            with without_autocast(query.device):
                loss = _ByProduct.apply(*arguments)
                return loss
        except (IndexError, RuntimeError):  # torch's, and our kernel's, of a target that is not there
            check_rows("centroid_cross_entropy", "targets", targets, count)
            raise
    check_rows("centroid_cross_entropy", "targets", targets, count)
    each = torch.arange(count, device=query.device)  # each row its own class: all others are negatives
    return bank_nce(query, centroids, each, targets, temperature=float(temperature)).mean()


def _is_skinny(query: Tensor, centroids: Tensor, targets: Tensor) -> bool:
    """Whether the bank's kernels are quicker than the products, and take these arguments as they are."""
    plain = query.dtype == centroids.dtype == torch.float32 and targets.dtype == torch.int64 and targets.dim() == 1
    sizes = SKINNY[0] <= len(query) <= SKINNY[1] and len(centroids) >= MANY and centroids.numel() >= LARGE_BANK
    return sizes and plain and query.device.type == "cpu" and _native.loaded


if _native.loaded:
    torch.library.register_fake(
        "gcl_fast::cross_entropy_rows_", lambda logits, targets, temperature, with_grad: logits.new_empty(())
    )
