"""Least-squares GAN losses over a multi-scale discriminator, with the squared-gradient regulariser on real images.

Source: Mao et al., Least Squares GANs; Mescheder et al., Which Training Methods for GANs do actually Converge (R1).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from gcl_fast.stages.amp import full


def real_terms(discriminator: nn.Module, real: Tensor, *, with_penalty: bool) -> tuple[Tensor, Tensor]:
    """(sum over scales of mean((D(real) - 1)^2), sum over scales of the mean squared gradient norm of D's output sum).

    real [B, 3, H, W] without graph. The penalty keeps a graph to the discriminator's parameters; 0 when not asked for.
    """
    real = real.detach().requires_grad_(with_penalty)
    scores = discriminator(real)
    loss = sum((full(s) - 1).square().mean() for s in scores)
    penalty = loss.new_zeros(())
    if with_penalty:
        for score in scores:
            (gradient,) = torch.autograd.grad(score.sum(), real, create_graph=True)
            penalty = penalty + gradient.square().sum((1, 2, 3)).mean()
    return loss, penalty


def fake_term(discriminator: nn.Module, fake: Tensor) -> Tensor:
    """Sum over scales of mean(D(fake)^2)."""
    return sum(full(s).square().mean() for s in discriminator(fake.detach()))


def discriminator_loss(discriminator: nn.Module, real: Tensor, fakes: list[Tensor], penalty_weight: float) -> Tensor:
    """Sum over the fakes of their own term plus the real term plus the weighted regulariser.

    The real term and the regulariser are the same for every fake: computed once, counted len(fakes) times.
    """
    real_loss, penalty = real_terms(discriminator, real, with_penalty=penalty_weight > 0)
    return sum(fake_term(discriminator, fake) for fake in fakes) + len(fakes) * (real_loss + penalty_weight * penalty)


def generator_loss(discriminator: nn.Module, fake: Tensor) -> Tensor:
    """Sum over scales of 2 * mean((D(fake) - 1)^2), with gradient to the fake."""
    return sum(2 * (full(s) - 1).square().mean() for s in discriminator(fake))
