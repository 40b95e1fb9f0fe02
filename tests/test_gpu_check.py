"""gpu-check without a GPU: what it would run, how it judges, what it writes. The commands themselves are replaced."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest

BENCH = Path(__file__).resolve().parent.parent / "bench"


def load(path: Path):
    spec = importlib.util.spec_from_file_location(f"tested_{path.stem}", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look there
    spec.loader.exec_module(module)
    return module


gpu_check = load(BENCH / "gpu_check.py")
MACHINE = gpu_check.Machine(None, "A GPU", "90", "3.12.0", "2.11.0", "13.0", "/opt/compute-sanitizer", 16, True)
GOOD = {"passed": 9, "passed_on_cuda": 4, "failed": 0, "failed_tests": [], "skipped": [], "left_out": []}
INFO = {"op": "knn", "case": {"rows": 3}, "implementation": "native", "device": "A GPU", "check": "equal"}
UNINITIALISED = (
    "========= Uninitialized __global__ memory read of size 4 bytes\n"
    "=========     at void {kernel}+0x10\n"
    "=========     by thread (0,0,0) in block (0,0,0)\n"
    "=========\n"
    "========= ERROR SUMMARY: 1 error\n"
)


class FakeRunner:
    """Does what the commands would leave behind; `faults` maps a step's name to another outcome, report or exception."""

    def __init__(self, work: Path, **faults) -> None:
        self.work, self.faults, self.steps = work, faults, []

    def __call__(self, step, seconds: float):
        self.steps.append((step, seconds))
        fault = self.faults.get(step.name, {})
        code = fault.get("code", 0)
        if step.name == "build" and code == 0:
            (self.work / "site/gcl_fast").mkdir(parents=True)
            (self.work / "site/gcl_fast/_C.so").touch()
        if step.report is not None and "report" not in fault:
            step.report.write_text(json.dumps(GOOD))
        elif fault.get("report"):
            step.report.write_text(json.dumps(GOOD | fault["report"]))
        if step.name in gpu_check.BENCHES and not fault:
            entry = {"extra_info": INFO, "stats": {"median": 0.25, "rounds": 5, "mean": 0.3}}
            (self.work / f"{step.name}_benchmarks.json").write_text(json.dumps({"benchmarks": [entry]}))
        return gpu_check.Outcome(code, 1.5, fault.get("output", "said\n"), fault.get("timed_out", False))

    def names(self) -> list[str]:
        return [step.name for step, _ in self.steps]


def check(tmp_path: Path, *flags: str, machine=MACHINE, **faults):
    """Exit code, the JSON, and the runner."""
    work, out = tmp_path / "work", tmp_path / "out" / "gpu_check.json"
    runner = FakeRunner(work, **faults)
    code = gpu_check.main([*flags, "--out", str(out)], runner=runner, machine=machine, work=work)
    return code, json.loads(out.read_text()) if out.exists() else None, runner


def why(summary: dict, name: str) -> str:
    return next(part for part in summary["parts"] if part["name"] == name)["why"]


def test_all_parts_in_order_and_all_well(tmp_path: Path) -> None:
    code, summary, runner = check(tmp_path)
    assert code == 0 and summary["ok"]
    assert runner.names()[:3] == ["build", "import", "tests"] and runner.names()[-2:] == ["bench", "train"]
    assert sorted(runner.names()[3:-2]) == sorted(gpu_check.TOOLS)
    assert [part["ok"] for part in summary["parts"]] == [True] * 9
    assert all(part["exit_code"] == 0 and part["seconds"] == 1.5 and "output_tail" not in part for part in summary["parts"])
    versions = [summary[name] for name in ("device", "torch", "torch_cuda", "python")]
    assert versions == ["A GPU", "2.11.0", "13.0", "3.12.0"]
    assert summary["commit"] and summary["benchmarks"] == [INFO | {"median_seconds": 0.25, "rounds": 5}] * 2
    table = (tmp_path / "out" / "gpu_check.txt").read_text()
    assert "A GPU, torch 2.11.0" in table and "ok      train" in table and "250.000 ms" in table


