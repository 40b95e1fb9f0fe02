"""Rows of length 1, with and without a gradient."""

from __future__ import annotations

import torch
from torch import Tensor


def unit(x: Tensor) -> Tensor:
    """Rows of length 1; a zero row stays zero, and its gradient stays finite."""
    norm: Tensor = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
    return x / torch.where(norm > 0, norm, torch.ones_like(norm))


def normalised(op: str, name: str, x: Tensor) -> Tensor:
    """Rows of length 1, float32 at least, contiguous, outside autograd; ValueError where x is not finite."""
    x, length, _ = _measured(op, name, x)
    return (x / length[:, None]).contiguous()


def with_scales(op: str, name: str, x: Tensor) -> tuple[Tensor, Tensor]:
    """Rows and the factors [N] that bring them to length 1, for those who multiply large x only once: no copy is made of it.
    float32 at least, outside autograd; ValueError where x is not finite."""
    x, length, fits = _measured(op, name, x)
    if not fits:  # products could be as large
        return x / length[:, None], torch.ones_like(length)
    return x, length.reciprocal()


def _measured(op: str, name: str, x: Tensor) -> tuple[Tensor, Tensor, bool]:
    """x, the lengths [N] of its rows and whether they are finite: read on the host once."""
    x = x.detach().to(torch.promote_types(x.dtype, torch.float32))
    length: Tensor = torch.linalg.vector_norm(x, dim=1)  # [N]
    fits = bool(torch.isfinite(length).all())
    if not fits:
        finite(op, name, x)  # names what is wrong, or the squares alone were too large
    return x, length.clamp_min(1e-12), fits


def finite(op: str, name: str, x: Tensor) -> Tensor:
    """x outside autograd, float32 at least; ValueError where a number is not finite."""
    x = x.detach().to(torch.promote_types(x.dtype, torch.float32))
    if x.numel() and not bool(torch.isfinite(torch.stack(torch.aminmax(x))).all()):  # x is read once; both are NaN where any is
        raise ValueError(f"{op}: {name} must be finite, got NaN or infinity in {int((~torch.isfinite(x)).any(dim=1).sum())} rows")
    return x
