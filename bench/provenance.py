"""Where a result comes from: commit, command and processor, told alike by every file under bench/results/."""

from __future__ import annotations

import os
import subprocess
import sys
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


@cache
def commit() -> str:
    """The commit as git describes it, "-dirty" where a file but a result is changed; without git GCL_COMMIT."""
    try:
        described = _git("describe", "--always", "--tags")
        changed = _git("status", "--porcelain", "--untracked-files=no", "--", ".", ":!bench/results")
    except OSError:
        described = changed = ""
    return f"{described}{'-dirty' if changed else ''}" if described else os.environ.get("GCL_COMMIT", "unknown")


def _git(*arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=False).stdout.strip()


def command() -> str:
    """This command without its note and without the names of this machine's folders."""
    given = sys.argv[1:]
    words = [word for word, before in zip(given, ["", *given], strict=False) if "--note" not in (word, before)]
    words = ["FOLDER" if word.startswith("/") else word for word in words]
    return " ".join([f"python bench/{Path(sys.argv[0]).name}", *words])


def device_name(device: object = "cpu") -> str:
    """The GPU (a torch device, its name, or "auto"), or the processor, which kernels it runs and the cores that this process may
    use."""
    import torch  # the GPU's check asks for the commit before torch is known to be there

    from gcl_fast import _native
    from gcl_fast.runs.device import choose_device
    from gcl_fast.runs.resolved import processor

    chosen = choose_device(str(device))
    if chosen.type == "cuda":
        return torch.cuda.get_device_name(chosen)
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    bfloat16 = " with bfloat16" if _native.has_bfloat16_units() else ""
    return f"{processor()} ({_native.isa or 'no kernels'}{bfloat16}), {usable} cores"
