"""Pickles of body models and body estimators, read without running anything in them.

A pickle names the functions that rebuild its objects. Here every name is answered by a stand-in of our own that only keeps what
it is given; arrays are built afterwards from the bytes. NumPy arrays and scalars, SciPy's csc and csr matrices (read as dense
arrays), tensors, plain containers, and chumpy's arrays are known; any other name refuses the file.
"""

from __future__ import annotations

import io
import math
import os
import pickle
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import numpy as np

from gcl_fast.errors import InputError, MissingFileError

JOBLIB = (
    "file {path} was written by joblib (as PHALP, VIBE and their like do), which only joblib can read: save it again where it "
    "came from, with python -c \"import joblib, pickle; pickle.dump(joblib.load('{path}'), open('{path}.pkl', 'wb'))\""
)
MOST_ITEMS = 20_000_000
MOST_ELEMENTS = 1 << 27
KINDS = "biufcSU"  # numbers, booleans and text: an object array could hold anything


class _Kept:
    """Keeps constructor arguments and state, does nothing; `value` is what it stands for."""

    args: tuple[Any, ...]
    state: Any

    def __new__(cls, *args: Any, **_: Any) -> _Kept:
        self = object.__new__(cls)
        self.args, self.state = args, None
        return self

    def __init__(self, *_: Any, **__: Any) -> None: ...

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def value(self) -> Any:
        raise ValueError("an object without a value")


class _Dtype(_Kept):
    def value(self) -> np.dtype:
        dtype = np.dtype(_text(self.args[0]))
        order = _text(self.state[1]) if self.state else "="
        if dtype.kind not in KINDS:
            raise ValueError(f"an array of {dtype}")
        if order == "<":
            return dtype.newbyteorder("<")
        return dtype.newbyteorder(">") if order == ">" else dtype


class _Array(_Kept):
    """numpy.ndarray: the state is (version, shape, dtype, Fortran order, bytes)."""

    def value(self) -> Any:
        if self.state is None:
            raise ValueError("an array without content")
        _, shape, dtype, fortran, data = self.state
        if isinstance(data, list):  # an array of objects: the objects, which are as plain as the rest
            items = _plain(data)
            return items if _plain(shape) else items[0]
        return _from_bytes(data, dtype, shape, "F" if fortran else "C")


class _Buffer(_Kept):
    """numpy's _frombuffer(bytes, dtype, shape, order) of pickle protocol 5."""

    def value(self) -> np.ndarray:
        data, dtype, shape, order = self.args
        return _from_bytes(data, dtype, shape, _text(order))


class _Scalar(_Kept):
    def value(self) -> Any:
        return _from_bytes(self.args[1], self.args[0], (1,), "C")[0]


class _Sparse(_Kept):
    by_column: bool

    def value(self) -> np.ndarray:
        state = self.state
        rows, columns = (int(n) for n in state.get("_shape", state.get("shape")))
        data, indices, indptr = (np.asarray(_plain(state[k])) for k in ("data", "indices", "indptr"))
        outer = columns if self.by_column else rows
        if len(indptr) != outer + 1 or len(data) != len(indices) or indptr[-1] != len(data):
            raise ValueError("a sparse matrix whose parts disagree")
        if rows * columns > MOST_ELEMENTS:
            raise ValueError(f"a sparse matrix of {rows} x {columns}, which is read as a dense one")
        dense = np.zeros((rows, columns), data.dtype)
        major = np.repeat(np.arange(outer), np.diff(indptr))
        np.add.at(dense, (indices, major) if self.by_column else (major, indices), data)
        return dense


class _Csc(_Sparse):
    by_column = True


class _Csr(_Sparse):
    by_column = False


