"""gpu-check without a GPU: what it would run, how it judges, what it writes. The commands themselves are replaced."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bench.gpu_check import __main__ as gpu_check
from bench.gpu_check import checking, checkout, commands, machine, records, table, watching, wheels
from bench.gpu_check.catalogue import numbers

BENCH = Path(__file__).resolve().parent.parent / "bench"
MACHINE = machine.Machine(
    None, "cuda", "A GPU", "90", "580.1", "3.12.0", "2.11.0", "13.0", "/opt/compute-sanitizer", 16, True, True, "abc", "source1"
)
FILES = sorted(f"tests/{name}" for name in commands.NATIVE_OP_TESTS)
GOOD = {"passed": 9, "passed_on_cuda": 4, "failed": 0, "failed_tests": [], "skipped": [], "left_out": []}
GOOD |= {"not_reached": 0, "files": FILES}
UNINITIALISED = (
    "========= Uninitialized __global__ memory read of size 4 bytes\n"
    "=========     at void {kernel}+0x10\n"
    "=========     by thread (0,0,0) in block (0,0,0)\n"
    "=========\n"
    "========= ERROR SUMMARY: 1 error\n"
)


class FakeRunner:
    """Does what the commands would leave behind; `faults` maps a step's name to another outcome, report or exception."""

    def __init__(self, work: Path, faults: dict) -> None:
        self.work, self.faults, self.steps = work, faults, []

    def __call__(self, step, seconds: float):
        self.steps.append((step, seconds))
        fault = self.faults.get(step.name.split()[0], {})
        code = fault.get("code", 0)
        if step.name == "build" and code == 0:
            (self.work / "site/gcl_fast").mkdir(parents=True)
            (self.work / "site/gcl_fast/_C.so").touch()
        if step.report is not None and "report" not in fault:
            step.report.write_text(json.dumps(GOOD))
        elif fault.get("report"):
            step.report.write_text(json.dumps(GOOD | fault["report"]))
        return commands.Outcome(code, 1.5, fault.get("output", "said\n"), fault.get("timed_out", False))

    def names(self) -> list[str]:
        return [step.name for step, _ in self.steps]


class FakeMeasurements(watching.Measurements):
    """Measures nothing: each number's line is there at once, with `failing` and `missing` as other states."""

    failing, missing, most = (), (), 1000

    def run(self, numbers, until: float) -> None:
        for number in self.open(numbers)[: self.most]:
            line = {"part": number.part, "implementation": number.implementation, "case": number.case}
            if number.key in self.failing:
                self.records.add("number", number.key, **line, status="failed", why="it differs")
            elif number.key in self.missing:
                self.records.add("number", number.key, **line, status="left_out", why="needs drtk, which is not here")
            else:
                times = {"seconds": 2e-3, "eager_seconds": 3e-3, "queued_seconds": 2e-3, "measured_by": "graph_seconds"}
                goal = {"goal_seconds": 1e-3, "times_goal": 2.0}
                self.records.add("number", number.key, **line, status="ok", check="equal", **times, **goal)


@pytest.fixture(autouse=True)
def _nothing_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checking, "Measurements", FakeMeasurements)
    for name in ("failing", "missing"):
        monkeypatch.setattr(FakeMeasurements, name, ())
    monkeypatch.setattr(FakeMeasurements, "most", 1000)


def check(tmp_path: Path, *flags: str, machine=MACHINE, faults: dict | None = None):
    """Exit code, the JSON, and the runner."""
    work, results = tmp_path / "work", tmp_path / "results"
    runner = FakeRunner(work, faults or {})
    arguments = [*flags, "--work", str(work), "--results", str(results)]
    code = gpu_check.main(arguments, runner=runner, machine=machine)
    out = results / "gpu_a_gpu.json"
    return code, json.loads(out.read_text()) if out.exists() else None, runner


def part_of(summary: dict, name: str) -> dict:
    return next(part for part in summary["parts"] if part["part"] == name)


def why(summary: dict, name: str) -> str:
    return part_of(summary, name)["why"]


