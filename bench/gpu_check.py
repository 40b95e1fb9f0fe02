"""Builds and checks the package on a machine with a CUDA GPU: `make gpu-check PYTHON=...`, or `python bench/gpu_check.py`.

Every part of this runs only where a GPU is; elsewhere it says so and exits with 1, before it builds anything. It uses the
Python that runs it (3.10 or newer, torch >= 2.10, with nvcc, cmake and pytest), no network, and installs nothing:

    build      setup.py into build/gpu-check/site, for this GPU's architecture; then imports it
    kernels    the whole suite, ops on CPU and CUDA; tests that need an optional package that is missing are left out and listed
    sanitizer  compute-sanitizer (memcheck, racecheck, initcheck, synccheck) over the tests of the native ops on CUDA
    bench      the op benches, each checked before it is timed
    train      stages 2 and 3 at 256x128 with ResNet-50, batches of 16 and 64, float32 and bfloat16, against the plain path:
               losses of some steps compared, then images/s

`--only PART` runs one of them.

One JSON (bench/results/gpu_check.json, or --out; a table of it lies beside it as .txt) holds device, versions, commit,
and each part's command, exit code, seconds and, where it failed, the end of its output. Exit code 0 only if every part was run
and is well. It fits in nine minutes on
16 cores; what is not begun in time counts as failed. GCL_COMMIT names the commit where there is no git.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PLUGIN = Path(__file__).resolve().parent / "gpu_check_plugin"
sys.path.insert(0, str(PLUGIN))
from summary import brief, commit, findings, plain, read_json, table  # noqa: E402

PARTS = ("build", "kernels", "sanitizer", "bench", "train")
BENCHES = ("bench", "train")  # parts that write a JSON of pytest-benchmark
OP_BENCHES = [path for path in sorted((ROOT / "bench").glob("*.py")) if "\nOP = " in path.read_text()]
TOOLS = ("memcheck", "racecheck", "initcheck", "synccheck")
NATIVE_OP_TESTS = (  # of the ops with CUDA kernels of our own
    "test_rasterize.py",
    "test_interpolate.py",
    "test_render_mesh.py",
    "test_warp.py",
    "test_ranking.py",
    "test_neighbors.py",
    "test_neighbors_native.py",
    "test_bank_nce.py",
    "test_bank_update.py",
    "test_gcl_memory_loss.py",
)
SECONDS = {"build": 240, "kernels": 270, "sanitizer": 200, "bench": 150, "train": 150}  # at most
FOUND = 86  # compute-sanitizer's exit code when it found something
TAIL = 6000  # characters


@dataclass(frozen=True)
class Machine:
    """What is here; `why_not` says why nothing can be run."""

    why_not: str | None = None
    device: str = ""
    capability: str = ""
    python: str = ""
    torch: str = ""
    torch_cuda: str = ""
    sanitizer: str | None = None
    cores: int = 1
    xdist: bool = False


@dataclass(frozen=True)
class Scope:
    """What the parts run: everything on CUDA, or in the tests of this file toys on the CPU."""

    device: str = "cuda"
    tests: tuple[str, ...] = ("tests",)  # below ROOT
    sanitized: tuple[str, ...] = tuple(f"tests/{name}" for name in NATIVE_OP_TESTS)
    benches: tuple[Path, ...] = tuple(path for path in OP_BENCHES if path.stem not in ("step", "epoch"))
    train: tuple[str, ...] = ("--full",)


@dataclass(frozen=True)
class Step:
    """One command of a part; `report` is the JSON that it writes, if any."""

    part: str
    name: str
    argv: tuple[str, ...]
    env: dict[str, str] = field(default_factory=dict)
    cwd: Path = ROOT
    report: Path | None = None


@dataclass(frozen=True)
class Outcome:
    code: int
    seconds: float
    output: str
    timed_out: bool = False


Runner = Callable[[Step, float], Outcome]


def run(step: Step, seconds: float) -> Outcome:
    """Runs the command, ends it and its children after `seconds`."""
    begin = time.monotonic()
    process = subprocess.Popen(
        step.argv,
        cwd=step.cwd,
        env=os.environ | step.env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
    )
    try:
        output, _ = process.communicate(timeout=seconds)
        return Outcome(process.returncode, time.monotonic() - begin, output)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, 9)
        output, _ = process.communicate()
        return Outcome(124, time.monotonic() - begin, output, timed_out=True)


def find_sanitizer() -> str | None:
    nvcc = shutil.which("nvcc")
    homes = [os.environ.get("CUDA_HOME"), os.environ.get("CUDA_PATH"), "/usr/local/cuda"]
    homes += [str(Path(nvcc).resolve().parent.parent)] if nvcc else []
    for name in ("compute-sanitizer", *(f"{home}/bin/compute-sanitizer" for home in homes if home)):
        if found := shutil.which(name):
            return found
    return None


def inspect() -> Machine:
    """This machine, seen by this Python."""
    python = ".".join(map(str, sys.version_info[:3]))
    if sys.version_info < (3, 10):  # noqa: UP036  make gpu-check takes any Python
        return Machine(f"Python >= 3.10 is needed, this is {python}; name another: make gpu-check PYTHON=python3.12")
    try:
        import torch
    except ImportError as error:
        return Machine(f"this Python has no torch ({error}); name one that has: make gpu-check PYTHON=...")
    if tuple(int(n) for n in re.findall(r"\d+", torch.__version__)[:2]) < (2, 10):
        return Machine(f"torch >= 2.10 is needed, this is {torch.__version__}")
    if not torch.cuda.is_available():
        return Machine(f"no CUDA GPU here that torch {torch.__version__} can use; nothing was built or run")
    major, minor = torch.cuda.get_device_capability()
    try:
        import xdist  # noqa: F401

        xdist_here = True
    except ImportError:
        xdist_here = False
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return Machine(
        None,
        torch.cuda.get_device_name(),
        f"{major}{minor}",
        python,
        torch.__version__,
        str(torch.version.cuda),
        find_sanitizer(),
        cores,
        xdist_here,
    )


class Check:
    """The parts in order, and what came of them."""

    def __init__(self, machine: Machine, runner: Runner, work: Path, seconds: float, scope: Scope) -> None:
        self.machine, self.runner, self.work, self.scope = machine, runner, work, scope
        self.site = work / "site"
        self.deadline = time.monotonic() + seconds
        self.results: list[dict] = []
        self.tested: dict = {}
        self.benchmarks: list[dict] = []

    # Commands

    def steps(self, part: str) -> list[Step]:
        return {
            "build": self.build,
            "kernels": self.kernels,
            "sanitizer": self.sanitizer,
            "bench": self.bench,
            "train": self.train,
        }[part]()

    def python_path(self, *more: Path) -> str:
        """The build first, what the caller had on the path last."""
        return os.pathsep.join([*map(str, (self.site, *more)), *filter(None, [os.environ.get("PYTHONPATH")])])

    def build(self) -> list[Step]:
        cuda = self.scope.device == "cuda"
        flags = {
            "GCL_CUDA": str(int(cuda)),
            "GCL_CUDA_ARCHITECTURES": self.machine.capability,
            "GCL_BUILD_DIR": str(self.work / "tree"),
        }
        setup = (sys.executable, "setup.py", "-q", "build", "--build-base", str(self.work), "--build-lib", str(self.site))
        see = (
            "import json, sys, torch, gcl_fast\n"
            "from gcl_fast import _native\n"
            "info = _native.info()\n"
            "print(json.dumps({'kernels': info.loaded, 'cuda': info.cuda_version, 'architectures': list(info.architectures),\n"
            "                  'error': info.error, 'from': gcl_fast.__file__}))\n"
            f"sys.exit(not (info.loaded and (info.cuda or {not cuda})))"
        )
        return [
            Step("build", "build", setup, flags),
            Step("build", "import", (sys.executable, "-c", see), {"PYTHONPATH": self.python_path()}, self.work),
        ]

    def pytest(self, part: str, name: str, *arguments: str, before: tuple[str, ...] = (), threads: int = 1, **env: str) -> Step:
        """pytest on this build, not on the checkout's gcl_fast: begun elsewhere, and the checkout comes last on the path."""
        report = self.work / f"{name}.json"
        environment = {
            "PYTHONPATH": self.python_path(PLUGIN, ROOT),
            "GCL_TEST_REPORT": str(report),
            "GCL_TESTED": str(self.site),
            "GCL_TEST_DEVICE": self.scope.device,
            "OMP_NUM_THREADS": str(threads),
            **env,
        }
        argv = (*before, sys.executable, "-m", "pytest", "-c", str(ROOT / "pyproject.toml"), "--rootdir", str(ROOT))
        argv += ("-o", "addopts=-ra", "--import-mode=append", "-q", "-p", "left_out", "-p", "no:cacheprovider", *arguments)
        return Step(part, name, argv, environment, self.work, report)

    def kernels(self) -> list[Step]:
        workers = max(1, min(12, self.machine.cores - 2))  # the cores are shared by worker, not by thread
        spread = ("-n", str(workers), "--dist", "worksteal") if self.machine.xdist and workers > 1 else ()
        return [self.pytest("kernels", "tests", *spread, "-p", "no:benchmark", *self.paths(self.scope.tests))]

    def sanitizer(self) -> list[Step]:
        files = self.paths(self.scope.sanitized)
        # Without torch's memory pool, where an access behind a tensor may end in its neighbour, unseen.
        pool = {"PYTORCH_NO_CUDA_MEMORY_CACHING": "1"}
        steps = []
        for tool in TOOLS:
            before = (
                str(self.machine.sanitizer),
                "--tool",
                tool,
                "--error-exitcode",
                str(FOUND),
                "--report-api-errors",
                "no",
                "--show-backtrace",
                "no",
                "--print-limit",
                "1000",
                "--target-processes",
                "application-only",
            )
            select = ("-p", "no:benchmark", "-k", f"{self.scope.device} and not compile and not graph", *files)
            steps.append(self.pytest("sanitizer", tool, *select, before=before, **pool))
        return steps

    def bench(self) -> list[Step]:
        return [self.benches("bench", self.scope.benches)]

    def train(self) -> list[Step]:
        return [self.benches("train", [ROOT / "bench/step.py"], *self.scope.train)]

    def paths(self, names: Sequence[str]) -> tuple[str, ...]:
        return tuple(str(ROOT / name) for name in names)

    def benches(self, part: str, files: Sequence[Path], *more: str) -> Step:
        out = self.benchmark_json(part)
        out.unlink(missing_ok=True)
        options = (
            f"--device={self.scope.device}",
            "--benchmark-only",
            f"--benchmark-json={out}",
            "--benchmark-columns=median,iqr,rounds",
            *more,
        )
        options += ("--import-mode=importlib",)  # names such as warp are packages elsewhere
        return self.pytest(part, part, *options, *map(str, files), threads=self.machine.cores)

    def benchmark_json(self, part: str) -> Path:
        return self.work / f"{part}_benchmarks.json"

    # Running and judging

    def part(self, name: str) -> bool:
        """Runs one part; True if all its steps are well."""
        if name == "sanitizer" and self.machine.sanitizer is None:
            self.add(
                name,
                name,
                "",
                None,
                "compute-sanitizer was not found: it comes with the CUDA toolkit (package "
                "cuda-sanitizer); put its folder on PATH or set CUDA_HOME",
            )
            return False
        if name != "build" and not list((self.site / "gcl_fast").glob("_C*")):
            self.add(name, name, "", None, "not run: there is no build in build/gpu-check/site (part build)")
            return False
        steps = self.steps(name)
        if name == "sanitizer":  # one tool leaves most of the GPU idle
            with ThreadPoolExecutor(len(steps)) as pool:
                return all(list(pool.map(self.step, steps)))
        return all(self.step(step) for step in steps)  # the first failure ends the part

    def step(self, step: Step) -> bool:
        seconds = min(SECONDS[step.part], self.deadline - time.monotonic())
        command = plain(" ".join(step.argv if step.name != "import" else (*step.argv[:2], "'import gcl_fast; ...'")))
        if seconds < 5:
            self.add(step.part, step.name, command, None, "not run: out of time")
            return False
        if step.report is not None:
            step.report.unlink(missing_ok=True)
        print(f"gpu-check: {step.name} ...", flush=True)
        outcome = self.runner(step, seconds)
        report = read_json(step.report)
        why = self.judge(step, outcome, report)
        print(f"gpu-check: {step.name}: {'ok' if why is None else why} ({outcome.seconds:.0f} s)", flush=True)
        if why is not None:
            print(outcome.output[-TAIL:], flush=True)
        self.add(step.part, step.name, command, outcome, why, report)
        if step.part == "kernels" and report:
            self.tested = report
        if step.part in BENCHES:
            found = read_json(self.benchmark_json(step.part))
            self.benchmarks += [brief(entry) for entry in (found or {}).get("benchmarks", [])]
        return why is None

    def judge(self, step: Step, outcome: Outcome, report: dict | None) -> str | None:
        """None if all is well, else what is wrong."""
        if outcome.timed_out:
            return f"ended after {outcome.seconds:.0f} s, its time limit"
        if step.part == "build":
            return None if outcome.code == 0 else f"exit code {outcome.code}"
        ours, others = findings(outcome.output)
        foreign = step.name in ("racecheck", "initcheck", "synccheck") and others and not ours
        if step.part == "sanitizer" and (ours or (others and not foreign)):
            return f"{len(ours) + len(others)} findings"
        if outcome.code != 0 and not (foreign and outcome.code == FOUND):
            return f"exit code {outcome.code}"
        if step.part in BENCHES:
            return None if read_json(self.benchmark_json(step.part)) else "wrote no benchmark JSON"
        if report is None:
            return "pytest wrote no report"
        if report["failed"]:
            return f"{report['failed']} tests failed"
        if not report[f"passed_on_{self.scope.device}"]:
            return f"no test passed on {self.scope.device.upper()}: it was not tested"
        native = [entry["test"] for entry in report["left_out"] if any(name in entry["test"] for name in NATIVE_OP_TESTS)]
        return f"tests of native ops were left out: {', '.join(native[:3])}" if native else None

    def add(
        self, part: str, name: str, command: str, outcome: Outcome | None, why: str | None, report: dict | None = None
    ) -> None:
        result: dict = {"part": part, "name": name, "ok": why is None, "command": command}
        if outcome is None:
            print(f"gpu-check: {name}: {why}", flush=True)
        else:
            result |= {"exit_code": outcome.code, "seconds": round(outcome.seconds, 1)}
        if why is not None:
            result["why"] = why
        if report is not None:
            result["tests"] = {key: report[key] for key in ("passed", f"passed_on_{self.scope.device}", "failed")}
            result["tests"] |= {key: len(report[key]) for key in ("skipped", "left_out")}
            result |= {"failed_tests": report["failed_tests"]} if report["failed_tests"] else {}
        if outcome is not None and name == "import" and why is None:
            result["says"] = plain(outcome.output.strip())
        if outcome is not None and part == "sanitizer":
            result["findings_elsewhere"] = len(findings(outcome.output)[1])
        if outcome is not None and why is not None:
            result["output_tail"] = plain(outcome.output[-TAIL:])
        self.results.append(result)


