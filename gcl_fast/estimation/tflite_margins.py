"""The margins of pictures inside a graph: where the columns of the image repeat, those of most pictures that are made of it do
too, and a few stand for all."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from gcl_fast.estimation.tflite_columns import Columns
from gcl_fast.estimation.tflite_file import CONVOLUTIONS, Operation

Sides = tuple[int, int]  # left, right
CLOSE = 16  # columns of the image on each side: computing so many needlessly costs less than copying the result


class Margin(NamedTuple):
    """What is left out of a picture.

    left_out: so many columns on the left and on the right.
    copied: the columns that those repeat, counted from the left and from the right edge.
    """

    left_out: Sides
    copied: Sides


NONE = Margin((0, 0), (0, 0))


class Reach(NamedTuple):
    """Column c of a picture depends on the image's columns c * stride - left to c * stride + right alone."""

    stride: int
    left: int
    right: int


def margins(
    steps: Sequence[Operation],
    image: int,
    even: Columns,
    width: Callable[[int], int],
    kernel: Callable[[Operation], tuple[int, int]],
    channels: Callable[[int], int],
    whole: Collection[int],
) -> dict[int, Margin]:
    """Tensor -> what can be left out of it. Tensors of which nothing can are not there.

    A column repeats its neighbour where all that it depends on is margin: far enough from the photo, and from the edge, beyond
    which zeros are. The edge stays; of the columns that repeat one stays.

    Arguments:
        steps: in the order in which they are computed.
        image: the tensor that the others are made of.
        even: the image's columns up to the first of these are equal, and so are those from the last of them on.
        width, channels: of a tensor that is a picture.
        kernel: of a convolution: its width, and what it pads on the left.
        whole: tensors of which nothing is left out.
    """
    size = width(image)
    found = {image: (Reach(1, 0, 0), (even[0], size - even[1]))}
    result: dict[int, Margin] = {}
    for step in steps:
        sources = [found[i] for i in step.sources if i in found]
        if step.output in whole or step.kind not in ("add", *CONVOLUTIONS) or len(sources) < len(step.sources):
            continue
        if len({reach.stride for reach, _ in sources}) > 1:
            continue
        reach = _reach(step, [reach for reach, _ in sources], kernel)
        before = [min(sides[side] for _, sides in sources) for side in (0, 1)]
        stride, past = reach.stride, width(step.output)
        first, last = -(-reach.left // stride), min(past, (size - reach.right - 1) // stride + 1) - 1  # beyond which zeros count
        room = even[0] - reach.right - first * stride, last * stride - reach.left - (even[1] - 1)
        left, right = (max(0, min(b, r)) // stride * stride for b, r in zip(before, room, strict=True))
        if left or right:
            found[step.output] = reach, (left, right)
            result[step.output] = Margin((left // stride, right // stride), (first, past - 1 - last))
    return _fewer_copies(steps, result, {i: reach.stride for i, (reach, _) in found.items()}, channels)


def _reach(step: Operation, sources: list[Reach], kernel: Callable[[Operation], tuple[int, int]]) -> Reach:
    stride, left, right = sources[0].stride, max(r.left for r in sources), max(r.right for r in sources)
    if step.kind == "add":
        return Reach(stride, left, right)
    wide, padded = kernel(step)
    return Reach(stride * step.stride[1], left + stride * padded, right + stride * ((wide - 1) * step.dilation[1] - padded))


def _fewer_copies(
    steps: Sequence[Operation], found: dict[int, Margin], strides: dict[int, int], channels: Callable[[int], int]
) -> dict[int, Margin]:
    """A step leaves out no more than that one of its readers which leaves out most: this one then reads the result as it is, the
    others a copy with more columns. Except where the step could leave out more than CLOSE columns more, and makes no more
    channels than it takes: then copies are the cheaper way.
    """
    for step in reversed(steps):
        if step.output not in found:
            continue
        (left, right), copied = found[step.output]
        stride, readers = strides[step.output], [s for s in steps if step.output in s.sources]
        of_readers = [(found.get(s.output, NONE).left_out, strides.get(s.output, stride) // stride) for s in readers]
        narrowest = tuple(max(sides[side] * times for sides, times in of_readers) for side in (0, 1))
        columns = max(left - narrowest[0], right - narrowest[1])
        if columns * stride <= CLOSE or channels(step.output) > channels(step.inputs[0]):
            found[step.output] = Margin((min(left, narrowest[0]), min(right, narrowest[1])), copied)
    return found


def widened(x: Tensor, margin: Margin, wanted: Sides, columns: Columns | None = None) -> Tensor:
    """A picture [B, C, H, w] without its `margin` -> with all but `wanted` columns left out, or these `columns` of the whole."""
    (left, right), (first, last) = margin
    more = left - wanted[0], right - wanted[1]
    count = x.shape[3]
    begin, past = columns or (0, count + sum(more))
    middle, end = first + more[0], count - last + more[0]  # where the columns at hand go on, and end
    runs = (  # columns of the result, and the first of those that go there; every time, or one that is repeated
        (0, first, 0, False),
        (first, middle, first, True),
        (middle, end, first, False),
        (end, end + more[1], count - last - 1, True),
        (end + more[1], count + sum(more), count - last, False),
    )
    out = torch.empty((*x.shape[:3], past - begin), dtype=x.dtype, device=x.device, memory_format=torch.channels_last)
    for start, stop, source, repeated in runs:
        low, high = max(start, begin), min(stop, past)
        if low < high:
            at = source if repeated else source + low - start
            out[..., low - begin : high - begin] = x[..., at : at + (1 if repeated else high - low)]
    return out
