"""Least-squares GAN losses over a multi-scale discriminator, with the squared-gradient regulariser on real images.

Source: Mao et al., Least Squares GANs; Mescheder et al., Which Training Methods for GANs do actually Converge (R1).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from gcl_fast.stages.amp import full
from gcl_fast.stages.passes import together


def real_terms(discriminator: nn.Module, real: Tensor, *, with_penalty: bool) -> tuple[Tensor, Tensor]:
    """(sum over scales of mean((D(real) - 1)^2), sum over scales of the mean squared gradient norm of D's output sum).

    real [B, 3, H, W] without graph. The penalty keeps a graph to the discriminator's parameters; 0 when not asked for.
    """
    real = real.detach().requires_grad_(with_penalty)
    scores = discriminator.forward(real)  # never compiled: a compiled graph has no second derivative
    loss = sum((full(s) - 1).square().mean() for s in scores)
    penalty = loss.new_zeros(())
    if with_penalty:
        for score in scores:
            (gradient,) = torch.autograd.grad(score.sum(), real, create_graph=True)
            penalty = penalty + gradient.square().sum((1, 2, 3)).mean()
    return loss, penalty


def _scores_of_each(discriminator: nn.Module, images: list[Tensor]) -> list[tuple[Tensor, ...]]:
    """D's score maps of each batch of images. D has no layer that mixes the samples of a batch."""
    return together(lambda each: tuple(discriminator(each)), images)


def fake_terms(discriminator: nn.Module, fakes: dict[str, Tensor]) -> dict[str, Tensor]:
    """For each batch of fakes (all of one shape, detached here): sum over scales of mean(D(fake)^2)."""
    scores = _scores_of_each(discriminator, [fake.detach() for fake in fakes.values()])
    return {name: sum(full(s).square().mean() for s in own) for name, own in zip(fakes, scores, strict=True)}


def generator_terms(discriminator: nn.Module, fakes: dict[str, Tensor]) -> dict[str, Tensor]:
    """For each batch of fakes (all of one shape): sum over scales of 2 * mean((D(fake) - 1)^2), with gradient to the fake."""
    scores = _scores_of_each(discriminator, list(fakes.values()))
    return {name: sum(2 * (full(s) - 1).square().mean() for s in own) for name, own in zip(fakes, scores, strict=True)}


def discriminator_loss(terms: dict[str, Tensor], real: Tensor, penalty: Tensor, penalty_weight: float) -> Tensor:
    """Sum over the fakes of their own term plus the real term plus the weighted regulariser.

    The real term and the regulariser are the same for every fake: computed once, counted len(terms) times.
    """
    return sum(terms.values()) + len(terms) * (real + penalty_weight * penalty)