def test_the_commands_build_offline_and_test_what_was_built(tmp_path: Path) -> None:
    _, _, runner = check(tmp_path)
    steps = {step.name: step for step, _ in runner.steps}
    assert steps["build"].argv[:2] == (sys.executable, "setup.py") and "pip" not in " ".join(steps["build"].argv)
    assert steps["build"].env["GCL_CUDA"] == "1" and steps["build"].env["GCL_CUDA_ARCHITECTURES"] == "90"
    for name, step in steps.items():
        if name != "build":  # python -m puts its folder first on the path: that may not be the checkout
            assert step.cwd == tmp_path / "work"
            assert step.env["PYTHONPATH"].split(":")[0] == str(tmp_path / "work" / "site")
            assert name == "import" or {"--import-mode=append", "left_out"} <= set(step.argv)
    assert "-n" in steps["tests"].argv
    for tool in gpu_check.TOOLS:
        argv = steps[tool].argv
        assert argv[0] == "/opt/compute-sanitizer" and argv[argv.index("--tool") + 1] == tool
        assert steps[tool].env["PYTORCH_NO_CUDA_MEMORY_CACHING"] == "1"
        assert argv[argv.index("-k") + 1].startswith("cuda")
    benches = {Path(argument).name for argument in steps["bench"].argv if argument.endswith(".py")}
    assert "rasterize.py" in benches and not benches & {"conftest.py", "gpu_check.py", "step.py"}
    assert steps["train"].argv[-1].endswith("bench/step.py") and "--full" in steps["train"].argv
    assert all("--import-mode=importlib" in steps[name].argv for name in ("bench", "train"))  # warp is a package elsewhere


def test_without_a_gpu_nothing_is_built(tmp_path: Path, capsys) -> None:
    code, summary, runner = check(tmp_path, machine=gpu_check.Machine("no CUDA GPU here"))
    assert code == 1 and summary is None and runner.steps == []
    assert "no CUDA GPU here" in capsys.readouterr().err


def test_inspect_names_what_is_wrong_where_torch_sees_no_gpu(monkeypatch) -> None:
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert gpu_check.inspect().why_not.startswith("no CUDA GPU here")
    monkeypatch.setattr(torch, "__version__", "2.9.1+cu128")
    assert gpu_check.inspect().why_not == "torch >= 2.10 is needed, this is 2.9.1+cu128"


@pytest.mark.parametrize(
    ("name", "fault", "message"),
    [
        ("build", {"code": 2, "output": "nvcc: no\n"}, "exit code 2"),
        ("import", {"code": 1}, "exit code 1"),
        ("tests", {"code": 1, "report": {"failed": 3, "failed_tests": ["a", "b", "c"]}}, "exit code 1"),
        ("tests", {"report": {"failed": 3}}, "3 tests failed"),
        ("tests", {"report": {"passed_on_cuda": 0}}, "no test passed on CUDA: it was not tested"),
        ("tests", {"report": None}, "pytest wrote no report"),
        ("tests", {"report": {"left_out": [{"test": "test_rasterize.py::a", "needs": "hypothesis"}]}}, "were left out"),
        ("tests", {"code": 124, "timed_out": True}, "its time limit"),
        ("memcheck", {"code": 86, "output": UNINITIALISED.format(kernel="gcl::k")}, "1 findings"),
        ("memcheck", {"code": 86, "output": UNINITIALISED.format(kernel="at::fill")}, "1 findings"),
        ("initcheck", {"code": 86, "output": UNINITIALISED.format(kernel="gcl::k")}, "1 findings"),
        ("initcheck", {"code": 86}, "exit code 86"),
        ("initcheck", {"code": 1, "output": UNINITIALISED.format(kernel="at::fill")}, "exit code 1"),
        ("racecheck", {"report": {"passed_on_cuda": 0}}, "no test passed on CUDA"),
        ("synccheck", {"code": 5}, "exit code 5"),
        ("bench", {"code": 0}, "wrote no benchmark JSON"),
        ("bench", {"code": 1}, "exit code 1"),
    ],
)
def test_any_fault_fails_and_is_told(name: str, fault: dict, message: str, tmp_path: Path) -> None:
    code, summary, runner = check(tmp_path, **{name: fault})
    assert code == 1 and not summary["ok"]
    assert message in why(summary, name)
    part = next(part for part in summary["parts"] if part["name"] == name)
    assert part["exit_code"] == fault.get("code", 0) and part["output_tail"] == fault.get("output", "said\n")
    if name != "build":  # without a build nothing can run; else the other parts go on
        assert "bench" in runner.names()


def test_nothing_runs_on_a_broken_build(tmp_path: Path) -> None:
    code, summary, runner = check(tmp_path, build={"code": 2})
    assert code == 1 and runner.names() == ["build"]
    assert [why(summary, name) for name in ("kernels", "sanitizer", "bench")] == [
        "not run: there is no build in build/gpu-check/site (part build)"
    ] * 3


def test_uninitialised_reads_in_torchs_own_kernels_are_counted_apart(tmp_path: Path) -> None:
    fault = {"code": 86, "output": UNINITIALISED.format(kernel="at::native::fill")}
    code, summary, _ = check(tmp_path, initcheck=fault)
    assert code == 0
    assert next(part for part in summary["parts"] if part["name"] == "initcheck")["findings_elsewhere"] == 1


