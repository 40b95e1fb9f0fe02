"""A TensorFlow Lite graph as a plain torch module: batched, on any device, without TensorFlow."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gcl_fast.errors import InputError
from gcl_fast.estimation.tflite_file import Operation, TfliteModel

# Photos that the CPU takes at a time: what passes between operations of so few fits its caches
CHUNK = 4


class TfliteNetwork(nn.Module):
    """The graph of a model file, in inference. Weights are buffers, float32.

    Called with images [B, 3, H, W] float32; gives one tensor per output of the file, or per number in `outputs`: [B, C, H, W],
    and [B, C] where the file's output is flat. Operations that none of the outputs needs are not computed.
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
            if step.kind in ("conv", "depthwise_conv"):
                self._add_weights(step, constants)
        self._last_use = {i: number for number, step in enumerate(self.steps) for i in step.inputs}

    def _folded(self, steps: list[Operation]) -> tuple[list[Operation], dict[int, tuple[int, int]]]:
        """The steps without equal paddings before a convolution, which pads by itself, and how far each of those does."""
        uses = Counter(i for step in steps for i in step.inputs)
        pads = {}
        for step in steps:
            if step.kind == "pad" and uses[step.output] == 1 and step.output not in self.outputs:
                (n0, n1), (top, bottom), (left, right), (c0, c1) = self._sizes[step.output]
                if top == bottom and left == right and not any((n0, n1, c0, c1)):
                    pads[step.output] = (step.inputs[0], (top, left))
        kept, padding = [], {}
        for step in steps:
            if step.kind in ("conv", "depthwise_conv") and not step.same and step.inputs[0] in pads:
                source, padding[step.output] = pads.pop(step.inputs[0])
                step = replace(step, inputs=(source, *step.inputs[1:]))
            kept.append(step)
        folded = {i for i in (step.output for step in steps if step.kind == "pad") if not any(i in s.inputs for s in kept)}
        return [step for step in kept if step.output not in folded], padding

    def _add_weights(self, step: Operation, constants: dict[int, np.ndarray]) -> None:
        weight = torch.from_numpy(_constant(constants, step, 1, 4).astype(np.float32))
        # the file has [out, h, w, in], and [1, h, w, channels] for one kernel a channel
        weight = weight.permute(0, 3, 1, 2) if step.kind == "conv" else weight.permute(3, 0, 1, 2)
        self.register_buffer(f"weight_{step.output}", weight.contiguous(), persistent=False)
        if len(step.inputs) > 2 and step.inputs[2] >= 0:
            bias = torch.from_numpy(_constant(constants, step, 2, 1).astype(np.float32))
            self.register_buffer(f"bias_{step.output}", bias, persistent=False)

    @torch.inference_mode()
    def forward(self, image: Tensor) -> list[Tensor]:
        if image.dim() != 4 or tuple(image.shape[1:]) != self.input_shape:
            raise ValueError(f"image must be [B, {', '.join(map(str, self.input_shape))}], got {list(image.shape)}")
        if image.device.type == "cpu" and len(image) > CHUNK:
            return [torch.cat(parts) for parts in zip(*map(self._run, image.split(CHUNK)), strict=True)]
        return self._run(image)

    def _run(self, image: Tensor) -> list[Tensor]:
        values = {self.input: image.contiguous(memory_format=torch.channels_last)}
        for number, step in enumerate(self.steps):
            values[step.output] = self._step(step, values)
            for i in step.inputs:
                if self._last_use.get(i) == number and i not in self.outputs:
                    values.pop(i, None)
        return [values[i] for i in self.outputs]

    def _step(self, step: Operation, values: dict[int, Tensor]) -> Tensor:
        x = values[step.inputs[0]]
        if step.kind in ("conv", "depthwise_conv"):
            weight, bias = getattr(self, f"weight_{step.output}"), getattr(self, f"bias_{step.output}", None)
            groups = x.shape[1] if step.kind == "depthwise_conv" else 1
            padding = self._padding.get(step.output, (0, 0))
            if step.same:
                x, padding = _same(x, weight.shape[2:], step, 0.0)
            return _convolved(x, weight, bias, padding, groups, step)
        if step.kind == "max_pool":
            padding = (0, 0)
            if step.same:
                x, padding = _same(x, step.window, step, float("-inf"))
            return _activated(F.max_pool2d(x, step.window, step.stride, padding), step)
        if step.kind == "add":
            return _activated(x + values[step.inputs[1]], step)
        if step.kind == "sigmoid":
            return x.sigmoid()
        if step.kind == "pad":
            _, (top, bottom), (left, right), (first, last) = self._sizes[step.output]
            return F.pad(x, (left, right, top, bottom, first, last))
        if step.kind == "resize":
            size = self._sizes[step.output]
            if not step.half_pixel and not step.align_corners:
                raise InputError("a resize of whole-pixel corners is not known here; another model than BlazePose's?")
            return F.interpolate(x, size, mode="bilinear", align_corners=step.align_corners)
        if step.kind == "reshape":  # the file's order is channels last
            return x.permute(0, 2, 3, 1).reshape(len(x), *self.shapes[step.output][1:]) if x.dim() == 4 else x.flatten(1)
        raise InputError(f"operation {step.kind} is not known here")


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


def _same(x: Tensor, window: Sequence[int], step: Operation, value: float) -> tuple[Tensor, tuple[int, int]]:
    """What "same" adds, where it is not equal on both sides, and the padding that is left to the operation itself.

    The output is the input's size over the stride; the odd row or column goes below and right.
    """
    missing = [
        max((-(-size // stride) - 1) * stride + (width - 1) * dilation + 1 - size, 0)
        for size, width, stride, dilation in zip(x.shape[2:], window, step.stride, step.dilation, strict=True)
    ]
    down, across = missing
    if down % 2 == 0 and across % 2 == 0:
        return x, (down // 2, across // 2)
    return F.pad(x, (across // 2, across - across // 2, down // 2, down - down // 2), value=value), (0, 0)


def _convolved(x: Tensor, weight: Tensor, bias: Tensor | None, padding: tuple[int, int], groups: int, step: Operation) -> Tensor:
    """The convolution with its activation.

    On the CPU by oneDNN's own operation, which TorchInductor calls too: it activates while a value is at hand. `F.conv2d`
    takes a plain loop instead where the batch is small and the thread one.
    """
    fused = getattr(torch.ops.mkldnn, "_convolution_pointwise", None) if _onednn(x) else None
    if fused is None:
        return _activated(F.conv2d(x, weight, bias, step.stride, padding, step.dilation, groups), step)
    name, bounds = {"relu": ("relu", []), "relu6": ("hardtanh", [0.0, 6.0])}.get(step.activation, ("none", []))
    return fused(x, weight, bias, padding, step.stride, step.dilation, groups, name, bounds, "")


def _onednn(x: Tensor) -> bool:
    library = torch.backends.mkldnn
    return x.device.type == "cpu" and x.dtype == torch.float32 and library.is_available() and bool(library.enabled)


def _activated(x: Tensor, step: Operation) -> Tensor:
    """In place: `x` is an operation's own fresh result."""
    if step.activation == "relu6":
        return F.hardtanh_(x, 0.0, 6.0)
    return F.relu_(x) if step.activation == "relu" else x
