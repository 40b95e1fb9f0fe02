"""Argument checks shared by the public ops: every message names the argument, what was expected and what came."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor
from torch.autograd import forward_ad

from gcl_fast._op_types import IndexRangeError

FLOATS = (torch.float32, torch.float64)
ANY_FLOATS = (torch.float32, torch.float64, torch.bfloat16, torch.float16)
INTEGERS = (torch.int32, torch.int64)
WHOLE = (int, np.integer)
NUMBERS = (*WHOLE, float, np.floating)


def _names(dtypes: tuple[torch.dtype, ...]) -> str:
    return " or ".join(str(d).removeprefix("torch.") for d in dtypes)


class Shapes:
    """Checks tensors against shapes with named sizes: a name means the same size in every argument of one call.

    >>> shapes = Shapes("rasterize")
    >>> shapes.tensor("verts", verts, ("B", "V", 3), FLOATS)
    >>> shapes.tensor("faces", faces, ("F", 3), INTEGERS, device_of=("verts", verts))
    >>> shapes["V"]
    """

    def __init__(self, op: str) -> None:
        self.op = op
        self.sizes: dict[str, int] = {}

    def __getitem__(self, name: str) -> int:
        return self.sizes[name]

    def _expected(self, shape: tuple[str | int, ...]) -> str:
        known = (f"{d}={self.sizes[d]}" if d in self.sizes else str(d) for d in shape)
        return "[" + ", ".join(known) + "]"

    def tensor(
        self,
        name: str,
        value: Tensor,
        shape: tuple[str | int, ...],
        dtypes: tuple[torch.dtype, ...],
        device_of: tuple[str, Tensor] | None = None,
    ) -> None:
        if not isinstance(value, Tensor):
            expected = f"a torch.Tensor of shape {self._expected(shape)}"
            raise TypeError(f"{self.op}: {name} must be {expected}, got {type(value).__name__}")
        if value.layout != torch.strided:
            layout = str(value.layout).removeprefix("torch.")
            raise TypeError(f"{self.op}: {name} must be a dense tensor, got the layout {layout}: .to_dense() makes it one")
        if value.dtype not in dtypes:
            raise TypeError(f"{self.op}: {name} must be {_names(dtypes)}, got {str(value.dtype).removeprefix('torch.')}")
        sizes = dict(self.sizes)
        fits = value.dim() == len(shape)
        for want, got in zip(shape, value.shape, strict=False):
            fits = fits and got == (sizes.setdefault(want, got) if isinstance(want, str) else want)
        if not fits:
            raise ValueError(f"{self.op}: {name} must have shape {self._expected(shape)}, got {list(value.shape)}")
        self.sizes = sizes
        if device_of is not None and value.device != device_of[1].device:
            raise ValueError(f"{self.op}: {name} must be on {device_of[1].device} as {device_of[0]} is, got {value.device}")

    def image_size(self, value: tuple[int, int]) -> tuple[int, int]:
        fits = isinstance(value, (tuple, list)) and len(value) == 2 and all(isinstance(n, WHOLE) and n >= 0 for n in value)
        if not fits:
            raise ValueError(f"{self.op}: image_size must be (height, width), two integers of at least 0, got {value!r}")
        return int(value[0]), int(value[1])

    def number(self, name: str, value: float, low: float, high: float = float("inf"), *, open_low: bool = False) -> float:
        if isinstance(value, bool) or not isinstance(value, NUMBERS):
            raise TypeError(f"{self.op}: {name} must be a number, got {type(value).__name__}")
        if not (low < value if open_low else low <= value) or not value <= high:
            bound = f"above {low}" if open_low else f"at least {low}"
            if high != float("inf"):
                bound += f" and at most {high}"
            raise ValueError(f"{self.op}: {name} must be {bound}, got {value}")
        return value


def integer(op: str, name: str, value: int, low: int) -> int:
    if isinstance(value, bool) or not isinstance(value, WHOLE):
        raise TypeError(f"{op}: {name} must be an integer, got {type(value).__name__}")
    if value < low:
        raise ValueError(f"{op}: {name} must be at least {low}, got {value}")
    return int(value)


def flag(op: str, name: str, value: bool) -> bool:
    if not isinstance(value, (bool, np.bool_)):
        raise TypeError(f"{op}: {name} must be a bool, got {type(value).__name__}")
    return bool(value)


def no_tangent(op: str, **tensors: Tensor | None) -> None:
    """NotImplementedError where forward-mode differentiation asks for a derivative: of an op with a backward alone torch leaves
    tangents out, and it would come out as zero."""
    if torch.compiler.is_compiling():
        return
    for name, tensor in tensors.items():
        if tensor is not None and forward_ad.unpack_dual(tensor).tangent is not None:  # type: ignore[no-untyped-call]
            raise NotImplementedError(f"{op}: no forward-mode derivative (jvp, jacfwd) by {name}; there is a backward")


def check_index(op: str, name: str, index: Tensor, size: int, what: str, *, wait: bool = False) -> None:
    """Raises IndexRangeError where a number is not in [0, size).

    On CUDA, in compiled code and under functorch the numbers cannot be read, or only by stalling: nothing is checked then, unless
    `wait` says that the caller waits for the device anyway.

    Arguments:
        index: integers of any shape.
        what: the range in words, as it follows "must be".
    """
    traced = torch.compiler.is_compiling() or torch._C._are_functorch_transforms_active() or type(index) is not Tensor
    readable = wait or (not traced and index.device.type == "cpu")
    if not readable or index.numel() == 0:
        return
    low, high = (int(n) for n in torch.aminmax(index))
    if low >= 0 and high < size:
        return
    place = ((index < 0) | (index >= size)).nonzero()[0].tolist()
    raise IndexRangeError(f"{op}: {name} must be {what}, got {int(index[tuple(place)])} at {place}")


def check_rows(op: str, name: str, rows: Tensor, size: int) -> None:
    """`check_index` of rows of a memory bank."""
    check_index(op, name, rows, size, f"rows of the bank, 0 to {size - 1}" if size else "rows of the bank, which has none")


def check_faces(op: str, faces: Tensor, num_verts: int) -> None:
    """`check_index` of the vertices that faces [F, 3] name."""
    check_index(op, "faces", faces, num_verts, f"in [0, V={num_verts})")


def check_memory(op: str, name: str, matrix: Tensor) -> None:
    """ValueError where two numbers of a matrix lie at one place, which so many steps down and so many across lead to."""
    (rows, width), (down, across) = matrix.shape, matrix.stride()
    if 0 in (down, across):
        shared = (down == 0 and rows > 1) or (across == 0 and width > 1)
    else:
        meet = math.lcm(down, across)
        shared = meet // down < rows and meet // across < width
    if shared:
        got = "got an expanded tensor or rows that overlap: pass its clone()"
        raise ValueError(f"{op}: {name} must have memory for each number, {got}")


def working_dtype(*tensors: Tensor) -> torch.dtype:
    """float64 if anything is, else float32: half precision is for storage only."""
    return torch.float64 if any(tensor.dtype == torch.float64 for tensor in tensors) else torch.float32
