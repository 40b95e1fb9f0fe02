"""What must hold of the CUDA kernels' machine code, which bench/machine_code.py reads from the built module.

No kernel keeps anything in local memory: spilled registers and arrays show as stack. `SHAPES` grows with the kernels: a name that
must be there, and how often an instruction occurs in it at least, in each architecture.
"""

from __future__ import annotations

import subprocess
from collections import Counter
from dataclasses import dataclass
from functools import cache

from bench.machine_code import find_cuobjdump, parse_code, parse_resources
from gcl_fast import _native

WIDE_LOAD, WIDE_STORE, WIDE_SHARED = r"LDG\S*\.128", r"STG\S*\.128", r"LDS\S*\.128"
WIDE_COPY = r"LDGSTS\S*\.128"  # from global to shared memory, asynchronous
TENSOR = r"(?:HMMA|IMMA|DMMA|HGMMA|IGMMA|UTC\w*MMA)\b"
NATIVE_MINIMUM = r"(?:RED|REDG|ATOMG|ATOM)\S*\.MIN"  # in the memory itself; not a loop of compare and swap


@dataclass(frozen=True)
class Shape:
    """kernel: a part of its mangled name; all kernels that have it must hold `instruction` at least `least` times, in
    architectures from `since` on."""

    kernel: str
    instruction: str
    least: int
    since: int = 0


SHAPES = (
    Shape("bank_sweep_kernelIffLi16ELi2ELb1E", WIDE_LOAD, 16),  # bank and query rows, fp32
    Shape("bank_sweep_kernelIffLi16ELi2E", WIDE_SHARED, 8),
    Shape("bank_sweep_kernelIfNS_8BFloat16ELi16ELi2ELb1E", WIDE_LOAD, 8),
    Shape("bank_sweep_mma_kernelIf", TENSOR, 72, since=80),  # of 128 columns a warp; of 256 it has twice as many
    Shape("bank_sweep_mma_kernelINS_8BFloat16E", TENSOR, 160, since=80),
    Shape("bank_sweep_mma_kernelI", WIDE_COPY, 1, since=80),
    Shape("rasterize_fused_kernelI", WIDE_STORE, 1),  # results of rasterize, pictures of render
    Shape("rasterize_resolve_kernelI", WIDE_STORE, 3),  # face_id, depth, bary
    Shape("rasterize_draw_kernelI", NATIVE_MINIMUM, 1),
    Shape("rasterize_draw_double_kernelI", NATIVE_MINIMUM, 1),
    Shape("render_paint_kernelIf", WIDE_STORE, 1),
    Shape("reflect_pad_kernelINS_5LanesI", WIDE_STORE, 1),
    Shape("reflect_pad_backward_kernelINS_8BFloat16EjLi8E", WIDE_LOAD, 1),
    Shape("reflect_pad_backward_kernelINS_8BFloat16EjLi8E", WIDE_STORE, 1),
    Shape("dbscan_unite_kernelIfE", NATIVE_MINIMUM, 1),
    Shape("ranking_kernelIfE", WIDE_SHARED, 4),
)


@dataclass(frozen=True)
class Usage:
    """One kernel in one architecture, in bytes but for the registers."""

    architecture: str
    kernel: str
    registers: int
    stack: int
    local: int


def missing() -> str:
    """Why the machine code cannot be read here; empty where it can."""
    if not _native.has_cuda:
        return "gcl_fast was built without CUDA"
    if find_cuobjdump() is None:
        return "needs cuobjdump, of the triton wheel or of a CUDA toolkit"
    return ""


def dump(*options: str) -> str:
    command = [str(find_cuobjdump()), *options, _native._C.__file__]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


@cache
def usages() -> tuple[Usage, ...]:
    """Every kernel of the module."""
    return parse_usages(dump("-res-usage"))


def parse_usages(text: str) -> tuple[Usage, ...]:
    return tuple(
        Usage(architecture, kernel, found["REG"], found["STACK"], found["LOCAL"])
        for (architecture, kernel), found in parse_resources(text.splitlines()).items()
    )


def instructions(kernels: list[str]) -> dict[tuple[str, str], Counter[str]]:
    """(architecture, kernel) -> how often each instruction, with its modifiers, stands in it."""
    return parse_instructions(dump("-sass", "-fun", ",".join(kernels)))


def parse_instructions(text: str) -> dict[tuple[str, str], Counter[str]]:
    return {(kernel.arch, kernel.mangled): kernel.opcodes for kernel in parse_code(text.splitlines())}
