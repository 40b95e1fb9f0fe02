"""What the compiler made of the CUDA kernels: read from the built module with NVIDIA's tools. The tables here say what must hold.

`STACK` may only shrink: lower a number when a kernel improves, drop the line when it is at 0. `SHAPES` grows with the kernels: a
name that must be there, and how often an instruction occurs in it at least, in each architecture.
"""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
from collections import Counter
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from gcl_fast import _native

WIDE_LOAD, WIDE_STORE, WIDE_SHARED = r"LDG\S*\.128", r"STG\S*\.128", r"LDS\S*\.128"
TENSOR = r"(?:HMMA|IMMA|DMMA|HGMMA|IGMMA|UTC\w*MMA)\b"
NATIVE_MINIMUM = r"(?:RED|REDG|ATOMG|ATOM)\S*\.MIN"  # in the memory itself; not a loop of compare and swap


@dataclass(frozen=True)
class Shape:
    """kernel: a part of its mangled name; all kernels that have it must hold `instruction` at least `least` times."""

    kernel: str
    instruction: str
    least: int


SHAPES = (
    Shape("bank_sweep_kernelIffLi16ELi2E", WIDE_LOAD, 16),  # bank and query rows, fp32
    Shape("bank_sweep_kernelIffLi16ELi2E", WIDE_SHARED, 8),
    Shape("bank_sweep_kernelIfNS_8BFloat16ELi16ELi2E", WIDE_LOAD, 16),
    Shape("rasterize_fused_kernelIfiE", WIDE_STORE, 1),
    Shape("rasterize_draw_kernelILb0EfiE", NATIVE_MINIMUM, 1),
    Shape("render_draw_kernelILb0EfiE", NATIVE_MINIMUM, 1),
    Shape("dbscan_unite_kernelIfE", NATIVE_MINIMUM, 1),
    Shape("ranking_kernelIfE", WIDE_SHARED, 4),
)

# Bytes of stack (spilled registers, arrays in local memory), by architecture where they are known. Every other kernel has none.
# T: query's type, S: bank's type; the numbers are rows and groups of four that a thread holds.
STACK: dict[str, dict[str, int]] = {
    # 4,096 < D <= 8,192
    "bank_sweep_kernelIffLi4ELi8E": {"sm_80": 2032, "sm_90": 2056, "sm_100": 976},
    "bank_sweep_kernelIfNS_4HalfELi4ELi8E": {"sm_80": 1400, "sm_90": 776, "sm_100": 2176},
    "bank_sweep_kernelIfNS_8BFloat16ELi4ELi8E": {"sm_80": 1400, "sm_90": 776, "sm_100": 2176},
    "bank_sweep_kernelIddLi1ELi8E": {"sm_80": 2288, "sm_90": 2256, "sm_100": 3136},
    "bank_sweep_kernelIdfLi1ELi8E": {"sm_80": 2320, "sm_90": 2032, "sm_100": 2056},
    "bank_sweep_kernelIdNS_4HalfELi1ELi8E": {"sm_80": 2032, "sm_90": 2040, "sm_100": 2056},
    "bank_sweep_kernelIdNS_8BFloat16ELi1ELi8E": {"sm_80": 2032, "sm_90": 2040, "sm_100": 2056},
    # 2,048 < D <= 4,096
    "bank_sweep_kernelIffLi8ELi4E": {"sm_80": 248, "sm_90": 256, "sm_100": 1592},
    "bank_sweep_kernelIfNS_4HalfELi8ELi4E": {"sm_80": 232, "sm_90": 240, "sm_100": 448},
    "bank_sweep_kernelIfNS_8BFloat16ELi8ELi4E": {"sm_80": 240, "sm_90": 256, "sm_100": 448},
    "bank_sweep_kernelIddLi2ELi4E": {"sm_80": 536, "sm_90": 544, "sm_100": 544},
    "bank_sweep_kernelIdfLi2ELi4E": {"sm_80": 432, "sm_90": 448, "sm_100": 504},
    "bank_sweep_kernelIdNS_4HalfELi2ELi4E": {"sm_80": 440, "sm_90": 448, "sm_100": 464},
    "bank_sweep_kernelIdNS_8BFloat16ELi2ELi4E": {"sm_80": 440, "sm_90": 448, "sm_100": 464},
    # D <= 2,048
    "bank_sweep_kernelIffLi16ELi2E": {"sm_80": 0, "sm_90": 0, "sm_100": 120},
    "bank_sweep_kernelIfNS_4HalfELi16ELi2E": {"sm_80": 0, "sm_90": 0, "sm_100": 120},
    "bank_sweep_kernelIfNS_8BFloat16ELi16ELi2E": {"sm_80": 0, "sm_90": 0, "sm_100": 120},
    "bank_sweep_kernelIddLi4ELi2E": {"sm_80": 32, "sm_90": 8, "sm_100": 40},
    "bank_sweep_kernelIdfLi4ELi2E": {"sm_80": 32, "sm_90": 8, "sm_100": 40},
    "bank_sweep_kernelIdNS_4HalfELi4ELi2E": {"sm_80": 0, "sm_90": 8, "sm_100": 40},
    "bank_sweep_kernelIdNS_8BFloat16ELi4ELi2E": {"sm_80": 0, "sm_90": 8, "sm_100": 40},
    # the whole image, or a strip of it, in shared memory
    "rasterize_fused_kernelIfiE": {"sm_80": 0, "sm_90": 56, "sm_100": 64},
    "rasterize_fused_kernelIflE": {"sm_80": 0, "sm_90": 72, "sm_100": 80},
    "rasterize_fused_kernelIdiE": {"sm_80": 104, "sm_90": 88, "sm_100": 0},
    "rasterize_fused_kernelIdlE": {"sm_80": 104, "sm_90": 88, "sm_100": 0},
}


