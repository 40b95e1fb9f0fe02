"""gpu-check's pytest plugin: what lacks an optional package is left out and told, tests take turns until their time ends."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TESTS = """
import subprocess, sys
import pytest

def gone():
    raise ModuleNotFoundError("No module named 'gone_body'", name="gone_body")

@pytest.fixture
def body():
    gone()

def test_passes(): pass
@pytest.mark.parametrize("device", ["cuda"])
def test_passes_on_a_gpu(device): pass
def test_needs_it(): gone()
def test_needs_it_in_a_fixture(body): pass
def test_is_told_so_by_our_error():
    try:
        gone()
    except ImportError as error:
        raise RuntimeError("the body model is not there") from error
def test_is_told_so_by_a_command():
    print("gcl-fast render needs gone_body: pip install gone-body", file=sys.stderr)
    assert 1 == 0
def test_fails(): assert 1 + 1 == 3
def test_lacks_something_that_is_not_optional(): raise ModuleNotFoundError("No module named 'gcl_fast.nothing'")
def test_a_package_that_is_here(): raise ImportError("this needs torch: pip install torch")
def test_skipped(): pytest.skip("for another reason")
"""
PLUGIN = "bench.gpu_check.left_out"


def test_it_stops_where_another_package_would_be_tested(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "pytest", "-p", PLUGIN, "-p", "no:cacheprovider"]
    environment = {"PYTHONPATH": str(ROOT), "GCL_TESTED": str(tmp_path / "site"), "PATH": "/usr/bin:/bin"}
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 3 and "gcl_fast was imported from" in done.stdout + done.stderr


def run_tests(folder: Path, *select: str, **env: str) -> tuple[int, dict, str]:
    """Exit code, report and what was said, of pytest with the plugin in a folder."""
    report = folder / "report.json"
    command = [sys.executable, "-m", "pytest", "-q", "-p", PLUGIN, "-p", "no:cacheprovider", "-p", "no:benchmark"]
    environment = {"PYTHONPATH": str(ROOT), "GCL_TEST_REPORT": str(report), "PATH": "/usr/bin:/bin", **env}
    done = subprocess.run([*command, *select], env=environment, cwd=folder, capture_output=True, text=True, check=False)
    assert report.is_file(), done.stdout + done.stderr
    return done.returncode, json.loads(report.read_text()), done.stdout


TURNS = """
import time
import pytest
import bench.gpu_check.left_out as left_out

@pytest.mark.parametrize("case", [1, 2])
def test_a(case): pass
@pytest.mark.parametrize("case", [1, 2])
def test_b(case, request):
    if request.path.name == "test_two.py":
        left_out.UNTIL = time.time()
"""
ORDER = ["one.py::test_a[1]", "two.py::test_a[1]", "one.py::test_b[1]", "two.py::test_b[1]"]
ORDER += [test.replace("[1]", "[2]") for test in ORDER]


def test_files_and_functions_take_turns_and_what_begins_too_late_is_not_reached(tmp_path: Path) -> None:
    for name in ("test_one.py", "test_two.py"):
        (tmp_path / name).write_text(TURNS)
    (tmp_path / "test_three.py").write_text("def test_c(): pass\n")
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    code, said, shown = run_tests(tmp_path, "-vv", "-k", "not three", GCL_TEST_UNTIL=str(time.time() + 600))
    begun = [line.split()[0].removeprefix("test_") for line in shown.splitlines() if line.startswith("test_")]
    assert begun == ORDER
    # the first four passed; the last of them set the end of the time
    assert code == 0 and said["passed"] == 4 and said["not_reached"] == 4 and said["failed"] == 0
    assert said["skipped"] == said["left_out"] == [] and said["files"] == ["test_one.py", "test_two.py"]
    code, said, shown = run_tests(tmp_path, "-vv", "test_one.py")  # without that variable the order is pytest's
    begun = [line.split()[0].partition("::")[2] for line in shown.splitlines() if line.startswith("test_")]
    assert begun == ["test_a[1]", "test_a[2]", "test_b[1]", "test_b[2]"] and said["not_reached"] == 0


def test_a_slow_test_is_cut_off_at_the_end_of_the_time(tmp_path: Path) -> None:
    (tmp_path / "test_slow.py").write_text("import time\ndef test_a(): time.sleep(100)\ndef test_b(): pass\n")
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    begin = time.time()
    code, said, _ = run_tests(tmp_path, GCL_TEST_UNTIL=str(begin + 4))
    assert time.time() - begin < 90
    assert code == 0 and (said["passed"], said["failed"], said["not_reached"], said["files"]) == (0, 0, 2, [])


def test_only_tests_that_lack_an_optional_package_are_left_out(tmp_path: Path) -> None:
    (tmp_path / "test_some.py").write_text(TESTS)
    (tmp_path / "test_whole_file.py").write_text("import gone_body\ndef test_it(): pass\n")
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    (tmp_path / "conftest.py").write_text(f"import {PLUGIN} as left_out\nleft_out.OPTIONAL['gone_body'] = 'gone-body'\n")

    code, said, _ = run_tests(tmp_path, "test_whole_file.py", "test_some.py::test_passes", "test_some.py::test_needs_it")
    assert code == 0 and said["passed"] == 1 and len(said["left_out"]) == 2
    code, said, _ = run_tests(tmp_path, ".")
    assert code == 1
    assert (said["passed"], said["passed_on_cuda"], said["failed"]) == (2, 1, 3)
    assert said["skipped"] == [{"test": "test_some.py::test_skipped", "reason": "for another reason"}]
    assert [name.partition("::")[2] for name in said["failed_tests"]] == [
        "test_a_package_that_is_here",
        "test_fails",
        "test_lacks_something_that_is_not_optional",
    ]
    assert {entry["needs"] for entry in said["left_out"]} == {"gone-body"}
    assert [entry["test"] for entry in said["left_out"]] == [
        "test_some.py::test_is_told_so_by_a_command",
        "test_some.py::test_is_told_so_by_our_error",
        "test_some.py::test_needs_it",
        "test_some.py::test_needs_it_in_a_fixture",
        "test_whole_file.py",
    ]
