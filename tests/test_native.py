"""The extension module: what it says of itself, and what is said where it is missing."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import gcl_fast
from gcl_fast import _native
from tests.instruction_sets import said_with

OPTIONAL = {"torchvision", "PIL", "scipy", "sklearn", "yaml", "anny", "rich", "tyro", "matplotlib", "tensorboard", "faiss"}
OPTIONAL |= {"safetensors", "torchmetrics", "pybind11"}


def test_the_extension_is_built_from_this_version() -> None:
    info = _native.info()
    assert info.loaded and info.error is None
    assert info.version == gcl_fast.__version__
    assert info.cuda == bool(info.architectures) == bool(info.cuda_version)
    assert info.isa in ("baseline", "avx2", "avx512")


def test_a_lesser_instruction_set_can_be_asked_for() -> None:
    code = "import gcl_fast.ops; from gcl_fast import _native; print(_native.info().isa)"
    assert said_with("baseline", code).strip() == b"baseline"


def test_a_cuda_machine_has_cuda_kernels() -> None:
    if torch.cuda.is_available():
        major, minor = torch.cuda.get_device_capability()
        numbers = [int(name.split("-")[0].rstrip("af")) for name in _native.info().architectures]
        assert _native.info().cuda and min(numbers) <= 10 * major + minor


REGISTRATION = Path(__file__).resolve().parent.parent / "csrc/registration.cpp"
OPS = re.findall(r'"(\w+)\(', REGISTRATION.read_text())
CPU_ONLY = {
    "transpose_rows",  # torch's stable sort does it on CUDA
    "cross_entropy_rows_",  # torch's softmax does it on CUDA
    *("overlap_upper_rows", "mirrored_count", "mirrored_rows"),  # on CUDA each row sums its own pairs
}


@pytest.mark.parametrize("op", OPS)
def test_every_backend_built_is_registered(op: str) -> None:
    for key in ["CPU", *(["CUDA"] if _native.info().cuda and op not in CPU_ONLY else [])]:
        assert torch._C._dispatch_has_kernel_for_dispatch_key(f"gcl_fast::{op}", key)


def test_importing_the_package_needs_torch_and_numpy_only() -> None:
    code = (
        f"import sys\nOPTIONAL = {sorted(OPTIONAL)}\n"
        "class Block:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.split('.')[0] in OPTIONAL:\n"
        "            raise ImportError(name + ' is blocked')\n"
        "sys.meta_path.insert(0, Block())\n"
        "import gcl_fast, gcl_fast.ops, gcl_fast.reference\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_missing_extension_is_an_error_that_says_what_to_do() -> None:
    code = (
        "import sys\n"
        "sys.modules['gcl_fast._C'] = None\n"
        "import torch, gcl_fast.ops\n"
        "from gcl_fast import _native\n"
        "assert not _native.loaded and not _native.info().loaded\n"
        "gcl_fast.ops.rasterize(torch.zeros(1, 3, 3), torch.zeros(1, 3, dtype=torch.int32), (2, 2))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "RuntimeError: rasterize: the native kernels are not loaded" in done.stderr and "pip install" in done.stderr


def test_a_build_without_cuda_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_native, "has_cuda", False)
    _native.require("rasterize", torch.device("cpu"))
    with pytest.raises(RuntimeError, match="built without CUDA"):
        _native.require("rasterize", torch.device("cuda", 0))
    with pytest.raises(ValueError, match="must be on cpu or cuda, got mps"):
        _native.require("rasterize", torch.device("mps"))