def main(
    argv: Sequence[str] | None = None,
    *,
    runner: Runner = run,
    machine: Machine | None = None,
    work: Path | None = None,
    scope: Scope = Scope(),
) -> int:
    parser = argparse.ArgumentParser(prog="gpu-check", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=PARTS, action="append", help="one part (may be repeated); the build must be there")
    parser.add_argument("--out", type=Path, default=ROOT / "bench/results/gpu_check.json", help="where the JSON goes")
    parser.add_argument("--seconds", type=float, default=540, help="for everything together")
    options = parser.parse_args(argv)

    machine = machine or inspect()
    if machine.why_not is not None:
        print(f"gpu-check: {machine.why_not}", file=sys.stderr)
        return 1
    begin = time.monotonic()
    check = Check(machine, runner, work or ROOT / "build/gpu-check", options.seconds, scope)
    check.work.mkdir(parents=True, exist_ok=True)
    asked = [part for part in PARTS if part in (options.only or PARTS)]
    if "build" in asked:
        shutil.rmtree(check.site, ignore_errors=True)
    ok = True
    for part in asked:
        ok = check.part(part) and ok
        summary = {
            "ok": ok and part == asked[-1],
            "parts_asked": asked,
            "device": machine.device,
            "compute_capability": machine.capability,
            "cores": machine.cores,
            "python": machine.python,
            "torch": machine.torch,
            "torch_cuda": machine.torch_cuda,
            "commit": commit(),
            "command": plain(" ".join(["python", "bench/gpu_check.py", *(sys.argv[1:] if argv is None else argv)])),
            "seconds": round(time.monotonic() - begin, 1),
            "parts": check.results,
            "missing_packages": sorted({entry["needs"] for entry in check.tested.get("left_out", [])}),
            "left_out": check.tested.get("left_out", []),
            "skipped": check.tested.get("skipped", []),
            "benchmarks": check.benchmarks,
        }
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(summary, indent=1) + "\n")  # after each part: what is cut short is still told
        options.out.with_suffix(".txt").write_text(table(summary))
    print(f"gpu-check: {'all is well' if ok else 'FAILED'}; {plain(str(options.out))}")
    return 0 if ok else 1


if __name__ == "__main__":
    sys.exit(main())