def test_all_parts_in_order_and_all_well(tmp_path: Path, capsys) -> None:
    code, summary, runner = check(tmp_path)
    assert code == 0 and summary["ok"] and "all is well" in capsys.readouterr().out
    assert runner.names()[:3] == ["build", "import", "kernels"] and runner.names()[-2:] == ["checkout", "suite"]
    assert sorted(runner.names()[3:-2]) == sorted(f"{tool} {group}" for tool in commands.TOOLS for group in range(1, 5))
    assert [part["part"] for part in summary["parts"]] == list(checking.PARTS)
    assert {part["status"] for part in summary["parts"]} == {"ok"}
    versions = [summary[name] for name in ("device", "driver", "torch", "torch_cuda", "python", "commit")]
    assert versions == ["A GPU", "580.1", "2.11.0", "13.0", "3.12.0", "abc"]
    assert len(summary["numbers"]) == len(numbers())
    text = (tmp_path / "results" / "gpu_a_gpu.md").read_text()
    assert "# gpu-check: A GPU" in text and "torch 2.11.0" in text and "driver 580.1" in text and "commit abc" in text
    assert "| rasterize 16 | 2 ms |" in text and "| 1 ms | 2.00 x |" in text and "1.00 x as fast" in text


def test_the_commands_build_offline_and_test_what_was_built(tmp_path: Path) -> None:
    _, _, runner = check(tmp_path)
    steps = {step.name: step for step, _ in runner.steps}
    assert steps["build"].argv[:2] == (sys.executable, "setup.py") and "pip" not in " ".join(steps["build"].argv)
    assert steps["build"].env["GCL_CUDA"] == "1" and steps["build"].env["GCL_CUDA_ARCHITECTURES"] == "90"
    for name, step in steps.items():
        if name not in ("build", "checkout"):  # python -m puts its folder first on the path: that may not be the checkout
            assert step.cwd == tmp_path / "work"
            path = step.env["PYTHONPATH"].split(":")
            assert path[: 1 if name == "import" else 2][-1] == str(tmp_path / "work" / "site")
            assert name == "import" or {"--import-mode=append", "bench.gpu_check.left_out"} <= set(step.argv)
    assert "-n" in steps["suite"].argv and steps["suite"].argv[-1].endswith("/tests")
    copy, copied = tmp_path / "work" / "checkout", steps["suite"].env
    assert copied["PYTHONPATH"].split(":")[0] == copied["GCL_TESTED"] == steps["checkout"].argv[-1] == str(copy)
    assert steps["suite"].argv[-1] == str(copy / "tests") and str(copy / "pyproject.toml") in steps["suite"].argv
    for name in ("kernels", "memcheck 1"):
        argv = steps[name].argv
        assert argv[argv.index("-k") + 1].startswith("cuda") and any(a.endswith("tests/test_rasterize.py") for a in argv)
    for tool in commands.TOOLS:
        argv, mine = steps[f"{tool} 1"].argv, [step for name, step in steps.items() if name.startswith(tool)]
        assert sorted(file for step in mine for file in step.files) == [
            f for f in FILES if f not in commands.BEYOND.get(tool, ())
        ]
        assert argv[0] == "/opt/compute-sanitizer" and argv[argv.index("--tool") + 1] == tool
        assert steps[f"{tool} 1"].env["PYTORCH_NO_CUDA_MEMORY_CACHING"] == "1"
        # our kernels only; initcheck must see who wrote what they read
        assert (argv[argv.index("--kernel-name") + 1] == "kns=N3gcl") if tool != "initcheck" else "--kernel-name" not in argv


def test_without_a_gpu_nothing_is_built(tmp_path: Path, capsys) -> None:
    code, summary, runner = check(tmp_path, machine=machine.Machine("no CUDA GPU here"))
    assert code == 1 and summary is None and runner.steps == []
    assert "no CUDA GPU here" in capsys.readouterr().err


def test_inspect_names_what_is_wrong_where_torch_sees_no_gpu(monkeypatch) -> None:
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert machine.inspect().why_not.startswith("no CUDA GPU here")
    seen = machine.inspect("cpu")
    assert seen.why_not is None and seen.kind == "cpu" and seen.device and seen.source == machine.digest()
    monkeypatch.setattr(torch, "__version__", "2.9.1+cu128")
    assert machine.inspect().why_not == "torch >= 2.10 is needed, this is 2.9.1+cu128"


