"""What carries the package elsewhere: container file, citation, metadata."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import setuptools

import gcl_fast
from tests.module_files import module_at

ROOT = Path(__file__).resolve().parent.parent


def instructions() -> list[tuple[str, str]]:
    """(instruction, its words) of the Dockerfile, comments and line breaks taken out."""
    text = "\n".join(line for line in (ROOT / "Dockerfile").read_text().splitlines() if not line.startswith("#"))
    lines = [line.strip() for line in text.replace("\\\n", " ").splitlines() if line.strip()]
    return [(word.upper(), rest.strip()) for word, _, rest in (line.partition(" ") for line in lines)]


def test_the_container_file_copies_what_is_there_and_ends_as_a_plain_user() -> None:
    found = instructions()
    known = {"ARG", "FROM", "RUN", "ENV", "WORKDIR", "COPY", "USER", "ENTRYPOINT", "CMD"}
    assert {word for word, _ in found} <= known
    stages = [at for at, (word, _) in enumerate(found) if word == "FROM"]
    assert len(stages) == 2 and "-devel-" in found[stages[0]][1] and "-runtime-" in found[stages[1]][1]
    ignored = set((ROOT / ".dockerignore").read_text().split())
    for word, rest in found:
        if word == "COPY" and not rest.startswith("--from="):
            for source in rest.split()[:-1]:
                assert (ROOT / source).exists() and source not in ignored, source
    users = [rest for word, rest in found[stages[1] :] if word == "USER"]
    assert users and users[-1] != "root"


def test_everything_the_build_reads_is_copied() -> None:
    copied = set(" ".join(rest for word, rest in instructions() if word == "COPY").split())
    assert {"setup.py", "pyproject.toml", "CMakeLists.txt", "README.md", "LICENSE", "csrc", "gcl_fast", "configs"} <= copied


def test_citation_and_metadata_agree_with_the_package() -> None:
    yaml = pytest.importorskip("yaml", reason="CITATION.cff is YAML")
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == gcl_fast.__version__ and citation["license"] == "Apache-2.0"
    project = (ROOT / "pyproject.toml").read_text()
    assert "[project.urls]" in project and "authors = " in project


def test_the_sources_hold_tests_and_documentation_whole_and_metadata_of_no_outgoing_form(tmp_path: Path) -> None:
    """A test or page without its fixture or picture is of no use where the sources were unpacked."""
    command = [sys.executable, "setup.py", "-q", "egg_info", "--egg-base", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert "deprecated" not in done.stdout + done.stderr
    told = tmp_path / "gcl_fast.egg-info"
    metadata = (told / "PKG-INFO").read_text(encoding="utf-8")
    assert "\nLicense: Apache-2.0\n" in metadata
    # An older Pillow draws no text; an older tyro let `synth --bogus` write a data set into a folder "--bogus".
    needed = (told / "requires.txt").read_text(encoding="utf-8")
    assert needed.count("\npillow>=10.1\n") == 2 and "\ntyro>=1.0.14\n" in needed
    carried = set((told / "SOURCES.txt").read_text(encoding="utf-8").splitlines())
    names = ("README.md", "CHANGELOG.md", "CONTRIBUTING.md", "CITATION.cff", "LICENSE", "Dockerfile", ".dockerignore", "Makefile")
    wanted = {*names, "CMakeLists.txt", "pyproject.toml", "setup.py", "mkdocs.yml", ".clang-format", ".pre-commit-config.yaml"}
    for folder in ("bench", "configs", "csrc", "docs", "examples", "gcl_fast", "tests"):
        files = (file for file in (ROOT / folder).rglob("*") if file.is_file() and "__pycache__" not in file.parts)
        wanted |= {str(file.relative_to(ROOT)) for file in files if file.suffix != ".so"}
    assert sorted(wanted - carried) == []
    assert not [file for file in carried if file.endswith((".so", ".pyc"))]


def test_the_sanitized_fuzz_runs_in_a_folder_whose_name_has_spaces(tmp_path: Path) -> None:
    clone = tmp_path / "my copy"
    for file in (".venv/.made", ".venv/.built", "build/sanitized/.built", "build/sanitized/gcl_fast/_C.so", "gcl_fast/a.py"):
        (clone / file).parent.mkdir(parents=True, exist_ok=True)
        (clone / file).touch()
    python = clone / ".venv/bin/python"
    python.parent.mkdir()
    python.write_text('#!/bin/sh\necho "$PYTHONPATH" "$@"\n')
    python.chmod(0o755)
    make = ["make", "-s", "-f", str(ROOT / "Makefile"), "fuzz-sanitized", "NATIVE=", "CXX=true"]
    done = subprocess.run(make, cwd=clone, capture_output=True, text=True, check=False)
    assert done.stdout == f"{clone} -m tests.fuzz.run --seconds 60\n", done.stderr


def test_another_compiler_begins_a_new_build_tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """CMake keeps the first one: who named a newer compiler after a failure was given the old one again."""
    monkeypatch.setattr(setuptools, "setup", lambda **options: None)
    build = module_at("setup.py", monkeypatch)
    monkeypatch.setattr(build, "find_nvcc", lambda: None)
    monkeypatch.setattr(build.subprocess, "run", lambda *a, **k: None)
    monkeypatch.setattr(build.shutil, "copy2", lambda source, target: Path(target).touch())
    monkeypatch.setenv("GCL_BUILD_DIR", str(tmp_path / "trees"))
    monkeypatch.setenv("GCL_CUDA", "0")
    command = build.CMakeBuild(setuptools.Distribution())
    command.build_lib, command.inplace = str(tmp_path / "lib"), False
    command.ensure_finalized()

    def begun_anew(compiler: str) -> bool:
        monkeypatch.setenv("CXX", compiler)
        before = list((tmp_path / "trees").glob("*/object"))
        command.build_extension(setuptools.Extension("gcl_fast._C", sources=[]))
        kept = any(file.exists() for file in before)
        (next((tmp_path / "trees").iterdir()) / "object").touch()
        return not kept

    assert begun_anew("g++-9") and not begun_anew("g++-9") and begun_anew("g++-12")


def test_a_failed_build_ends_with_the_compiler_s_words(tmp_path: Path) -> None:
    told = {**os.environ, "GCL_CUDA": "0", "GCL_BUILD_DIR": str(tmp_path)}
    command = [sys.executable, "setup.py", "-q", "build_ext", "--build-lib", str(tmp_path), "--build-temp", str(tmp_path)]

    def words(**environment: str) -> str:
        done = subprocess.run(command, cwd=ROOT, env=told | environment, capture_output=True, text=True, check=False)
        assert done.returncode == 1 and "Traceback" not in done.stderr
        return done.stderr.splitlines()[-1]

    assert words(CXX="/nowhere/g++") == "building gcl_fast failed, for the reason above: cmake ended with 1"
    assert words(MAX_JOBS="0") == "MAX_JOBS must be a number above 0, got '0'"


def test_a_folder_of_any_letters_builds_where_the_terminal_takes_ascii_alone(tmp_path: Path) -> None:
    copy = tmp_path / "\u00fc \u4eba"
    (copy / "gcl_fast").mkdir(parents=True)
    for file in ("setup.py", "gcl_fast/__init__.py"):
        (copy / file).write_bytes((ROOT / file).read_bytes())
    # Of the build only what is printed: no compiler is called
    program = "import subprocess, shutil, types; said = types.SimpleNamespace(stdout='', stderr='')\n"
    program += "subprocess.run = lambda *a, **k: said; shutil.copy2 = lambda s, t: open(t, 'w'); "
    program += "import sys; sys.argv = ['setup.py', '-q', 'build_ext', '--inplace']; import runpy; runpy.run_path('setup.py')"
    ascii_alone = {**os.environ, "GCL_CUDA": "0", "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "CUDACXX": ""}
    done = subprocess.run([sys.executable, "-c", program], cwd=copy, env=ascii_alone, capture_output=True, check=False)
    assert done.returncode == 0 and b"build tree '/" in done.stdout, done.stderr.decode()
