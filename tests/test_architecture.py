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
OPS_ROOMS = ("ops", "reference", "compat")  # an op, its oracle and its drop-ins share a name


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


LAZY = {"Encoder", "load_encoder", "train"}  # names that the package's face takes from rooms high up
FACE_USERS = {"cli", "report"}  # these ask the package itself for its version and folder


@cache
def imports_of(path: Path) -> frozenset[str]:
    """Modules of the package that a file imports anywhere: at its top, in a function, for type checking, by name."""
    imported: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            if node.module and node.module.split(".")[0] == "gcl_fast":
                for alias in node.names:
                    inner = f"{node.module}.{alias.name}"
                    imported.add(inner if inner in MODULES else node.module)
                    assert node.module != "gcl_fast" or alias.name not in LAZY, f"{path}: {alias.name} by the package's face"
        elif isinstance(node, ast.Import):
            imported.update(alias.name for alias in node.names if alias.name.split(".")[0] == "gcl_fast")
        elif isinstance(node, ast.Call) and "import_module" in ast.dump(node.func):
            names = (word.value for word in node.args if isinstance(word, ast.Constant) and isinstance(word.value, str))
            imported.update(name for name in names if name.split(".")[0] == "gcl_fast")
    return frozenset(imported)


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
    for module in imports_of(path):
        other = room_of(module)
        if module == "gcl_fast":
            names = {
                alias.name
                for node in ast.walk(ast.parse(path.read_text()))
                if isinstance(node, ast.Import)
                for alias in node.names
            }
            assert "gcl_fast" not in names or room in FACE_USERS, f"{path.relative_to(ROOT)} imports the package's face"
            continue
        if other == room:
            face = ".".join(module_of(path).split(".")[:-1])
            assert module != face or path.stem in DOORS, f"{path.relative_to(ROOT)} imports the face of its own package"
            continue
        if room == ORACLE:
            assert other in ORACLE_MAY_IMPORT, f"the oracle imports {module}"
        assert level[other] < level[room], f"{path.relative_to(ROOT)} imports {module}: an arrow up from {room} to {other}"


def test_no_files_in_a_circle() -> None:
    graph = {
        name: {module for module in imports_of(path) if module in MODULES and module not in (name, "gcl_fast")}
        for name, path in MODULES.items()
        if path.stem not in DOORS or name != "gcl_fast"
    }
    done: set[str] = set()

    def walk(name: str, trail: tuple[str, ...]) -> None:
        assert name not in trail, "circle: " + " -> ".join((*trail[trail.index(name) :], name))
        if name in done:
            return
        for other in graph.get(name, ()):
            walk(other, (*trail, name))
        done.add(name)

    for name in graph:
        walk(name, ())


def test_one_file_name_one_thing() -> None:
    """Files and folders, but for an op, its oracle and its drop-ins, and commands that are named as the op or room they call."""
    parts = [path.relative_to(PACKAGE).with_suffix("").parts for path in FILES]
    parts = [part for part in parts if part[0] != "cli" or part[-1] not in floors()]
    names = Counter(part[-1] for part in parts if part[-1] not in DOORS and part[0] not in OPS_ROOMS)
    names += Counter({folder.name for folder in PACKAGE.rglob("*") if folder.is_dir() and (folder / "__init__.py").exists()})
    assert {name for name, count in names.items() if count > 1} == set()


def test_files_stay_short() -> None:
    long = {str(path.relative_to(ROOT)): n for path in FILES if (n := len(path.read_text().splitlines())) > 400}
    assert long == {}