def test_a_missing_sanitizer_fails_and_says_how_to_get_it(tmp_path: Path) -> None:
    machine = gpu_check.Machine(None, "A GPU", "90", "3.12.0", "2.11.0", "13.0", None, 16, True)
    code, summary, runner = check(tmp_path, machine=machine)
    assert code == 1 and "comes with the CUDA toolkit" in why(summary, "sanitizer")
    assert "bench" in runner.names()


def test_left_out_tests_are_listed_and_do_not_fail(tmp_path: Path) -> None:
    report = {"left_out": [{"test": "tests/test_bodies.py::a", "needs": "anny"}, {"test": "tests/test_cli.py", "needs": "tyro"}]}
    report["skipped"] = [{"test": "tests/test_x.py::b", "reason": "for another reason"}]
    code, summary, _ = check(tmp_path, tests={"report": report})
    assert code == 0 and summary["left_out"] == report["left_out"] and summary["missing_packages"] == ["anny", "tyro"]
    assert summary["skipped"] == report["skipped"]


def test_only_some_parts(tmp_path: Path) -> None:
    code, summary, runner = check(tmp_path, "--only", "build", "--only", "bench")
    assert code == 0 and runner.names() == ["build", "import", "bench"] and summary["parts_asked"] == ["build", "bench"]
    code, summary, _ = check(tmp_path / "other", "--only", "bench")
    assert code == 1 and why(summary, "bench").startswith("not run: there is no build")


def test_what_is_not_begun_in_time_fails(tmp_path: Path) -> None:
    code, summary, runner = check(tmp_path, "--seconds", "1")
    assert code == 1 and runner.steps == [] and why(summary, "build") == "not run: out of time"
    _, _, runner = check(tmp_path / "other", "--seconds", "100")
    assert all(seconds <= 100 for _, seconds in runner.steps)


def test_no_folder_of_the_machine_in_the_json(tmp_path: Path) -> None:
    secret = f"{gpu_check.ROOT}/csrc/a.cu {sys.executable} {sys.prefix}/lib {Path.home()}/x\n"
    _, summary, _ = check(tmp_path, build={"code": 1, "output": secret})
    tail = next(part for part in summary["parts"] if part["name"] == "build")["output_tail"]
    assert tail.startswith("csrc/a.cu python ") and str(gpu_check.ROOT) not in json.dumps(summary["parts"])


def test_the_real_runner_ends_what_takes_too_long(tmp_path: Path) -> None:
    step = gpu_check.Step("kernels", "slow", (sys.executable, "-c", "import time; print('begun', flush=True); time.sleep(60)"))
    outcome = gpu_check.run(step, 1.0)
    assert outcome.timed_out and outcome.code == 124 and outcome.seconds < 30
    code = "import os, sys; print(os.environ['A']); sys.exit(3)"
    step = gpu_check.Step("kernels", "quick", (sys.executable, "-c", code), {"A": "b"})
    outcome = gpu_check.run(step, 60)
    assert (outcome.code, outcome.output, outcome.timed_out) == (3, "b\n", False)


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


def test_it_stops_where_another_package_would_be_tested(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "pytest", "-p", "left_out", "-p", "no:cacheprovider"]
    path = f"{BENCH / 'gpu_check_plugin'}:{BENCH.parent}"
    environment = {"PYTHONPATH": path, "GCL_TESTED": str(tmp_path / "site"), "PATH": "/usr/bin:/bin"}
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 3 and "gcl_fast was imported from" in done.stdout + done.stderr


def test_only_tests_that_lack_an_optional_package_are_left_out(tmp_path: Path) -> None:
    (tmp_path / "test_some.py").write_text(TESTS)
    (tmp_path / "test_whole_file.py").write_text("import gone_body\ndef test_it(): pass\n")
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    report = tmp_path / "report.json"
    (tmp_path / "conftest.py").write_text("import left_out\nleft_out.OPTIONAL['gone_body'] = 'gone-body'\n")

    def run(*select: str) -> tuple[int, dict]:
        command = [sys.executable, "-m", "pytest", "-q", "-p", "left_out", "-p", "no:cacheprovider", "-p", "no:benchmark"]
        environment = {"PYTHONPATH": str(BENCH / "gpu_check_plugin"), "GCL_TEST_REPORT": str(report), "PATH": "/usr/bin:/bin"}
        done = subprocess.run([*command, *select], env=environment, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert report.is_file(), done.stdout + done.stderr
        return done.returncode, json.loads(report.read_text())

    code, said = run("test_whole_file.py", "test_some.py::test_passes", "test_some.py::test_needs_it")
    assert code == 0 and said["passed"] == 1 and len(said["left_out"]) == 2
    code, said = run(".")
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
