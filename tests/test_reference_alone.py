"""The oracle stands alone: a slip in an op, or in what the ops share, cannot be in the plain definition as well."""

from __future__ import annotations

import ast
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

from gcl_fast import _op_types, ops, reference

ALLOWED = {"gcl_fast._op_types", "gcl_fast.errors", "gcl_fast.constants"}
FILES = sorted(Path(reference.__file__).parent.rglob("*.py"))


def imported_by(path: Path) -> set[str]:
    """Modules of this package that a file imports, wherever in it; `from a import b` counts as a.b too where b is a module."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name}: a relative import"
            module = node.module or ""
            names |= {f"gcl_fast.{alias.name}" for alias in node.names} if module == "gcl_fast" else {module}
    return {name for name in names if name.split(".")[0] == "gcl_fast"}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_a_reference_file_imports_the_reference_and_the_types_alone(path: Path) -> None:
    others = {name for name in imported_by(path) - ALLOWED if name.split(".")[:2] != ["gcl_fast", "reference"]}
    assert not others, f"{path.name} imports {sorted(others)}"


def test_the_types_import_the_errors_and_the_words_for_a_missing_package_alone() -> None:
    assert imported_by(Path(_op_types.__file__)) <= {"gcl_fast.errors", "gcl_fast.packages"}


def test_importing_all_of_the_reference_loads_nothing_else_of_the_package() -> None:
    modules = [f"gcl_fast.reference.{module.name}" for module in pkgutil.walk_packages(reference.__path__)]
    assert {"gcl_fast.reference.bank", "gcl_fast.reference.step", "gcl_fast.reference.warmup"} <= set(modules)
    code = f"import sys, {', '.join(modules)}\nprint(*(name for name in sys.modules if name.split('.')[0] == 'gcl_fast'))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    assert loaded - ALLOWED == {"gcl_fast", "gcl_fast.reference", *modules}


def test_no_module_but_the_oracle_s_users_imports_it() -> None:
    """The package itself runs without its oracle."""
    package = Path(reference.__file__).parent.parent
    for path in sorted(package.rglob("*.py")):
        if path.parent.name != "reference" and path != package / "__init__.py":  # the package's face offers it, when asked
            assert not any(name.startswith("gcl_fast.reference") for name in imported_by(path)), path.name


def test_an_op_and_its_reference_give_the_same_types() -> None:
    for name in ("MeshFlow", "MeshWarp", "Neighbors", "RankMetrics", "Rasterized", "SparseDistance"):
        assert getattr(ops, name) is getattr(reference, name) is getattr(_op_types, name)
