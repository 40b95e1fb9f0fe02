"""Products in full precision, whatever the program around asks of its own, and long ones in pieces."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from typing import Any, Protocol

import torch
from torch import Tensor

COLUMNS = 1024  # of a product at a time on the CPU


def without_autocast(device: torch.device) -> contextlib.AbstractContextManager[object]:
    """Inside, no autocast; torch knows none of the device meta, and refuses to turn it off there."""
    return contextlib.nullcontext() if device.type == "meta" else torch.autocast(device.type, enabled=False)


class _Backend(Protocol):
    fp32_precision: str


def exact_product(left: Tensor, right: Tensor) -> Tensor:
    """left @ right^T [n, m] of rows [n, D] and [m, D], as `exact_products` has it, without a gradient.

    On the CPU some columns at a time: at 527 x 15,913 x 2048 that took 0.6 of the whole product's time.
    """
    with torch.no_grad(), exact_products(left.device):
        if left.device.type != "cpu" or len(right) <= COLUMNS:
            return left @ right.T
        out = left.new_empty(len(left), len(right))
        for first in range(0, len(right), COLUMNS):
            part = slice(first, first + COLUMNS)
            torch.mm(left, right[part].T, out=out[:, part])
        return out


@contextlib.contextmanager
def exact_products(device: torch.device) -> Iterator[None]:
    """Inside, float32 products are float32's: no autocast, no TF32 or bfloat16 in their place. Nor are those of halves summed in
    half precision.

    TensorFloat-32 keeps 10 bits of each factor, which swaps neighbours and ranks. A program may have allowed it for its networks
    by `torch.set_float32_matmul_precision`, `torch.backends.cuda.matmul.allow_tf32` or `fp32_precision`, and sums of halves by
    `torch.backends.cuda.matmul.allow_fp16_accumulation`; afterwards all are as before. The settings are the process's: other
    threads that multiply meanwhile are exact, too.
    """
    with without_autocast(device), _settings():
        yield


_lock = threading.Lock()
_inside = 0  # threads, and contexts of one within another
_restore = contextlib.ExitStack()  # what the last of them puts back


@contextlib.contextmanager
def _settings() -> Iterator[None]:
    global _inside
    if torch.compiler.is_compiling():
        yield
        return
    with _lock:
        if _inside == 0:
            _restore.enter_context(_float32())
            _restore.enter_context(_wide_sums())
        _inside += 1
    try:
        yield
    finally:
        with _lock:
            _inside -= 1
            if _inside == 0:
                _restore.close()


@contextlib.contextmanager
def _wide_sums() -> Iterator[None]:
    products: Any = torch.backends.cuda.matmul
    if not products.allow_fp16_accumulation:
        yield
        return
    products.allow_fp16_accumulation = False  # under it torch refuses products of halves with float32 results
    try:
        yield
    finally:
        products.allow_fp16_accumulation = True


@contextlib.contextmanager
def _float32() -> Iterator[None]:
    try:
        before = torch.get_float32_matmul_precision()
    except RuntimeError:  # set through fp32_precision: torch refuses to answer in the old words
        before = ""
    if before == "highest":
        yield
        return
    mkldnn: Any = torch.backends.mkldnn  # its stubs lack matmul
    cuda: Any = torch.backends.cuda
    backends = ((cuda.matmul, torch.backends.cudnn), (mkldnn.matmul, mkldnn))  # and what they follow
    kept = [_own(*backend) for backend in backends]
    torch.set_float32_matmul_precision("highest")
    try:
        yield
    finally:
        if before:
            torch.set_float32_matmul_precision(before)
        for (backend, _), precision in zip(backends, kept, strict=True):
            backend.fp32_precision = precision


def _own(products: _Backend, above: _Backend) -> str:
    """The precision that products have been given, "none" where they follow what stands above them: torch tells what results."""
    return "none" if products.fp32_precision == above.fp32_precision else products.fp32_precision
