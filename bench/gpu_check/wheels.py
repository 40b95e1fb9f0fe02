"""Installs the wheels of a folder into another, without network: `python -m bench.gpu_check.wheels WHEELS TARGET`.

Nothing of this Python's own packages is touched. A wheel that does not fit this Python or system is named and passed over.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

PIP = (sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps", "--disable-pip-version-check", "--upgrade")


def install(wheels: Path, target: Path) -> int:
    """0 where at least one wheel was installed."""
    files = sorted(wheels.glob("*.whl"))
    if not files:
        print(f"no *.whl in {wheels}: carry the wheels of pytest, and of what else is to be measured, in that folder")
        return 1
    target.mkdir(parents=True, exist_ok=True)
    if not _pip(files, target):
        print(f"installed: {', '.join(file.name for file in files)}")
        return 0
    done = []
    for file in files:
        if said := _pip([file], target):
            print(f"passed over {file.name}: {said}")
        else:
            done.append(file.name)
    print(f"installed: {', '.join(done) or 'none'}")
    return 0 if done else 1


def _pip(files: list[Path], target: Path) -> str:
    """What pip complains of; "" where all is well."""
    ended = subprocess.run([*PIP, "--target", str(target), *map(str, files)], capture_output=True, text=True, check=False)
    if ended.returncode == 0:
        return ""
    lines = [line for line in (ended.stderr or ended.stdout).strip().splitlines() if line.strip()]
    return lines[-1] if lines else f"pip ended with {ended.returncode}"


if __name__ == "__main__":
    sys.exit(install(Path(sys.argv[1]), Path(sys.argv[2])))
