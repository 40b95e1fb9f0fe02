"""A TensorFlow Lite graph as a plain torch module: batched, on any device, without TensorFlow."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gcl_fast.errors import InputError
from gcl_fast.estimation.tflite_file import Operation, TfliteModel


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
        self.steps = _needed([step for step in model.operations if step.output not in constants], self.outputs)
        for step in self.steps:
            if step.kind in ("conv", "depthwise_conv"):
                self._add_weights(step, constants)
        self._plain = {i: constants[i] for step in self.steps for i in step.inputs if step.kind in ("pad", "resize") and i in constants}
        self._last_use = {i: number for number, step in enumerate(self.steps) for i in step.inputs}

    def _add_weights(self, step: Operation, constants: dict[int, np.ndarray]) -> None:
        weight = torch.from_numpy(constants[step.inputs[1]].astype(np.float32))
        # the file has [out, h, w, in], and [1, h, w, channels] for one kernel a channel
        weight = weight.permute(0, 3, 1, 2) if step.kind == "conv" else weight.permute(3, 0, 1, 2)
        self.register_buffer(f"weight_{step.output}", weight.contiguous(), persistent=False)
        if len(step.inputs) > 2 and step.inputs[2] >= 0:
            bias = torch.from_numpy(constants[step.inputs[2]].astype(np.float32))
            self.register_buffer(f"bias_{step.output}", bias, persistent=False)

    @torch.inference_mode()
    def forward(self, image: Tensor) -> list[Tensor]:
        if image.dim() != 4 or tuple(image.shape[1:]) != self.input_shape:
            raise ValueError(f"image must be [B, {', '.join(map(str, self.input_shape))}], got {list(image.shape)}")
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
            x = _padded_same(x, weight.shape[2:], step, 0.0)
            return _activated(F.conv2d(x, weight, bias, step.stride, 0, step.dilation, groups), step)
        if step.kind == "max_pool":
            return _activated(F.max_pool2d(_padded_same(x, step.window, step, float("-inf")), step.window, step.stride), step)
        if step.kind == "add":
            return _activated(x + values[step.inputs[1]], step)
        if step.kind == "sigmoid":
            return x.sigmoid()
        if step.kind == "pad":
            _, (top, bottom), (left, right), (first, last) = self._plain[step.inputs[1]].tolist()
            return F.pad(x, (left, right, top, bottom, first, last))
        if step.kind == "resize":
            size = self._plain[step.inputs[1]].tolist()
            if not step.half_pixel and not step.align_corners:
                raise InputError("a resize of whole-pixel corners is not known here; another model than BlazePose's?")
            return F.interpolate(x, size, mode="bilinear", align_corners=step.align_corners)
        if step.kind == "reshape":  # the file's order is channels last
            return x.permute(0, 2, 3, 1).reshape(len(x), *self.shapes[step.output][1:]) if x.dim() == 4 else x.flatten(1)
        raise InputError(f"operation {step.kind} is not known here")


def _needed(steps: list[Operation], outputs: tuple[int, ...]) -> list[Operation]:
    wanted, kept = set(outputs), []
    for step in reversed(steps):
        if step.output in wanted:
            wanted.update(step.inputs)
            kept.append(step)
    return kept[::-1]


def _padded_same(x: Tensor, window: tuple[int, ...] | torch.Size, step: Operation, value: float) -> Tensor:
    """What "same" adds: the output is the input's size over the stride, the odd row or column goes below and right."""
    if not step.same:
        return x
    pads: list[int] = []
    for size, width, stride, dilation in zip(x.shape[2:], window, step.stride, step.dilation, strict=True):
        missing = max((-(-size // stride) - 1) * stride + (width - 1) * dilation + 1 - size, 0)
        pads = [missing // 2, missing - missing // 2, *pads]  # F.pad begins with the last dimension
    return F.pad(x, pads, value=value) if any(pads) else x


def _activated(x: Tensor, step: Operation) -> Tensor:
    if step.activation == "relu6":
        return F.relu6(x)
    return F.relu(x) if step.activation == "relu" else x
