"""A fingerprint of the code that decides what the demo's training gives, so that a table of its scores cannot outlive it.

    python bench/training_sources.py                       # print it
    python bench/training_sources.py --as-before REASON    # the code changed, its training did not: say so in demo_seeds.json

Comments and docstrings do not count.
"""

from __future__ import annotations

import argparse
import ast
import hashlib
import json
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
RESULT = ROOT / "bench" / "results" / "demo_seeds.json"
SOURCES = (
    "gcl_fast/stages",
    "gcl_fast/guides",
    "gcl_fast/models",
    "gcl_fast/synthetic",
    "gcl_fast/memory.py",
    "gcl_fast/pseudo_labels.py",
    "gcl_fast/data/augment.py",
    "gcl_fast/data/plans.py",
    "configs/demo.yaml",
)


def code_alone(text: str) -> str:
    """Python source without comments, docstrings and empty lines; the same under every version of Python."""
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    words: set[int] = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, documented) and ast.get_docstring(node, clean=False) is not None:
            words.update(range(node.body[0].lineno, (node.body[0].end_lineno or 0) + 1))
    lines = text.splitlines()
    return settings_alone("\n".join(line for number, line in enumerate(lines, 1) if number not in words))


def settings_alone(text: str) -> str:
    """Lines without comments and empty lines."""
    lines = (line.split(" #")[0].rstrip() for line in text.splitlines())
    return "\n".join(line for line in lines if line and not line.lstrip().startswith("#"))


def fingerprint() -> str:
    found = hashlib.sha256()
    for source in SOURCES:
        path = ROOT / source
        for file in sorted(path.rglob("*.py")) if path.is_dir() else [path]:
            text = file.read_text(encoding="utf-8")
            found.update(file.relative_to(ROOT).as_posix().encode())
            found.update((code_alone(text) if file.suffix == ".py" else settings_alone(text)).encode())
    return found.hexdigest()[:16]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--as-before", metavar="REASON", help="how it is known that this code trains as the measured one")
    reason, now = parser.parse_args().as_before, fingerprint()
    if reason:
        result = json.loads(RESULT.read_text(encoding="utf-8"))
        result.setdefault("trains_as_before", {})[now] = reason
        RESULT.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    print(now)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
