"""Plain definition of reflect_pad: torch's own padding."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def reflect_pad(x: Tensor, pad: int) -> Tensor:
    """See `gcl_fast.ops.reflect_pad`."""
    return F.pad(x, (pad, pad, pad, pad), mode="reflect")
