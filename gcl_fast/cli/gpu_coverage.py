"""Whether the kernels that were built run on a GPU, in words."""

from __future__ import annotations

import re
from collections.abc import Sequence

OLDEST = (7, 5)  # the first that the kernels are written for: T4, RTX 20
REBUILD = "GCL_CUDA=1 GCL_CUDA_ARCHITECTURES=native"


def coverage(architectures: Sequence[str], capability: tuple[int, int], build: str) -> tuple[bool, str]:
    """(whether they run, a sentence).

    Arguments:
        architectures: what was built, as CMake writes it: "80-real" is machine code, "90-virtual" PTX, "90" both; a letter behind
            the number ("90a", "100f") is code for that GPU, or its family, alone.
        capability: of the GPU, (major, minor).
        build: the command that builds.
    """
    name = f"sm_{capability[0]}{capability[1]}"
    if capability < OLDEST:
        return False, (
            f"{name} (V100 and older) is not supported: the kernels need sm_{OLDEST[0]}{OLDEST[1]} (T4, RTX 20) or newer, and "
            "CUDA 13 cannot compile for it; use --device cpu"
        )
    parts = [re.fullmatch(r"(\d+)(\d)([af]?)(?:-(real|virtual))?", entry) for entry in architectures]
    codes = [((int(part[1]), int(part[2])), part[3], part[4]) for part in parts if part]
    machine = [arch for arch, letter, kind in codes if kind != "virtual" and _runs(arch, letter, capability)]
    if machine:
        best = "sm_{}{}".format(*max(machine))
        return True, f"kernels built for it ({best})" if best == name else f"kernels built for it ({best} runs on {name})"
    texts = [arch for arch, letter, kind in codes if kind != "real" and not letter and arch <= capability]
    if texts:
        return True, (
            f"no machine code for {name}: the driver makes it from the PTX of compute_{'{}{}'.format(*max(texts))} at the first "
            f"use, which takes a while, and keeps it; to build it: {REBUILD} {build}"
        )
    built = ", ".join(architectures) or "none"
    return False, f"no kernels for {name} (built: {built}): operations on this GPU fail; build them: {REBUILD} {build}"


def _runs(arch: tuple[int, int], letter: str, capability: tuple[int, int]) -> bool:
    """Whether machine code for one architecture runs on a GPU of this capability: the same major number, no smaller minor one."""
    if letter == "a":
        return arch == capability
    return arch[0] == capability[0] and arch[1] <= capability[1]
