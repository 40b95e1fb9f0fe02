"""bfloat16's numbers on a processor without units for it: `import bf16_numbers` changes this process's convolutions and products.

Under autocast, which chooses them, each product's inputs and its result are rounded to bfloat16 and its sums stay float32, as
such units compute. PyTorch's own fallback for these processors rounds alike and takes many times as long.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

_conv2d, _linear = F.conv2d, F.linear


def _rounded(x: Tensor | None) -> Tensor | None:
    return None if x is None else x.to(torch.bfloat16).float()


def conv2d(input: Tensor, weight: Tensor, bias: Tensor | None = None, *args: Any, **kwargs: Any) -> Tensor:
    if not torch.is_autocast_enabled("cpu") and input.dtype != torch.bfloat16:
        return _conv2d(input, weight, bias, *args, **kwargs)
    with torch.autocast("cpu", enabled=False):
        return _conv2d(_rounded(input), _rounded(weight), _rounded(bias), *args, **kwargs).to(torch.bfloat16)


def linear(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    if not torch.is_autocast_enabled("cpu"):
        return _linear(input, weight, bias)
    with torch.autocast("cpu", enabled=False):
        return _linear(_rounded(input), _rounded(weight), _rounded(bias)).to(torch.bfloat16)


F.conv2d, F.linear = conv2d, linear