FAULTS = [
    ("build", "build", {"code": 2, "output": "nvcc: no\n"}, "exit code 2"),
    ("build", "import", {"code": 1}, "exit code 1"),
    ("kernels", "kernels", {"code": 1, "report": {"failed": 3, "failed_tests": ["a", "b", "c"]}}, "exit code 1"),
    ("kernels", "kernels", {"report": {"failed": 3}}, "3 tests failed"),
    ("suite", "suite", {"report": {"passed_on_cuda": 0}}, "no test passed on CUDA: it was not tested"),
    ("suite", "suite", {"report": None}, "pytest wrote no report"),
    ("suite", "suite", {"report": {"left_out": [{"test": "test_rasterize.py::a", "needs": "hypothesis"}]}}, "were left out"),
    ("suite", "suite", {"code": 124, "timed_out": True}, "its time limit"),
    ("sanitizer", "memcheck", {"code": 86, "output": UNINITIALISED.format(kernel="gcl::k")}, "1 findings"),
    ("sanitizer", "memcheck", {"code": 86, "output": UNINITIALISED.format(kernel="at::fill")}, "1 findings"),
    ("sanitizer", "initcheck", {"code": 86, "output": UNINITIALISED.format(kernel="gcl::k")}, "1 findings"),
    ("sanitizer", "initcheck", {"code": 86}, "exit code 86"),
    ("sanitizer", "initcheck", {"code": 1, "output": UNINITIALISED.format(kernel="at::fill")}, "exit code 1"),
    ("sanitizer", "racecheck", {"report": {"passed_on_cuda": 0}}, "no test passed on CUDA"),
    ("sanitizer", "racecheck", {"report": {"passed_on_cuda": 0, "not_reached": 7}}, "not tested (7 not reached in the time)"),
    ("sanitizer", "memcheck", {"report": {"files": FILES[1:], "not_reached": 7}}, f"no test ran of {FILES[0]} (7 not reached"),
    ("sanitizer", "memcheck", {"timed_out": True, "output": UNINITIALISED.format(kernel="gcl::k")}, "limit, with 1 findings"),
    ("sanitizer", "synccheck", {"code": 5}, "exit code 5"),
]


@pytest.mark.parametrize(("part", "name", "fault", "message"), FAULTS)
def test_any_fault_fails_and_is_told(part: str, name: str, fault: dict, message: str, tmp_path: Path, capsys) -> None:
    code, summary, runner = check(tmp_path, faults={name: fault})
    assert code == 1 and not summary["ok"] and f"FAILED: {part}" in capsys.readouterr().out
    assert name in why(summary, part) and message in why(summary, part)
    step = next(step for step in part_of(summary, part)["steps"] if step["name"].split()[0] == name and "why" in step)
    assert step["exit_code"] == fault.get("code", 0) and step["output_tail"] == fault.get("output", "said\n")
    if name != "build":  # without a build nothing can run; else the other parts go on
        assert "suite" in runner.names() and len(summary["numbers"]) == len(numbers())


def test_nothing_runs_on_a_broken_build(tmp_path: Path) -> None:
    code, summary, runner = check(tmp_path, faults={"build": {"code": 2}})
    assert code == 1 and runner.names() == ["build"] and summary["numbers"] == []
    for name in ("kernels", "sanitizer", "suite"):
        assert why(summary, name).startswith("not run: there is no build in ")
    assert part_of(summary, "targets")["status"] == "left"


