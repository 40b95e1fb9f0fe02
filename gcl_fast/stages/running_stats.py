"""Batch norm's running averages: which passes move them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm


@contextmanager
def kept_running_stats(module: nn.Module, keep: bool = True) -> Iterator[None]:
    """Training passes inside use their own batch statistics and leave the running averages as they are. keep: False changes
    nothing."""
    norms = [m for m in module.modules() if isinstance(m, _BatchNorm)] if keep else []
    momenta = [m.momentum for m in norms]
    for norm in norms:
        norm.momentum = 0.0
    try:
        yield
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