class Chumpy(_Kept):
    """An object of chumpy, of which only the array it carries is used; None where it is an expression to evaluate."""

    def value(self) -> np.ndarray | None:
        state = self.state if isinstance(self.state, dict) else {}
        if "x" in state:
            x = _plain(state["x"])
            return None if x is None else np.asarray(x)
        if "idxs" in state and "a" in state:  # a choice of entries of another array
            whole, chosen = _plain(state["a"]), np.asarray(_plain(state["idxs"]))
            shape = state.get("preferred_shape")
            picked = None if whole is None else np.asarray(whole).ravel()[chosen.ravel()]
            return picked if picked is None or shape is None else picked.reshape(tuple(int(n) for n in _plain(shape)))
        return None


class _Tensor(_Kept):
    """torch._utils._rebuild_tensor_v2(storage, offset, size, stride, ...) over a storage read with weights_only."""

    def value(self) -> np.ndarray:
        flat = _plain(self.args[0])
        offset, size, stride = self.args[1:4]
        if not isinstance(flat, np.ndarray):
            raise ValueError("a tensor without storage")
        last = offset + sum((n - 1) * s for n, s in zip(size, stride, strict=True))
        if min((offset, *size, *stride)) < 0 or (0 not in size and last >= len(flat)):
            raise ValueError("a tensor beyond its storage")
        if math.prod(size) > max(MOST_ELEMENTS, len(flat)):
            raise ValueError("a tensor that is larger than its storage")
        steps = tuple(s * flat.itemsize for s in stride)
        return np.lib.stride_tricks.as_strided(flat[offset:], size, steps).copy()


class _Storage(_Kept):
    def value(self) -> np.ndarray:
        import torch

        storage = torch.load(io.BytesIO(_plain(self.args[0])), map_location="cpu", weights_only=True)
        return torch.tensor([], dtype=storage.dtype).set_(storage).numpy()


class _Encoded(_Kept):
    """_codecs.encode(text, 'latin1'): how protocol 2 writes bytes."""

    def value(self) -> bytes:
        return str(self.args[0]).encode("latin1")


class _NoBytes(_Kept):
    """bytes(), how protocol 2 writes no bytes at all."""

    def value(self) -> bytes:
        return b""


def _reconstruct(kind: Any, *_: Any) -> Any:
    """numpy's _reconstruct(ndarray, ...) and copyreg's _reconstructor(class, object, None) of a known class."""
    if not (isinstance(kind, type) and issubclass(kind, _Kept)):
        raise pickle.UnpicklingError("an object of an unknown class")
    return kind()


KNOWN: dict[tuple[str, str], Any] = {
    **{(f"numpy.{core}.multiarray", "_reconstruct"): _reconstruct for core in ("core", "_core")},
    **{(f"numpy.{core}.multiarray", "scalar"): _Scalar for core in ("core", "_core")},
    **{(f"numpy.{core}.numeric", "_frombuffer"): _Buffer for core in ("core", "_core")},
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _Dtype,
    **{(module, "csc_matrix"): _Csc for module in ("scipy.sparse.csc", "scipy.sparse._csc")},
    **{(module, "csr_matrix"): _Csr for module in ("scipy.sparse.csr", "scipy.sparse._csr")},
    ("collections", "OrderedDict"): OrderedDict,
    **{(module, "_reconstructor"): _reconstruct for module in ("copyreg", "copy_reg")},
    **{(module, "object"): object for module in ("builtins", "__builtin__")},
    ("_codecs", "encode"): _Encoded,
    **{(module, "bytes"): _NoBytes for module in ("builtins", "__builtin__")},
    ("torch._utils", "_rebuild_tensor_v2"): _Tensor,
    ("torch.storage", "_load_from_bytes"): _Storage,
}