@dataclass(frozen=True)
class Usage:
    """One kernel in one architecture, in bytes but for the registers."""

    architecture: str
    kernel: str
    registers: int
    stack: int
    local: int

    @property
    def allowed_stack(self) -> int:
        for part, known in STACK.items():
            if part in self.kernel:
                return known.get(self.architecture, max(known.values()))
        return 0


def tool() -> str | None:
    """cuobjdump of the triton wheel or of a CUDA toolkit."""
    triton = importlib.util.find_spec("triton")
    for folder in triton.submodule_search_locations if triton and triton.submodule_search_locations else ():
        path = Path(folder) / "backends/nvidia/bin/cuobjdump"
        if path.is_file():
            return str(path)
    return shutil.which("cuobjdump")


def missing() -> str:
    """Why the machine code cannot be read here; empty where it can."""
    if not _native.has_cuda:
        return "gcl_fast was built without CUDA"
    if tool() is None:
        return "needs cuobjdump, of the triton wheel or of a CUDA toolkit"
    return ""


def dump(*options: str) -> str:
    command = [str(tool()), *options, _native._C.__file__]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


@cache
def usages() -> tuple[Usage, ...]:
    """Every kernel of the module."""
    return parse_usages(dump("-res-usage"))


def parse_usages(text: str) -> tuple[Usage, ...]:
    found, architecture, kernel = [], "", ""
    for line in text.splitlines():
        if match := re.match(r"arch = (\S+)", line):
            architecture = match[1]
        elif match := re.match(r"\s*Function (\w+):", line):
            kernel = match[1]
        elif match := re.match(r"\s*REG:(\d+) STACK:(\d+) SHARED:\d+ LOCAL:(\d+)", line):
            found.append(Usage(architecture, kernel, *map(int, match.groups())))
    return tuple(found)


def instructions(kernels: list[str]) -> dict[tuple[str, str], Counter[str]]:
    """(architecture, kernel) -> how often each instruction, with its modifiers, stands in it."""
    return parse_instructions(dump("-sass", "-fun", ",".join(kernels)))


def parse_instructions(text: str) -> dict[tuple[str, str], Counter[str]]:
    found: dict[tuple[str, str], Counter[str]] = {}
    architecture, counts = "", Counter[str]()
    for line in text.splitlines():
        if match := re.match(r"arch = (\S+)", line):
            architecture = match[1]
        elif match := re.match(r"\s*Function : (\w+)", line):
            counts = found.setdefault((architecture, match[1]), Counter())
        elif match := re.match(r"\s+/\*[0-9a-f]+\*/\s+(?:@!?U?P\w+ )?([A-Z][A-Z0-9_.]*)", line):
            counts[match[1]] += 1
    return found
