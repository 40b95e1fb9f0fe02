"""No op of a CUDA run sees a CPU tensor, no training step waits for the GPU: `device_path*_cases.py`, in a process of its own.

Tensors that pretend to be on a GPU go through torch's dispatch where there is none; beside tests that used torch otherwise in the
same process that has ended in a crash inside torch.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

CASES = [str(path) for path in sorted(Path(__file__).parent.glob("device_path*_cases.py"))]


@pytest.mark.timeout(600)
def test_the_device_path() -> None:
    command = [sys.executable, "-m", "pytest", *CASES, "-q", "-p", "no:benchmark", "-p", "no:cacheprovider", "-p", "no:xdist"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=Path(__file__).parent.parent)
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-2000:]
    assert " passed" in done.stdout and "skipped" not in done.stdout
