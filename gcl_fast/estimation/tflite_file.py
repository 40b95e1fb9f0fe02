"""TensorFlow Lite model files: the operations of their graph, its constants and its tensors' shapes.

Source: the public schema of the format (schema.fbs of TensorFlow Lite, version 3); field numbers are those of its tables.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from gcl_fast.errors import InputError, MissingFileError
from gcl_fast.estimation.flat_tables import Table

KINDS = {
    0: "add",
    3: "conv",
    4: "depthwise_conv",
    6: "dequantize",
    14: "sigmoid",
    17: "max_pool",
    22: "reshape",
    23: "resize",
    34: "pad",
}
DTYPES = {0: "<f4", 1: "<f2", 2: "<i4"}
CONVOLUTIONS = ("conv", "depthwise_conv")
ACTIVATIONS = {0: "none", 1: "relu", 3: "relu6"}


@dataclass(frozen=True)
class Operation:
    """One step of the graph; `inputs` and `output` number its tensors, -1 is an input left out.

    kind         a value of KINDS
    same         padding "same" (else "valid"); of conv, depthwise_conv, max_pool
    stride       (down, across); dilation and window likewise
    activation   none, relu or relu6, after the operation
    half_pixel, align_corners   of resize
    """

    kind: str
    inputs: tuple[int, ...]
    output: int
    same: bool = True
    stride: tuple[int, int] = (1, 1)
    dilation: tuple[int, int] = (1, 1)
    window: tuple[int, int] = (1, 1)
    activation: str = "none"
    half_pixel: bool = False
    align_corners: bool = False

    @property
    def sources(self) -> tuple[int, ...]:
        """The inputs that are computed; the others are constants."""
        return self.inputs[: 2 if self.kind == "add" else 1]


@dataclass(frozen=True)
class TfliteModel:
    """A graph in the order in which it is computed.

    shapes     of every tensor, channels last
    constants  tensor number -> array, float16 kept so
    """

    operations: tuple[Operation, ...]
    shapes: tuple[tuple[int, ...], ...]
    constants: dict[int, np.ndarray]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]


def read_tflite(path: str | os.PathLike[str]) -> TfliteModel:
    """Read a .tflite file; nothing in it is executed.

    Errors: MissingFileError; InputError naming the file and what cannot be read: a damaged file, an operation or a type of
    numbers that is not among KINDS and DTYPES.
    """
    path = Path(path)
    if not path.is_file():
        raise MissingFileError(f"weights {path} do not exist")
    data = path.read_bytes()
    if data[4:8] != b"TFL3":
        raise InputError(f"weights {path}: expected a TensorFlow Lite model (.tflite), got another kind of file")
    try:
        return _model(Table.root(data))
    except (InputError, ValueError, IndexError, KeyError) as error:
        raise InputError(f"weights {path}: {error}") from error


def _model(root: Table) -> TfliteModel:
    graphs = root.tables(2)
    if len(graphs) != 1:
        raise InputError(f"expected one graph, got {len(graphs)}")
    graph = graphs[0]
    buffers = root.tables(4)
    shapes, constants = [], {}
    for number, tensor in enumerate(graph.tables(0)):
        shape = tuple(tensor.array(0).tolist())
        shapes.append(shape)
        values = buffers[tensor.number(2, "I")].array(0, "u1")
        if values.size:
            kind = tensor.number(1, "b")
            if kind not in DTYPES:
                raise InputError(f"constants of type {kind} are not read here (float32, float16 and int32 are)")
            constants[number] = values.view(DTYPES[kind]).reshape(shape)
    # files older than the wide field leave it absent and use the byte before it
    codes = [max(code.number(0, "b"), code.number(3, "i")) for code in root.tables(1)]
    operations = tuple(_operation(operator, codes) for operator in graph.tables(3))
    used = [i for step in operations for i in (*step.inputs, step.output)] + [*graph.array(1), *graph.array(2)]
    if not all(-1 <= i < len(shapes) for i in used):
        raise InputError(f"an operation names a tensor beyond the {len(shapes)} that there are")
    return TfliteModel(operations, tuple(shapes), constants, tuple(graph.array(1).tolist()), tuple(graph.array(2).tolist()))


def _operation(operator: Table, codes: list[int]) -> Operation:
    code = codes[operator.number(0, "I")]
    if code not in KINDS:
        known = ", ".join(KINDS.values())
        raise InputError(f"operation number {code} is not known here (known: {known}); another model than BlazePose's?")
    kind, outputs = KINDS[code], operator.array(2).tolist()
    inputs, settings = tuple(operator.array(1).tolist()), operator.table(4)
    if len(outputs) != 1:
        raise InputError(f"operation {kind} has {len(outputs)} outputs, expected one")
    least = 2 if kind == "add" else 1
    if len(inputs) < least:
        raise InputError(f"operation {kind} has {len(inputs)} inputs, expected {least} at least")
    if settings is None or kind in ("dequantize", "sigmoid", "reshape", "pad"):
        return Operation(kind, inputs, outputs[0])

    def pair(down: int, across: int, absent: int = 1) -> tuple[int, int]:
        return settings.number(down, "i", absent), settings.number(across, "i", absent)

    def activation(field: int) -> str:
        return ACTIVATIONS[settings.number(field, "b")]

    if kind == "add":
        return Operation(kind, inputs, outputs[0], activation=activation(0))
    if kind == "resize":
        corners, half = bool(settings.number(2, "B")), bool(settings.number(3, "B"))
        return Operation(kind, inputs, outputs[0], half_pixel=half, align_corners=corners)
    same, stride = settings.number(0, "b") == 0, pair(2, 1, 0)
    if kind == "conv":
        return Operation(kind, inputs, outputs[0], same, stride, pair(5, 4), activation=activation(3))
    if kind == "depthwise_conv":
        return Operation(kind, inputs, outputs[0], same, stride, pair(6, 5), activation=activation(4))
    return Operation(kind, inputs, outputs[0], same, stride, window=pair(4, 3, 0), activation=activation(5))
