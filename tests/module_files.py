"""Modules that are no part of a package: from a file, or from `bench/` as a script there finds its neighbours."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parent.parent


def module_at(path: str, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The file at `path` of the repository, run anew; known by its name until the test ends."""
    spec = importlib.util.spec_from_file_location(f"tested_{Path(path).stem}", ROOT / path)
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, module.__name__, module)
    spec.loader.exec_module(module)
    return module


def bench_module(name: str, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(ROOT / "bench"))
    return importlib.import_module(name)
