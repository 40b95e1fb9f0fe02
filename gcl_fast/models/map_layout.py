"""The memory layout of maps [B, C, H, W]."""

from __future__ import annotations

import torch
from torch import Tensor


def layout_of(x: Tensor) -> torch.memory_format:
    """Channels last where x is that and not as it is named, too; else as it is named. A compiled graph chooses for itself."""
    last = not torch.compiler.is_compiling() and not x.is_contiguous() and x.is_contiguous(memory_format=torch.channels_last)
    return torch.channels_last if last else torch.contiguous_format