def test_a_failed_number_fails_and_is_told(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(FakeMeasurements, "failing", ("rasterize 16",))
    monkeypatch.setattr(FakeMeasurements, "missing", ("rasterize 16 / drtk",))
    code, summary, _ = check(tmp_path)
    assert code == 1 and part_of(summary, "targets")["status"] == "failed" and part_of(summary, "train")["status"] == "ok"
    assert "failed: rasterize 16;" in why(summary, "targets") and "left out: rasterize 16 / drtk" in why(summary, "targets")
    text = (tmp_path / "results" / "gpu_a_gpu.md").read_text()
    assert "| rasterize 16 | failed: it differs |" in text and "left out: needs drtk" in text


def test_what_is_left_is_no_success(tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.setattr(FakeMeasurements, "most", 3)
    code, summary, _ = check(tmp_path)
    assert code == 1 and not summary["ok"] and part_of(summary, "targets")["status"] == "left"
    assert "NOT DONE: targets, train; the same command goes on from here" in capsys.readouterr().out
    monkeypatch.setattr(FakeMeasurements, "most", 1000)
    code, summary, runner = check(tmp_path)
    assert code == 0 and summary["ok"] and runner.steps == []  # nothing that was done is done again
    lines = records.read_lines(tmp_path / "results" / "gpu_a_gpu.jsonl")
    keys = [line["key"] for line in lines if line["kind"] == "number"]
    assert len(keys) == len(set(keys)) == len(numbers())


def test_another_source_is_another_result(tmp_path: Path) -> None:
    check(tmp_path)
    other = machine.Machine(*list(vars(MACHINE).values())[:-1], "source2")
    code, summary, runner = check(tmp_path, machine=other)
    assert code == 0 and runner.names()[0] == "build" and summary["source"] == "source2"
    lines = records.read_lines(tmp_path / "results" / "gpu_a_gpu.jsonl")
    assert sum(line["key"] == "rasterize 16" for line in lines) == 2


def test_fresh_begins_anew_and_numbers_measures_again(tmp_path: Path) -> None:
    check(tmp_path)
    file = tmp_path / "results" / "gpu_a_gpu.jsonl"
    code, summary, runner = check(tmp_path, "--numbers", "bank 16")
    assert code == 0 and runner.names() == [] and all("bank 16" in line["key"] for line in summary["numbers"])
    lines = [line["key"] for line in records.read_lines(file) if line["kind"] == "number"]
    assert lines.count("bank 16 fp32") == 2 and lines.count("bank 64 fp32") == 1
    before = len(records.read_lines(file))
    _, _, runner = check(tmp_path, "--fresh")
    assert runner.names()[:2] == ["kernels", "memcheck 1"] or "build" in runner.names()
    assert len(records.read_lines(file)) < before
    assert check(tmp_path, "--numbers", "nothing such")[0] == 1


@pytest.mark.parametrize("kernel", ["at::native::fill", "gcl::knn_update_kernel<float>"])  # one of a product of cuBLAS
def test_uninitialised_reads_that_are_not_ours_are_counted_apart(kernel: str, tmp_path: Path) -> None:
    fault = {"code": 86, "output": UNINITIALISED.format(kernel=kernel)}
    code, summary, _ = check(tmp_path, faults={"initcheck": fault})
    assert code == 0
    steps = part_of(summary, "sanitizer")["steps"]
    assert [step["findings_elsewhere"] for step in steps if step["name"].startswith("initcheck")] == [1] * 4


def test_the_sanitizer_ends_by_itself_and_says_what_it_did_not_reach(tmp_path: Path) -> None:
    begin = time.time()
    code, summary, runner = check(tmp_path, faults={"memcheck": {"report": {"not_reached": 138}}})
    assert code == 0 and part_of(summary, "sanitizer")["status"] == "ok"
    assert "memcheck: 36 tests ran, 552 not reached in the time; racecheck: 36 tests ran, 0 not" in why(summary, "sanitizer")
    told = next(step for step in part_of(summary, "sanitizer")["steps"] if step["name"] == "memcheck 3")
    assert told["tests"]["not_reached"] == 138 and told["tests"]["left_out"] == 0
    until = [float(step.env["GCL_TEST_UNTIL"]) for step, _ in runner.steps if step.name.split()[0] in commands.TOOLS]
    end = checking.SECONDS["sanitizer"] - commands.SPARE
    assert len(until) == 16 and all(begin + end <= time_ <= time.time() + end for time_ in until)
    others = [step for step, _ in runner.steps if step.name.split()[0] not in commands.TOOLS]
    assert not [step.name for step in others if "GCL_TEST_UNTIL" in step.env]


def test_a_missing_sanitizer_fails_and_says_how_to_get_it(tmp_path: Path) -> None:
    bare = machine.Machine(None, "cuda", "A GPU", "90", cores=16, xdist=True)
    code, summary, runner = check(tmp_path, machine=bare)
    assert code == 1 and "comes with the CUDA toolkit" in why(summary, "sanitizer")
    assert "suite" in runner.names()


def test_without_pytest_the_numbers_are_measured_all_the_same(tmp_path: Path) -> None:
    bare = machine.Machine(None, "cuda", "A GPU", "90", sanitizer="/opt/compute-sanitizer", pytest=False)
    code, summary, _ = check(tmp_path, machine=bare)
    assert code == 1 and "--wheels DIR" in why(summary, "kernels") and part_of(summary, "targets")["status"] == "ok"


def test_left_out_tests_are_listed_and_do_not_fail(tmp_path: Path) -> None:
    report = {"left_out": [{"test": "tests/test_bodies.py::a", "needs": "anny"}, {"test": "tests/test_cli.py", "needs": "tyro"}]}
    code, summary, _ = check(tmp_path, faults={"suite": {"report": report}})
    assert code == 0 and part_of(summary, "suite")["steps"][1]["left_out"] == report["left_out"]


def test_only_some_parts(tmp_path: Path) -> None:
    code, summary, runner = check(tmp_path, "--only", "build", "--only", "train")
    assert code == 0 and runner.names() == ["build", "import"] and summary["parts_asked"] == ["build", "train"]
    assert {line["part"] for line in summary["numbers"]} == {"train"}
    code, summary, _ = check(tmp_path / "other", "--only", "kernels")
    assert code == 1 and why(summary, "kernels").startswith("not run: there is no build")


def test_what_is_not_begun_in_time_is_left(tmp_path: Path) -> None:
    code, summary, runner = check(tmp_path, "--seconds", "1")
    assert code == 1 and runner.steps == [] and part_of(summary, "build")["status"] == "left" and not summary["ok"]
    _, _, runner = check(tmp_path / "other", "--seconds", "100")
    assert all(seconds <= 100 for _, seconds in runner.steps)


def test_no_folder_of_the_machine_in_the_json(tmp_path: Path) -> None:
    secret = f"{machine.ROOT}/csrc/a.cu {sys.executable} {sys.prefix}/lib {Path.home()}/x\n"
    _, summary, _ = check(tmp_path, faults={"build": {"code": 1, "output": secret}})
    tail = part_of(summary, "build")["steps"][0]["output_tail"]
    assert tail.startswith("csrc/a.cu python ") and str(machine.ROOT) not in json.dumps(summary["parts"])


def test_a_cpu_is_a_rehearsal_at_toy_sizes_only(capsys) -> None:
    with pytest.raises(SystemExit):
        gpu_check.main(["--device", "cpu"])
    assert "give --toy too" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        gpu_check.main(["--wheels", "/nowhere/at/all"])
    assert "is no folder" in capsys.readouterr().err


def test_wheels_are_unpacked_first_and_come_after_the_build_on_the_path(tmp_path: Path) -> None:
    (tmp_path / "wheels").mkdir()
    _, _, runner = check(tmp_path, "--wheels", str(tmp_path / "wheels"))
    assert runner.names()[:3] == ["wheels", "build", "import"]
    steps = {step.name: step for step, _ in runner.steps}
    path = steps["kernels"].env["PYTHONPATH"].split(":")
    assert path[:3] == [str(tmp_path / f"work/{name}") for name in ("own", "site", "packages")]
    # some wheel may bring a package "tests": ours are found before it
    assert sorted(p.name for p in (tmp_path / "work/own").iterdir()) == ["bench", "tests"]
    assert steps["build"].env["PATH"].split(":")[0] == str(tmp_path / "work/packages/bin")


def test_the_suite_runs_in_a_copy_with_the_built_module(tmp_path: Path) -> None:
    root, site, target = tmp_path / "root", tmp_path / "site", tmp_path / "root/build/checkout"
    ours, others = (
        ("gcl_fast/a.py", "tests/t.py", ".ci/run"),
        ("gcl_fast/_C.o.so", "gcl_fast/__pycache__/a.pyc", "runs/y", ".venv/x"),
    )
    for name in (*ours, *others):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(name)
    (site / "gcl_fast").mkdir(parents=True)
    (site / "gcl_fast/_C.this.so").write_text("built")
    (target / "old").mkdir(parents=True)
    want = set(ours)
    assert checkout.copy(root, site, target) == 3 and files_in(target) == want | {"gcl_fast/_C.this.so"}

    (root / ".gitignore").write_text("*.so\nbuild/\nruns/\n.venv/\n__pycache__/\n")
    subprocess.run(["git", "init", "-q", str(root)], check=True)
    assert checkout.copy(root, site, target) == 4 and files_in(target) == want | {"gcl_fast/_C.this.so", ".gitignore"}


def files_in(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_wheels_that_do_not_fit_are_passed_over(tmp_path: Path, monkeypatch, capsys) -> None:
    said = {"good-1-py3-none-any.whl": "", "bad-1-cp27-none-any.whl": "ERROR: bad is not a supported wheel on this platform."}
    for name in said:
        (tmp_path / name).touch()
    monkeypatch.setattr(wheels, "_pip", lambda files, target: "no" if len(files) > 1 else said[files[0].name])
    assert wheels.install(tmp_path, tmp_path / "packages") == 0
    shown = capsys.readouterr().out
    assert "passed over bad-1-cp27-none-any.whl: ERROR: bad is not" in shown and "installed: good-1-py3-none-any.whl" in shown
    (tmp_path / "empty").mkdir()
    assert wheels.install(tmp_path / "empty", tmp_path / "packages") == 1 and "no *.whl in" in capsys.readouterr().out


def test_the_real_runner_ends_what_takes_too_long(tmp_path: Path) -> None:
    slow = (sys.executable, "-c", "import time; print('begun', flush=True); time.sleep(600)")
    outcome = commands.run(commands.Step("kernels", "slow", slow), 1.0)
    assert outcome.timed_out and outcome.code == 124
    code = "import os, sys; print(os.environ['A']); sys.exit(3)"
    outcome = commands.run(commands.Step("kernels", "quick", (sys.executable, "-c", code), {"A": "b"}), 600)
    assert (outcome.code, outcome.output, outcome.timed_out) == (3, "b\n", False)


def test_a_torn_line_loses_one_result_only(tmp_path: Path) -> None:
    kept = records.Records(tmp_path / "r.jsonl", {"source": "a"}, "c1")
    kept.add("begun", "one")
    kept.add("number", "one", status="ok", seconds=float("nan"))
    with kept.path.open("a") as file:
        file.write('{"kind": "number", "key": "two", "sta')
    kept.add("begun", "three")
    assert [line["key"] for line in kept.mine()] == ["one", "one", "three"] and kept.ended()["one"]["seconds"] is None
    assert kept.cut() == {"three"}
    assert records.Records(kept.path, {"source": "b"}).ended() == {}


def test_the_table_of_a_file(tmp_path: Path, capsys) -> None:
    kept = records.Records(tmp_path / "r.jsonl", {"source": "a", "device": "A GPU"}, "c1")
    kernels = [{"kernel": "gcl::k", "calls": 2, "microseconds": 1.5, "registers": 40}]
    line = {"status": "ok", "seconds": 5e-5, "images_per_second": 320_000.0, "floor_seconds": 2.5e-5, "share_of_floor": 0.5}
    kept.add("number", "bank 16 fp32", **line, kernels=kernels)
    kept.add("number", "bank 16 fp32 / eager", status="ok", seconds=1e-3)
    assert table.main([str(kept.path), "--kernels"]) == 0
    said = capsys.readouterr().out
    assert "| bank 16 fp32 | 50 us | 3.13 us |" in said and "| 50% |" in said and "20.00 x as fast" in said
    assert "## bank 16 fp32" in said and "| gcl::k | 2 | 1.5 | 40 |" in said
    assert table.main([str(tmp_path / "none.jsonl")]) == 1
