"""Copies the checkout with what was built in it: `python -m bench.gpu_check.checkout ROOT SITE TARGET`.

The whole suite starts programs of its own in the checkout, which shall find the module that is tested. The user's own checkout is
not written to: it may hold a module of another build.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

BUILT = "_C*.so"
OTHERS = ("build", "dist", "runs", "site", "shared")  # where there is no git to say what belongs to the project
HIDDEN = (".ci", ".clang-format", ".dockerignore", ".github", ".gitignore", ".pre-commit-config.yaml")


def copy(root: Path, site: Path, target: Path) -> int:
    """How many files of root were copied to target; then the built module of site is put where Python finds it."""
    shutil.rmtree(target, ignore_errors=True)
    names = _tracked(root) or _all(root)
    for name in names:
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(root / name, target / name)
    for module in (site / "gcl_fast").glob(BUILT):
        shutil.copy2(module, target / "gcl_fast" / module.name)
    return len(names)


def _tracked(root: Path) -> list[str]:
    """What git knows or would add; nothing where there is no git, or root is not a repository's root."""
    command = ["git", "-C", str(root), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    try:
        said = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError:
        return []
    names = said.stdout.split("\0") if said.returncode == 0 and (root / ".git").exists() else []
    return [name for name in names if name and (root / name).is_file()]


def _all(root: Path) -> list[str]:
    found = []
    for top in sorted(root.iterdir()):
        if top.name in OTHERS or (top.name.startswith(".") and top.name not in HIDDEN):
            continue
        paths = [top] if top.is_file() else sorted(path for path in top.rglob("*") if path.is_file())
        found += [str(path.relative_to(root)) for path in paths if "__pycache__" not in path.parts and not path.match(BUILT)]
    return found


if __name__ == "__main__":
    print(f"{copy(*map(Path, sys.argv[1:]))} files")
