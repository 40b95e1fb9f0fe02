"""The house: each room imports only rooms below, nothing runs in a circle, one file name stands for one thing."""

from __future__ import annotations

import ast
import re
from collections import Counter
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "gcl_fast"
FILES = sorted(PACKAGE.rglob("*.py"))
DOORS = ("__init__", "__main__")  # of the whole package: they may name any room
ORACLE, ORACLE_MAY_IMPORT = "reference", ("_op_types", "errors", "constants")
SHARED_NAMES = {"ops", "reference", "compat", "cli"}  # an op, its oracle, its drop-ins and its command share a name


def floors() -> dict[str, int]:
    """Room -> floor, as docs/architecture.md lists them."""
    text = (ROOT / "docs/architecture.md").read_text()
    block = re.search(r"```floors\n(.*?)```", text, re.DOTALL)
    assert block is not None, "docs/architecture.md lists no floors"
    return {room: floor for floor, line in enumerate(block.group(1).splitlines()) for room in line.split()}


def module_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_of(path): path for path in FILES}


@cache
def imports_of(path: Path) -> frozenset[tuple[str, bool]]:
    """(module of the package, whether at import time) for each import in a file, those for type checking left out."""
    found: set[tuple[str, bool]] = set()

    def visit(node: ast.AST, top: bool) -> None:
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            return
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "gcl_fast":
            assert node.level == 0, f"{path}: relative import"
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                found.add((inner if inner in MODULES else node.module, top))
        if isinstance(node, ast.Import):
            found.update((alias.name, top) for alias in node.names if alias.name.split(".")[0] == "gcl_fast")
        inside = top and not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))
        for child in ast.iter_child_nodes(node):
            visit(child, inside)

    visit(ast.parse(path.read_text()), True)
    return frozenset(found)


def room_of(module: str) -> str:
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else "__init__"


def test_every_room_has_a_floor_and_every_floor_its_rooms() -> None:
    rooms = {room_of(module) for module in MODULES} - set(DOORS)
    assert rooms == set(floors())


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_go_down(path: Path) -> None:
    level, room = floors(), room_of(module_of(path))
    if room in DOORS:
        return
    for module, _ in imports_of(path):
        other = room_of(module)
        if other == room or (other == "__init__" and module == "gcl_fast"):
            continue
        assert room != ORACLE or other in ORACLE_MAY_IMPORT, f"the oracle imports {module}"
        assert level[other] < level[room], f"{path.relative_to(ROOT)} imports {module}: an arrow up from {room} to {other}"


def test_no_files_in_a_circle() -> None:
    graph = {
        name: {module for module, top in imports_of(path) if top and module in MODULES and module != name}
        for name, path in MODULES.items()
    }
    done: set[str] = set()

    def walk(name: str, trail: tuple[str, ...]) -> None:
        assert name not in trail, "circle: " + " -> ".join((*trail[trail.index(name) :], name))
        if name in done:
            return
        for other in graph[name]:
            # A package's face is run before its modules; that is no circle of theirs.
            if not name.startswith(other + "."):
                walk(other, (*trail, name))
        done.add(name)

    for name in graph:
        walk(name, ())


def test_one_file_name_one_thing() -> None:
    names = Counter(
        path.stem
        for path in FILES
        if path.stem not in DOORS and path.relative_to(PACKAGE).parts[0].removesuffix(".py") not in SHARED_NAMES
    )
    assert [name for name, count in names.items() if count > 1] == []


def test_files_stay_short() -> None:
    long = {str(path.relative_to(ROOT)): n for path in FILES if (n := len(path.read_text().splitlines())) > 400}
    assert long == {}
