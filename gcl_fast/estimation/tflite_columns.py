"""Which columns of the pictures inside a graph count, where only some columns of an output are looked at."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

from gcl_fast.estimation.tflite_file import CONVOLUTIONS, Operation

Columns = tuple[int, int]  # the first, and one past the last


def needed_columns(
    steps: Sequence[Operation],
    outputs: Mapping[int, Columns | None],
    width: Callable[[int], int],
    kernel: Callable[[Operation], tuple[int, int]],
) -> dict[int, Columns]:
    """Tensor -> the columns of it on which the outputs depend. Tensors of which all count are left out.

    A step whose columns depend on what lies beyond the picture's edge gives all of its own: nothing is padded inside a picture.

    Arguments:
        steps: in the order in which they are computed, all of them needed.
        outputs: the columns that are looked at, of every output of the graph; None: all.
        width: of a tensor that is a picture.
        kernel: of a convolution: its width, and what it pads on the left.
    """
    needed = dict(outputs)
    for step in reversed(steps):
        own = needed[step.output]
        wanted = None if own is None else source_columns(step, own, width, kernel)
        if wanted is not None and (wanted[0] < 0 or wanted[1] > width(step.inputs[0])):
            wanted = None
        if wanted is None:
            needed[step.output] = None
        for source in step.sources:
            before = needed.get(source, wanted)
            both = None if before is None or wanted is None else (min(before[0], wanted[0]), max(before[1], wanted[1]))
            needed[source] = both
    return {tensor: columns for tensor, columns in needed.items() if columns is not None}


def source_columns(
    step: Operation, own: Columns, width: Callable[[int], int], kernel: Callable[[Operation], tuple[int, int]]
) -> Columns | None:
    """Columns of the input from which those of the output come, maybe beyond its edge; None: all."""
    first, past = own
    if step.kind in ("add", "sigmoid"):
        return own
    if step.kind in CONVOLUTIONS:
        (size, left), stride = kernel(step), step.stride[1]
        return first * stride - left, (past - 1) * stride - left + (size - 1) * step.dilation[1] + 1
    if step.kind == "resize" and step.half_pixel and width(step.output) % width(step.inputs[0]) == 0:
        times = width(step.output) // width(step.inputs[0])
        return math.floor((first + 0.5) / times - 0.5), math.floor((past - 0.5) / times - 0.5) + 2
    return None
