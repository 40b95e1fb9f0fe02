"""Rows of length 1, with and without a gradient."""

from __future__ import annotations

import torch
from torch import Tensor

SHORT, LONG = 1e-15, 1e18  # lengths beyond which squares may be no numbers of float32


def unit(x: Tensor) -> Tensor:
    """Rows of length 1; a zero row stays zero, and its gradient stays finite."""
    norm: Tensor = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
    return x / torch.where(norm > 0, norm, torch.ones_like(norm))


def normalised(op: str, name: str, x: Tensor) -> Tensor:
    """Rows of length 1, float32 at least, contiguous, outside autograd; ValueError where x is not finite."""
    x, length = _measured(op, name, x)
    return (x / length[:, None]).contiguous()


def with_scales(op: str, name: str, x: Tensor) -> tuple[Tensor, Tensor]:
    """Rows and the factors [N] that bring them to length 1, for those who multiply large x only once: no copy is made of it but
    where a length is extreme. float32 at least, outside autograd; ValueError where x is not finite."""
    x, length = _measured(op, name, x)
    return x, length.reciprocal()


def _measured(op: str, name: str, x: Tensor) -> tuple[Tensor, Tensor]:
    """x and the lengths [N] of its rows, 1 for zeros; the host reads once where no length is extreme."""
    x = widened(x)
    length: Tensor = torch.linalg.vector_norm(x, dim=1)  # [N]
    shortest, longest = torch.stack(torch.aminmax(length)).tolist() if len(x) else (1.0, 1.0)
    if not (shortest >= SHORT and longest <= LONG):  # NaN too
        finite(op, name, x)
        x = moderate(x)
        length = torch.linalg.vector_norm(x, dim=1)
    return x, torch.where(length > 0, length, 1)


def moderate(x: Tensor) -> Tensor:
    """Rows of extreme length times a power of two, so that the squares of their entries are numbers; others as they are."""
    largest = x.abs().amax(dim=1, keepdim=True) if x.shape[1] else x.new_zeros(len(x), 1)
    extreme = (largest > 0) & ((largest < SHORT) | (largest > LONG / max(x.shape[1], 1)))
    most = 1022 if x.dtype == torch.float64 else 126  # powers of two that are numbers, as their inverses are
    exponent = torch.frexp(largest).exponent.clamp(-most, most)
    return torch.where(extreme, x * torch.pow(torch.full_like(largest, 2.0), -exponent), x)


def widened(x: Tensor) -> Tensor:
    """x outside autograd, float32 at least."""
    return x.detach().to(torch.promote_types(x.dtype, torch.float32))


def finite(op: str, name: str, x: Tensor) -> Tensor:
    """`widened` x; ValueError where a number is not finite."""
    x = widened(x)
    if x.numel() and not bool(torch.isfinite(torch.stack(torch.aminmax(x))).all()):  # x is read once; both are NaN where any is
        raise ValueError(f"{op}: {name} must be finite, got NaN or infinity in {int((~torch.isfinite(x)).any(dim=1).sum())} rows")
    return x
