"""A TensorFlow Lite graph as a plain torch module: batched, on any device, without TensorFlow."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gcl_fast.errors import InputError
from gcl_fast.estimation.tflite_columns import Columns, needed_columns, source_columns
from gcl_fast.estimation.tflite_file import CONVOLUTIONS, Operation, TfliteModel
from gcl_fast.estimation.tflite_margins import NONE, Margin, margins, widened

if TYPE_CHECKING:
    from typing_extensions import Self

# Photos that the CPU takes at a time: what passes between operations of so few fits its caches
CHUNK = 4
Sides = tuple[int, int, int, int]  # above, below, left, right


class Kept(NamedTuple):
    """What there is of the pictures inside the graph while it is computed: all of those that are in neither of the two.

    columns: tensor -> the only columns of it that are computed.
    margins: tensor -> columns left out because they repeat others.
    """

    columns: Mapping[int, Columns]
    margins: Mapping[int, Margin]


Program = list[tuple[int, list[tuple[int, Callable[[Tensor], Tensor] | None]], Callable[..., Tensor]]]
"""Of each step in turn: its output; the tensors that it reads, and what it takes of them; what it does."""


class TfliteNetwork(nn.Module):
    """The graph of a model file, in inference. Weights are buffers, float32.

    Called with images [B, 3, H, W] float32; gives one tensor per output of the file, or per number in `outputs`: [B, C, H, W],
    and [B, C] where the file's output is flat. Operations that none of the outputs needs are not computed. Of a picture among the
    outputs, `columns` ({place among the outputs: (first, past)}) leaves these alone; the others are not computed either.
    `even` (first, past) promises that the images' columns 0 to first are equal, and so are those from past - 1 on: most of the
    columns that repeat because of it are not computed again.
    """

    def __init__(self, model: TfliteModel, outputs: tuple[int, ...] | None = None) -> None:
        super().__init__()
        if len(model.inputs) != 1 or len(model.shapes[model.inputs[0]]) != 4:
            raise InputError(f"the model must take one image, got inputs of shapes {[model.shapes[i] for i in model.inputs]}")
        self.input = model.inputs[0]
        _, height, width, channels = model.shapes[self.input]
        self.input_shape = (channels, height, width)
        self.outputs = outputs or model.outputs
        self.shapes = model.shapes
        constants = dict(model.constants)
        for step in model.operations:
            if step.kind == "dequantize" and step.inputs[0] in constants:
                constants[step.output] = constants[step.inputs[0]]
        steps = _needed([step for step in model.operations if step.output not in constants], self.outputs)
        sizes = {"pad": 2, "resize": 1}  # dimensions of the constant that says how far
        self._sizes = {
            step.output: _constant(constants, step, 1, sizes[step.kind]).tolist() for step in steps if step.kind in sizes
        }
        self.steps, self._padding = self._folded(steps)
        for step in self.steps:
            if step.kind in CONVOLUTIONS:
                self._add_weights(step, constants)
            if step.kind in (*CONVOLUTIONS, "max_pool") and step.same:
                self._padding[step.output] = self._same(step)
        # Weights as oneDNN wants them, made when a CPU first needs them, with the version of the buffer that they were made of
        self._reordered: dict[int, tuple[int, Tensor]] = {}
        last_use = {i: number for number, step in enumerate(self.steps) for i in step.sources}
        # After each step, the tensors that nothing reads any more
        self._finished = [[i for i in last_use if last_use[i] == n and i not in self.outputs] for n in range(len(self.steps))]

    def __getstate__(self) -> dict[str, object]:  # oneDNN's tensors can be neither copied nor written
        return {**self.__dict__, "_reordered": {}}

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        self._reordered = {}
        return super()._apply(fn, recurse)

    def _folded(self, steps: list[Operation]) -> tuple[list[Operation], dict[int, Sides]]:
        """The steps without equal paddings before a convolution, which pads by itself, and how far each of those does."""
        uses = Counter(i for step in steps for i in step.inputs)
        pads = {}
        for step in steps:
            if step.kind == "pad" and uses[step.output] == 1 and step.output not in self.outputs:
                (n0, n1), (top, bottom), (left, right), (c0, c1) = self._sizes[step.output]
                if top == bottom and left == right and not any((n0, n1, c0, c1)):
                    pads[step.output] = (step.inputs[0], (top, bottom, left, right))
        kept, padding = [], {}
        for step in steps:
            if step.kind in CONVOLUTIONS and not step.same and step.inputs[0] in pads:
                source, padding[step.output] = pads.pop(step.inputs[0])
                step = replace(step, inputs=(source, *step.inputs[1:]))
            kept.append(step)
        read = {*self.outputs, *(i for step in kept for i in step.inputs)}
        folded = {step.output for step in steps if step.kind == "pad"} - read
        return [step for step in kept if step.output not in folded], padding

    def _add_weights(self, step: Operation, constants: dict[int, np.ndarray]) -> None:
        weight = torch.from_numpy(_constant(constants, step, 1, 4).astype(np.float32))
        # the file has [out, h, w, in], and [1, h, w, channels] for one kernel a channel
        weight = weight.permute(0, 3, 1, 2) if step.kind == "conv" else weight.permute(3, 0, 1, 2)
        self.register_buffer(f"weight_{step.output}", weight.contiguous(), persistent=False)
        if len(step.inputs) > 2 and step.inputs[2] >= 0:
            bias = torch.from_numpy(_constant(constants, step, 2, 1).astype(np.float32))
            self.register_buffer(f"bias_{step.output}", bias, persistent=False)

    def _same(self, step: Operation) -> Sides:
        """What "same" adds: the output is the input's size over the stride; the odd row or column goes below and right."""
        window = step.window if step.kind == "max_pool" else self._weight(step).shape[2:]
        if min(step.stride) < 1:
            raise InputError(f"an operation {step.kind} of stride {step.stride}")
        down, across = (
            max((-(-size // stride) - 1) * stride + (wide - 1) * dilation + 1 - size, 0)
            for size, wide, stride, dilation in zip(self._size(step.inputs[0]), window, step.stride, step.dilation, strict=True)
        )
        return down // 2, down - down // 2, across // 2, across - across // 2

    def _size(self, tensor: int) -> tuple[int, int]:
        """Height and width of a picture."""
        shape = self.shapes[tensor]
        if len(shape) != 4:
            raise InputError(f"expected a picture, got a tensor of shape {shape}")
        return shape[1], shape[2]

    def _width(self, tensor: int) -> int:
        return self._size(tensor)[1]

    def _kernel(self, step: Operation) -> tuple[int, int]:
        """Its width, and what is padded on the left."""
        return self._weight(step).shape[3], self._padding.get(step.output, (0, 0, 0, 0))[2]

    def _weight(self, step: Operation) -> Tensor:
        weight: Tensor = getattr(self, f"weight_{step.output}")
        return weight

    @torch.inference_mode()
    def forward(self, image: Tensor, columns: Mapping[int, Columns] | None = None, even: Columns | None = None) -> list[Tensor]:
        if image.dim() != 4 or tuple(image.shape[1:]) != self.input_shape:
            raise ValueError(f"image must be [B, {', '.join(map(str, self.input_shape))}], got {list(image.shape)}")
        asked = {i: (columns or {}).get(place) for place, i in enumerate(self.outputs)}
        self._check_columns(columns or {})
        if even is not None and not 0 <= even[0] < even[1] <= image.shape[3]:
            raise ValueError(f"even must be columns (first, past) of the image's {image.shape[3]}, got {even}")
        stored = needed_columns(self.steps, asked, self._width, self._kernel) if columns else {}
        stored.pop(self.input, None)  # which is there whole
        kept = Kept(stored, self._margins(even, {*stored, *self.outputs}) if even else {})
        onednn = _onednn(image)
        program = [(step.output, self._reads(step, kept), self._computed(step, kept, onednn)) for step in self.steps]
        parts = image.split(CHUNK) if image.device.type == "cpu" else [image]
        outputs = zip(*(self._run(part, program) for part in parts), strict=True)
        return [_cut(torch.cat(values), asked[i], stored.get(i)) for i, values in zip(self.outputs, outputs, strict=True)]

    def _check_columns(self, columns: Mapping[int, Columns]) -> None:
        for place, (first, past) in columns.items():
            shape = self.shapes[self.outputs[place]] if 0 <= place < len(self.outputs) else ()
            if len(shape) != 4 or not 0 <= first < past <= shape[2]:
                raise ValueError(
                    f"columns {first} to {past} of output {place}, whose shape is {shape}, are not some of a picture's"
                )

    def _margins(self, even: Columns, whole: Collection[int]) -> dict[int, Margin]:
        return margins(self.steps, self.input, even, self._width, self._kernel, lambda i: self.shapes[i][3], whole)

    def _run(self, image: Tensor, program: Program) -> list[Tensor]:
        """The outputs."""
        values = {self.input: image.contiguous(memory_format=torch.channels_last)}
        for (output, reads, compute), finished in zip(program, self._finished, strict=True):
            values[output] = compute(*(values[i] if read is None else read(values[i]) for i, read in reads))
            for i in finished:
                del values[i]
        return [values[i] for i in self.outputs]

    def _wanted(self, step: Operation, kept: Kept) -> Columns | None:
        """The columns that a step reads; None: all."""
        own = kept.columns.get(step.output)
        return None if own is None else source_columns(step, own, self._width, self._kernel)

    def _reads(self, step: Operation, kept: Kept) -> list[tuple[int, Callable[[Tensor], Tensor] | None]]:
        """Each tensor that a step reads, and what it takes of that; None: all that is at hand."""
        wanted = self._wanted(step, kept)
        left, right = (n * step.stride[1] for n in kept.margins.get(step.output, NONE).left_out)
        reads: list[tuple[int, Callable[[Tensor], Tensor] | None]] = []
        for i in step.sources:
            margin, stored = kept.margins.get(i, NONE), kept.columns.get(i)
            read: Callable[[Tensor], Tensor] | None = None
            if i == self.input and left + right:
                read = partial(_cut, columns=(left, self._width(i) - right), stored=None)
            elif margin.left_out != (left, right):
                read = partial(widened, margin=margin, wanted=(left, right), columns=wanted)
            elif wanted not in (None, stored):
                read = partial(_cut, columns=wanted, stored=stored)
            reads.append((i, read))
        return reads

    def _computed(self, step: Operation, kept: Kept, onednn: bool) -> Callable[..., Tensor]:
        """What a step does with what it reads."""
        own = kept.columns.get(step.output)
        if step.kind in CONVOLUTIONS:
            return self._convolution(step, own, onednn)
        if step.kind == "max_pool":
            pad, padding = self._padded(step, float("-inf"), own)
            return lambda x: _activated(F.max_pool2d(pad(x), step.window, step.stride, padding), step)
        if step.kind == "add":
            return lambda x, y: _activated(x + y, step)
        if step.kind == "sigmoid":
            return torch.sigmoid
        if step.kind == "pad":
            _, (top, bottom), (left, right), (first, last) = self._sizes[step.output]
            return lambda x: F.pad(x, (left, right, top, bottom, first, last))
        if step.kind == "resize":
            return self._resized(step, own, self._wanted(step, kept))
        if step.kind == "reshape":  # the file's order is channels last
            shape = self.shapes[step.output][1:]
            return lambda x: x.permute(0, 2, 3, 1).reshape(len(x), *shape) if x.dim() == 4 else x.flatten(1)
        raise InputError(f"operation {step.kind} is not known here")

    def _resized(self, step: Operation, own: Columns | None, wanted: Columns | None) -> Callable[[Tensor], Tensor]:
        height, width = self._sizes[step.output]
        if not step.half_pixel and not step.align_corners:
            raise InputError("a resize of whole-pixel corners is not known here; another model than BlazePose's?")
        if own is None or wanted is None:
            return lambda x: F.interpolate(x, (height, width), mode="bilinear", align_corners=step.align_corners)
        times = width // self._width(step.inputs[0])
        size, at_hand = (height, times * (wanted[1] - wanted[0])), (times * wanted[0], times * wanted[1])
        return lambda x: _cut(F.interpolate(x, size, mode="bilinear"), own, at_hand)

    def _padded(self, step: Operation, value: float, own: Columns | None) -> tuple[Callable[[Tensor], Tensor], tuple[int, int]]:
        """What adds to a picture the zeros (or `value`) that an operation cannot pad by itself, and what it can. None are added
        left and right inside a picture."""
        above, below, left, right = self._padding.get(step.output, (0, 0, 0, 0))
        if own is not None:
            left = right = 0
        if above == below and left == right:
            return lambda x: x, (above, left)
        return lambda x: F.pad(x, (left, right, above, below), value=value), (0, 0)

    def _convolution(self, step: Operation, own: Columns | None, onednn: bool) -> Callable[[Tensor], Tensor]:
        """The convolution with its activation.

        On the CPU by oneDNN's own operation, which TorchInductor calls too: it activates while a value is at hand. `F.conv2d`
        takes a plain loop instead where the batch is small and the thread one.
        """
        weight, bias = self._weight(step), getattr(self, f"bias_{step.output}", None)
        groups = self.shapes[step.inputs[0]][3] if step.kind == "depthwise_conv" else 1
        pad, padding = self._padded(step, 0.0, own)
        if not onednn or weight.dtype != torch.float32:
            return lambda x: _activated(F.conv2d(pad(x), weight, bias, step.stride, padding, step.dilation, groups), step)
        version, reordered = self._reordered.get(step.output, (-1, weight))
        if version != weight._version:
            height, width = self._size(step.inputs[0])
            above, below, left, right = self._padding.get(step.output, (0, 0, 0, 0))
            # of a usual input: an order is chosen by it
            shape = [CHUNK, groups * weight.shape[1], height + above + below, width + left + right]
            reordered = torch.ops.mkldnn._reorder_convolution_weight(weight, padding, step.stride, step.dilation, groups, shape)
            self._reordered[step.output] = weight._version, reordered
        name, bounds = {"relu": ("relu", []), "relu6": ("hardtanh", [0.0, 6.0])}.get(step.activation, ("none", []))
        convolve, how = torch.ops.mkldnn._convolution_pointwise.default, (padding, step.stride, step.dilation, groups, name)
        return lambda x: convolve(pad(x), reordered, bias, *how, bounds, "")


def _cut(x: Tensor, columns: Columns | None, stored: Columns | None) -> Tensor:
    """These columns of a picture of which `stored` are at hand; None: all."""
    if columns is None or columns == stored:
        return x
    first = stored[0] if stored else 0
    return x[..., columns[0] - first : columns[1] - first]


def _constant(constants: dict[int, np.ndarray], step: Operation, place: int, dimensions: int) -> np.ndarray:
    """An input that must be a constant of so many dimensions."""
    array = constants.get(step.inputs[place]) if place < len(step.inputs) else None
    if array is None or array.ndim != dimensions:
        raise InputError(f"input {place} of an operation {step.kind} must be a constant of {dimensions} dimensions")
    return array


def _needed(steps: list[Operation], outputs: tuple[int, ...]) -> list[Operation]:
    wanted, kept = set(outputs), []
    for step in reversed(steps):
        if step.output in wanted:
            wanted.update(step.inputs)
            kept.append(step)
    return kept[::-1]


def _onednn(x: Tensor) -> bool:
    library, operations = torch.backends.mkldnn, ("_convolution_pointwise", "_reorder_convolution_weight")
    if x.device.type != "cpu" or x.dtype != torch.float32 or not (library.is_available() and library.enabled):
        return False
    return all(hasattr(torch.ops.mkldnn, name) for name in operations)


def _activated(x: Tensor, step: Operation) -> Tensor:
    """In place: `x` is an operation's own fresh result."""
    if step.activation == "relu6":
        return F.hardtanh_(x, 0.0, 6.0)
    return F.relu_(x) if step.activation == "relu" else x
