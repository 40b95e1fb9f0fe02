"""What doctor says of a GPU, and which architectures are built."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
import setuptools
import torch

from gcl_fast.cli.gpu_coverage import coverage
from gcl_fast.stages.amp import has_bfloat16
from tests.module_files import module_at

DEFAULT = ("75-real", "80-real", "90", "120")


@pytest.mark.parametrize(
    ("built", "capability", "runs", "words"),
    [
        (DEFAULT, (7, 5), True, "built for it (sm_75)"),
        (DEFAULT, (8, 6), True, "sm_80 runs on sm_86"),
        (DEFAULT, (8, 9), True, "sm_80 runs on sm_89"),
        (DEFAULT, (9, 0), True, "built for it (sm_90)"),
        (DEFAULT, (10, 0), True, "PTX of compute_90"),
        (DEFAULT, (12, 1), True, "sm_120 runs on sm_121"),
        (DEFAULT, (13, 0), True, "PTX of compute_120"),
        (DEFAULT, (7, 0), False, "V100 and older"),
        (("90-real",), (8, 0), False, "no kernels for sm_80 (built: 90-real)"),
        (("90-real",), (10, 0), False, "GCL_CUDA_ARCHITECTURES=native make"),
        (("86-real",), (8, 0), False, "no kernels"),
        (("90a-real",), (9, 0), True, "built for it"),
        (("100f-real",), (10, 3), True, "sm_100 runs on sm_103"),
        (("100a-real",), (10, 3), False, "no kernels"),
        ((), (8, 0), False, "built: none"),
    ],
)
def test_coverage_in_words(built, capability, runs, words):
    found, text = coverage(built, capability, "make build")
    assert found is runs
    assert words in text


@pytest.mark.parametrize(("capability", "has"), [((7, 5), False), ((8, 0), True), ((8, 9), True), ((12, 0), True)])
def test_bfloat16_is_taken_only_where_the_hardware_has_it(monkeypatch, capability, has):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda *a: True)  # by emulation
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert has_bfloat16(torch.device("cuda", 0)) is has


@pytest.fixture
def build(monkeypatch) -> ModuleType:
    """setup.py, without building."""
    monkeypatch.setattr(setuptools, "setup", lambda **options: None)
    for name in ("GCL_CUDA_ARCHITECTURES", "TORCH_CUDA_ARCH_LIST"):
        monkeypatch.delenv(name, raising=False)
    return module_at("setup.py", monkeypatch)


@pytest.mark.parametrize(
    ("known", "chosen"),
    [
        ("compute_75 compute_80 compute_86 compute_90 compute_100 compute_120", "75-real;80-real;90;100-real;120"),
        ("compute_50 compute_75 compute_80 compute_90", "75-real;80-real;90"),
        ("compute_75 compute_80", "75-real;80"),
    ],
)
def test_without_a_gpu_the_default_list_is_what_the_compiler_knows(build, monkeypatch, known, chosen):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(build.subprocess, "run", lambda *a, **k: SimpleNamespace(stdout=known))
    assert build.architectures(Path("nvcc")) == chosen


@pytest.mark.parametrize(
    ("asked", "gpu", "chosen"),
    [
        ("", (9, 0), "90-real"),
        ("all", (9, 0), "75-real;80-real;90"),
        ("", (7, 0), "75-real;80-real;90"),  # a GPU that the compiler does not know
        ("80", (9, 0), "80"),
    ],
)
def test_where_a_gpu_is_the_default_is_that_one(build, monkeypatch, asked, gpu, chosen):
    monkeypatch.setenv("GCL_CUDA_ARCHITECTURES", asked)
    monkeypatch.setattr(build.subprocess, "run", lambda *a, **k: SimpleNamespace(stdout="compute_75 compute_80 compute_90"))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda i: gpu)
    assert build.architectures(Path("nvcc")) == chosen


def test_native_is_the_gpus_of_this_machine(build, monkeypatch):
    monkeypatch.setenv("GCL_CUDA_ARCHITECTURES", "native")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SystemExit, match="finds no CUDA GPU"):
        build.architectures(Path("nvcc"))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda i: ((9, 0), (7, 5), (9, 0))[i])
    assert build.architectures(Path("nvcc")) == "75-real;90-real"
