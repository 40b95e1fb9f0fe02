"""Small TensorFlow Lite files for tests: FlatBuffers written back to front, as the format allows."""

from __future__ import annotations

import struct
from collections.abc import Sequence

import numpy as np

Field = tuple[str, object]  # ("i", 3): a number; ("table", {...}), ("tables", [...]), ("array", ndarray)
CODES = {"add": 0, "conv": 3, "depthwise": 4, "dequantize": 6, "sigmoid": 14, "max_pool": 17}
CODES |= {"reshape": 22, "resize": 23, "pad": 34}
TYPES = {"float32": 0, "float16": 1, "int32": 2}


class Graph:
    """Tensors and operations in order; `write` gives the file's bytes."""

    def __init__(self) -> None:
        self.tensors: list[tuple[Sequence[int], int, np.ndarray | None]] = []
        self.operations: list[tuple[str, list[int], int, dict[int, Field]]] = []

    def tensor(self, shape: Sequence[int], kind: str = "float32") -> int:
        self.tensors.append((shape, TYPES[kind], None))
        return len(self.tensors) - 1

    def constant(self, array: np.ndarray) -> int:
        self.tensors.append((array.shape, TYPES[str(array.dtype)], array))
        return len(self.tensors) - 1

    def add(self, kind: str, inputs: list[int], shape: Sequence[int], options: dict[int, Field] | None = None) -> int:
        out = self.tensor(shape)
        self.operations.append((kind, inputs, out, options or {}))
        return out

    def write(self, inputs: list[int], outputs: list[int]) -> bytes:
        buffers: list[dict[int, Field]] = [{}]
        tensors: list[dict[int, Field]] = []
        for shape, kind, array in self.tensors:
            buffer = 0
            if array is not None:
                buffers.append({0: ("array", np.frombuffer(array.tobytes(), np.uint8))})
                buffer = len(buffers) - 1
            tensors.append({0: ("array", np.array(shape, np.int32)), 1: ("b", kind), 2: ("I", buffer)})
        kinds = sorted({kind for kind, *_ in self.operations})
        operations: list[dict[int, Field]] = [
            {
                0: ("I", kinds.index(kind)),
                1: ("array", np.array(given, np.int32)),
                2: ("array", np.array([out], np.int32)),
                **({4: ("table", options)} if options else {}),
            }
            for kind, given, out, options in self.operations
        ]
        graph: dict[int, Field] = {
            0: ("tables", tensors),
            1: ("array", np.array(inputs, np.int32)),
            2: ("array", np.array(outputs, np.int32)),
            3: ("tables", operations),
        }
        codes: list[dict[int, Field]] = [{0: ("b", CODES[kind]), 3: ("i", CODES[kind])} for kind in kinds]
        root: dict[int, Field] = {0: ("I", 3), 1: ("tables", codes), 2: ("tables", [graph]), 4: ("tables", buffers)}
        data = bytearray(b"\0\0\0\0TFL3")
        struct.pack_into("<I", data, 0, _table(data, root))
        return bytes(data)


def _table(data: bytearray, fields: dict[int, Field]) -> int:
    """Appends a table and gives its place; what it points to comes after it."""
    while len(data) % 4:
        data.append(0)
    count = max(fields, default=-1) + 1
    layout = {number: 4 + 8 * i for i, number in enumerate(fields)}
    size = 4 + 8 * len(fields)
    vtable = len(data)
    data += struct.pack("<HH", 4 + 2 * count, size)
    for number in range(count):
        data += struct.pack("<H", layout.get(number, 0))
    while len(data) % 4:
        data.append(0)
    at = len(data)
    data += struct.pack("<i", at - vtable) + bytes(size - 4)
    for number, (kind, value) in fields.items():
        place = at + layout[number]
        if kind in ("b", "B", "i", "I"):
            struct.pack_into("<" + kind, data, place, value)
        elif kind == "table":
            target = _table(data, value)  # type: ignore[arg-type]  # the kind says what the value is
            struct.pack_into("<I", data, place, target - place)
        elif kind == "array":
            target = _vector(data, np.asarray(value))
            struct.pack_into("<I", data, place, target - place)
        else:
            assert isinstance(value, list)
            target = _vector(data, np.zeros(len(value), np.uint32))
            struct.pack_into("<I", data, place, target - place)
            for i, inner in enumerate(value):
                slot = target + 4 + 4 * i
                struct.pack_into("<I", data, slot, _table(data, inner) - slot)
    return at


def _vector(data: bytearray, values: np.ndarray) -> int:
    while len(data) % 4:
        data.append(0)
    at = len(data)
    data += struct.pack("<I", len(values)) + values.tobytes()
    return at
