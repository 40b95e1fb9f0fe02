"""Several batches through one network: in one pass, or one after the other where that is faster."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import torch
from torch import Tensor

Result = TypeVar("Result", Tensor, tuple[Tensor, ...])
# On a CPU the maps of more pixels than this leave the caches, and convolutions, their backward above all, become up to twice
# as slow a pixel: measured at 4 against 12 and 16 images of 256x128.
CPU_PIXELS = 4 * 256 * 128


def together(network: Callable[..., Result], *arguments: Sequence[Tensor], pixels: int | None = None) -> list[Result]:
    """network(arguments[0][i], arguments[1][i], ...) for each i, where all are of one shape and no layer mixes samples.

    A GPU is filled best by one pass over all; a CPU by passes whose maps stay in its caches. pixels: of one pass, where the
    first argument does not tell [B, C, H, W]. Either way has the same results up to rounding.
    """
    first = arguments[0]
    count = len(first)
    if pixels is None:
        pixels = first[0].shape[0] * first[0].shape[2] * first[0].shape[3]
    if first[0].device.type == "cpu" and count * pixels > CPU_PIXELS:
        return [network(*each) for each in zip(*arguments, strict=True)]
    result = network(*(torch.cat(list(each)) for each in arguments))
    if isinstance(result, Tensor):
        return list(result.chunk(count))
    return list(zip(*(part.chunk(count) for part in result), strict=True))