class _Reader(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if module.partition(".")[0] == "chumpy":
            return Chumpy
        if (module, name) in KNOWN:
            return KNOWN[module, name]
        raise pickle.UnpicklingError(f"{module}.{name}")

    def persistent_load(self, pid: Any) -> Any:
        raise pickle.UnpicklingError("an object kept outside the file")


def read_plain_pickle(path: str | os.PathLike[str]) -> Any:
    """Content of a pickle of arrays and plain containers (Python 2 or 3); nothing in it is executed.

    Text of Python 2 is read as Latin-1. Objects of chumpy come out as the array they carry, or None.

    Errors: MissingFileError, or InputError naming the file and the first thing in it that is neither array nor plain container.
    """
    path = Path(path)
    if not path.is_file():
        raise MissingFileError(f"file {path} does not exist")
    try:
        with path.open("rb") as file:
            return load_plain(file)
    except pickle.UnpicklingError as error:
        if str(error).startswith("joblib") or _compressed(path):
            raise InputError(JOBLIB.format(path=path)) from error
        raise InputError(
            f"file {path} was refused: it holds {error}, and objects other than arrays and plain containers can run "
            "code when read"
        ) from error
    except RecursionError as error:
        raise InputError(f"file {path} was refused: it holds itself, or is nested too deeply") from error
    except Exception as error:  # a damaged pickle can raise nearly anything
        if _compressed(path):
            raise InputError(JOBLIB.format(path=path)) from error
        raise InputError(f"file {path} is truncated or no pickle of arrays: {type(error).__name__}: {error}") from error


def _compressed(path: Path) -> bool:
    """Whether a file begins as joblib's compressed ones do (zlib, gzip, bz2, xz, lzma, lz4)."""
    with path.open("rb") as file:
        begin = file.read(6)
    return begin.startswith(
        (b"\x78\x01", b"\x78\x5e", b"\x78\x9c", b"\x78\xda", b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"\x5d\0\0", b"\x04\x22M")
    )


def load_plain(file: IO[bytes]) -> Any:
    """The next pickle of an open file; raises whatever a bad one raises."""
    content = _plain(_Reader(file, encoding="latin1").load())
    return plain_containers(content, lambda item: item)  # counts what arrays of objects hold


def _plain(value: Any) -> Any:
    """Stand-ins replaced by what they stand for, in all containers."""
    return plain_containers(value, _leaf)


def _leaf(value: Any) -> Any:
    if isinstance(value, _Kept):
        return value.value()
    if isinstance(value, type) or callable(value):
        raise ValueError("a function or class")
    return value


def plain_containers(value: Any, leaf: Callable[[Any], Any]) -> Any:
    """Nested dicts, lists and tuples with `leaf` of what they hold; what is shared inside is made once and stays shared.

    Errors: ValueError where it would be larger than MOST_ITEMS written out, as a few lists that hold each other many times are.
    """
    made: dict[int, tuple[Any, int, Any]] = {}  # id of an original -> result, items in it, and the original, to keep its id

    def visit(item: Any) -> tuple[Any, int]:
        if id(item) in made:
            return made[id(item)][:2]
        size = 1
        if isinstance(item, dict):
            pairs = [(visit(k), visit(v)) for k, v in item.items()]
            result: Any = {k: v for (k, _), (v, _) in pairs}
            size += sum(a + b for (_, a), (_, b) in pairs)
        elif isinstance(item, (list, tuple)):
            parts = [visit(v) for v in item]
            result = type(item)(part for part, _ in parts)
            size += sum(n for _, n in parts)
        else:
            result = leaf(item)
        if size > MOST_ITEMS:
            raise ValueError(f"containers that hold each other so often that they are more than {MOST_ITEMS:,} items")
        if not isinstance(item, (int, float, str, bytes, type(None))):
            made[id(item)] = result, size, item
        return result, size

    return visit(value)[0]


def _text(value: Any) -> str:
    return value.decode("latin1") if isinstance(value, bytes) else str(value)


def _from_bytes(data: Any, dtype: Any, shape: Any, order: str) -> np.ndarray:
    if not isinstance(dtype, _Dtype):
        raise ValueError("an array without a type")
    data = _plain(data)
    data = data.encode("latin1") if isinstance(data, str) else bytes(data)
    sizes = tuple(int(n) for n in _plain(shape))
    return np.frombuffer(data, dtype.value()).reshape(sizes, order="F" if order == "F" else "C").copy()
