"""What native ops give when the processor is taken for a lesser one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ALL_SETS = ("baseline", "avx2", "avx512")  # one that is not here falls back to the best that is


def said_with(isa: str, code: str) -> bytes:
    """What Python code prints in a process of its own that uses no more than the instruction set."""
    path = os.pathsep.join([str(Path(__file__).resolve().parent.parent), *sys.path])
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, env=os.environ | {"GCL_ISA": isa, "PYTHONPATH": path}, check=False
    )
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout
