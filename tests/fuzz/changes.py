"""What a stranger may do to a valid call: other sizes, types, strides, views, values and kinds of arguments."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tests.fuzz.valid_calls import Call, Draw

DTYPES = (
    *(torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64, torch.float16, torch.bfloat16),
    *(torch.float32, torch.float64, torch.complex64, torch.complex128, torch.float8_e4m3fn, torch.uint16, torch.uint32),
)
INTEGERS = (0, 1, -1, 2, 7, 2**31 - 1, 2**31, -(2**31), 2**62, 2**63 - 1, -(2**63))
FLOATS = (0.0, -0.0, 1.0, -1.0, 1e-45, 1e-30, 1e38, 1e308, math.inf, -math.inf, math.nan)
STRANGERS: tuple[Any, ...] = (None, True, "4", 1.5, (), [], (1, 2, 3), 2**64, object())


def resized(x: Tensor, draw: Draw) -> Tensor:
    """One dimension of another size; what is new is what was there already."""
    if not x.dim():
        return x
    d, size = draw.below(x.dim()), draw.size()
    if not x.shape[d]:
        return x.new_zeros((*x.shape[:d], size, *x.shape[d + 1 :]))
    return x.index_select(d, torch.arange(size) % x.shape[d])


def retyped(x: Tensor, draw: Draw) -> Tensor:
    return x.to(draw.of(DTYPES))


def restrided(x: Tensor, draw: Draw) -> Tensor:
    """The same numbers at other places: transposed, with gaps, shifted against alignment, or broadcast from one row."""
    if not x.dim():
        return x
    d = draw.below(x.dim())
    kind = draw.below(5)
    if kind == 0:
        return x.transpose(d, 0).contiguous().transpose(d, 0)
    if kind == 1:
        return torch.stack((x, x), -1)[..., 0]
    if kind == 2:
        return torch.cat((x.reshape(-1)[:1], x.reshape(-1)))[1 if x.numel() else 0 :].view(x.shape)
    if kind == 3 and x.shape[d]:
        return x.narrow(d, 0, 1).expand(x.shape)
    return torch.cat((x, x), d).narrow(d, x.shape[d] // 2, x.shape[d])


def negated_view(x: Tensor, draw: Draw) -> Tensor:
    return torch._neg_view(x.neg()) if x.dtype not in (torch.bool, torch.uint16, torch.uint32) and x.numel() else x


def overlapping(x: Tensor, draw: Draw) -> Tensor:
    """Every element at one place."""
    return x.as_strided(x.shape, [0] * x.dim()) if x.numel() else x


def revalued(x: Tensor, draw: Draw) -> Tensor:
    """One element, or all, of an extreme value."""
    x = x.clone()
    if not x.numel() or x.dtype == torch.bool:
        return x
    value = draw.of(FLOATS if x.is_floating_point() else INTEGERS)
    if not x.is_floating_point() and not x.is_complex():
        limits = torch.iinfo(x.dtype)
        value = max(limits.min, min(limits.max, value))
    if draw.chance(0.5):
        x.view(-1)[draw.below(x.numel())] = value
    else:
        x.fill_(value)
    return x


def reshaped(x: Tensor, draw: Draw) -> Tensor:
    kind = draw.below(4)
    if kind == 0:
        return x.unsqueeze(draw.below(x.dim() + 1))
    if kind == 1:
        return x.flatten()
    if kind == 2:
        return x.squeeze()
    return x[0] if x.dim() and x.shape[0] else x


def elsewhere(x: Tensor, draw: Draw) -> Any:
    """No dense tensor with numbers on the CPU."""
    kind = draw.below(4)
    if kind == 0:
        return x.to("meta")
    if kind == 1 and x.dtype in DTYPES[:10]:
        return x.to_sparse() if x.dim() else x
    if kind == 2 and x.dtype not in (torch.bfloat16, torch.float8_e4m3fn):
        return x.numpy()
    return draw.of(STRANGERS)


CHANGES: tuple[Callable[[Tensor, Draw], Any], ...] = (
    *(resized, resized, retyped, restrided, restrided, restrided),
    *(negated_view, overlapping, revalued, revalued, reshaped, elsewhere),
)


def changed_value(value: Any, draw: Draw) -> Any:
    if isinstance(value, np.ndarray):
        changed = changed_value(torch.from_numpy(value), draw)
        dense = isinstance(changed, Tensor) and changed.layout == torch.strided and changed.device.type == "cpu"
        return changed.resolve_neg().numpy() if dense and changed.dtype not in DTYPES[7:8] + DTYPES[12:13] else changed
    if isinstance(value, Tensor):
        try:
            return draw.of(CHANGES)(value, draw)
        except (RuntimeError, TypeError, NotImplementedError):  # a change that torch does not know for this type
            return value
    if isinstance(value, bool) or value is None or draw.chance(0.1):
        return draw.of(STRANGERS)
    if isinstance(value, int):
        return draw.of(INTEGERS)
    if isinstance(value, float):
        return draw.of(FLOATS)
    if isinstance(value, (tuple, list)) and value:
        items = list(value)
        items[draw.below(len(items))] = draw.of((*INTEGERS, *FLOATS[:3]))
        return type(value)(items)
    return value


def changed(call: Call, draw: Draw) -> Call:
    """The call with none to three of its arguments changed."""
    args, kwargs = list(call.args), dict(call.kwargs)
    for _ in range(draw.below(4)):
        keys: list[Any] = [*range(len(args)), *kwargs]
        key = draw.of(keys)
        if isinstance(key, int):
            args[key] = changed_value(args[key], draw)
        else:
            kwargs[key] = changed_value(kwargs[key], draw)
    return Call(call.name, call.function, args, kwargs)
