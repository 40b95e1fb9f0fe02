"""Loads the native kernels (gcl_fast._C), or keeps the reason why they are not there.

Loading never fails: `loaded` says whether the ops of torch.ops.gcl_fast exist, `require(op, device)` raises where one is
called without them, and `info()` tells what was built.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from gcl_fast.errors import NativeRuntimeError

error: str | None = None
try:
    from gcl_fast import _C  # registers torch.ops.gcl_fast.*; torch must be imported first
except ImportError as _error:
    error = str(_error)

loaded: bool = error is None
has_cuda: bool = loaded and _C.cuda()
isa: str = _C.isa() if loaded else ""  # of the CPU kernels: "baseline", "avx2" or "avx512"
BUILD = "pip install --no-build-isolation -e ."


@dataclass(frozen=True)
class NativeInfo:
    """What was built: `cuda_version` is the CUDA compiler's, `architectures` as CMake writes them ("90-real", "100").

    `isa` is the instruction set of the CPU kernels that run here: "baseline", "avx2" or "avx512".
    """

    loaded: bool
    error: str | None
    version: str
    torch_version: str
    cuda: bool
    cuda_version: str
    architectures: tuple[str, ...]
    isa: str


def info() -> NativeInfo:
    if not loaded:
        return NativeInfo(False, error, "", "", False, "", (), "")
    architectures = tuple(filter(None, _C.architectures()))
    return NativeInfo(True, None, _C.version(), _C.torch_version(), has_cuda, _C.cuda_version(), architectures, isa)


def has_bfloat16_units() -> bool:
    """Whether this processor multiplies bfloat16 in hardware."""
    probe = getattr(torch.cpu, "_is_avx512_bf16_supported", None)
    return bool(probe is not None and probe())


def built_for(device: torch.device) -> bool:
    """Whether the native kernels run on `device`."""
    return loaded and (device.type == "cpu" or (device.type == "cuda" and has_cuda))


def require(op: str, device: torch.device) -> None:
    """Raises NativeRuntimeError, saying what to do, where `op` has no native kernel for `device`."""
    if not loaded:
        raise NativeRuntimeError(f"{op}: the native kernels are not loaded ({error}); build them with: {BUILD}")
    if device.type == "cuda" and not has_cuda:
        raise NativeRuntimeError(
            f"{op}: the tensors are on {device}, but gcl_fast was built without CUDA; install nvcc and run: GCL_CUDA=1 {BUILD}"
        )
    if device.type not in ("cpu", "cuda", "meta"):
        raise ValueError(f"{op}: the tensors must be on cpu or cuda, got {device}")
