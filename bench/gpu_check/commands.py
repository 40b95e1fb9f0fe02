"""The commands of gpu-check's parts: the build, pytest on what was built, compute-sanitizer; and what ends them in time."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from bench.gpu_check.machine import ROOT, Machine

TOOLS = ("memcheck", "racecheck", "initcheck", "synccheck")
NATIVE_OP_TESTS = (  # of the ops with CUDA kernels of our own
    "test_rasterize.py",
    "test_interpolate.py",
    "test_reflect_pad.py",
    "test_render_mesh.py",
    "test_warp.py",
    "test_ranking.py",
    "test_neighbors.py",
    "test_neighbors_native.py",
    "test_knn_halves.py",
    "test_bank_nce.py",
    "test_bank_update.py",
    "test_gcl_memory_loss.py",
)
OWN_PACKAGES = ("bench", "tests")
OURS = "N3gcl"  # in the mangled name of every kernel of this package
FOUND = 86  # compute-sanitizer's exit code when it found something
BEYOND = {"racecheck": ("tests/test_knn_halves.py",)}  # it ends there in an internal error of its own (CUDA 13.0, H100)
SPARE = 30.0  # seconds of the part in which a tool of compute-sanitizer ends and says what it found


@dataclass(frozen=True)
class Scope:
    """Which tests the parts run, below the repository's root: all on CUDA, or a few for a rehearsal on a CPU."""

    kernels: tuple[str, ...] = ()
    sanitized: tuple[str, ...] = ()
    suite: tuple[str, ...] = ("tests",)


def full_scope() -> Scope:
    """The tests of the native ops, and those that are made for a GPU (tests/test_ops_cuda*.py)."""
    native = tuple(f"tests/{name}" for name in NATIVE_OP_TESTS)
    more = tuple(f"tests/{path.name}" for path in sorted((ROOT / "tests").glob("test_ops_cuda*.py")))
    return Scope(kernels=(*more, *native), sanitized=native)


_BANK = "tests/test_bank_update.py::test_update"
TOY_SCOPE = Scope(
    kernels=(f"{_BANK}_leaves_other_rows_and_handles_zero_and_strides",),
    sanitized=(f"{_BANK}_has_no_gradient",),
    suite=("tests/test_files.py",),
)


@dataclass(frozen=True)
class Step:
    """One command of a part.

    report the JSON that it writes, if any
    spare  if not 0, its tests end so many seconds before the part does, wherever they are then
    files  at least one test of each must have run
    """

    part: str
    name: str
    argv: tuple[str, ...]
    env: dict[str, str] = field(default_factory=dict)
    cwd: Path = ROOT
    report: Path | None = None
    spare: float = 0.0
    files: tuple[str, ...] = ()

    def ending(self, end: float) -> Step:
        """This step in a part that ends at `end`, seconds since the epoch."""
        return replace(self, env={**self.env, "GCL_TEST_UNTIL": f"{end - self.spare:.3f}"}) if self.spare else self


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
    finally:
        if process.poll() is None:  # Ctrl-C
            os.killpg(process.pid, 9)


@dataclass(frozen=True)
class Commands:
    """What to run on this machine.

    work   the folder of the build (work/site), of installed wheels (work/packages) and of reports
    wheels the folder of carried wheels, if any
    """

    machine: Machine
    work: Path
    scope: Scope
    wheels: Path | None = None

    @property
    def site(self) -> Path:
        return self.work / "site"

    @property
    def packages(self) -> Path:
        return self.work / "packages"

    @property
    def cuda(self) -> bool:
        return self.machine.kind == "cuda"

    def environment(self, *more: Path) -> dict[str, str]:
        """The build first on Python's path, then carried wheels, what the caller had last; their programs on PATH."""
        path = [self.site, *([self.packages] if self.wheels else []), *more]
        carried = {"PATH": f"{self.packages / 'bin'}{os.pathsep}{os.environ.get('PATH', '')}"} if self.wheels else {}
        return {"PYTHONPATH": os.pathsep.join([*map(str, path), *filter(None, [os.environ.get("PYTHONPATH")])]), **carried}

    def build(self, *, copied: bool = False) -> list[Step]:
        """copied: a rehearsal takes the module that the checkout has, if it has one."""
        steps = [self.unpack()] if self.wheels else []
        if copied and list((ROOT / "gcl_fast").glob("_C*.so")):
            code = (
                "import pathlib, shutil, sys\n"
                "root, site = map(pathlib.Path, sys.argv[1:])\n"
                "skip = shutil.ignore_patterns('__pycache__')\n"
                "shutil.copytree(root / 'gcl_fast', site / 'gcl_fast', ignore=skip)\n"
                "shutil.copytree(root / 'configs', site / 'gcl_fast/configs', dirs_exist_ok=True)\n"
            )
            return [*steps, Step("build", "copy", (sys.executable, "-c", code, str(ROOT), str(self.site))), self.see()]
        flags = {
            "GCL_CUDA": str(int(self.cuda)),
            "GCL_CUDA_ARCHITECTURES": self.machine.capability,
            "GCL_BUILD_DIR": str(self.work / "tree"),
        }
        setup = (sys.executable, "setup.py", "-q", "build", "--build-base", str(self.work), "--build-lib", str(self.site))
        wheels = {name: value for name, value in self.environment().items() if self.wheels}  # cmake and ninja may be carried
        return [*steps, Step("build", "build", setup, flags | wheels), self.see()]

    def unpack(self) -> Step:
        """Carried wheels into work/packages; those made for another Python or system are passed over, and said."""
        argv = (sys.executable, "-m", "bench.gpu_check.wheels", str(self.wheels), str(self.packages))
        return Step("build", "wheels", argv, {"PYTHONPATH": str(ROOT)})

    def see(self) -> Step:
        """Imports what was built, and says what it is."""
        code = (
            "import json, sys, torch, gcl_fast\n"
            "from gcl_fast import _native\n"
            "info = _native.info()\n"
            "print(json.dumps({'kernels': info.loaded, 'cuda': info.cuda_version, 'architectures': list(info.architectures),\n"
            "                  'error': info.error, 'from': gcl_fast.__file__}))\n"
            f"sys.exit(not (info.loaded and (info.cuda or {not self.cuda})))"
        )
        return Step("build", "import", (sys.executable, "-c", code), self.environment(), self.work)

    def kernels(self) -> list[Step]:
        """The ops on CUDA; on a CPU in its place, on that."""
        select = ("-p", "no:benchmark", "-k", self.machine.kind, *self.spread(), *self.paths(self.scope.kernels))
        return [self.pytest("kernels", "kernels", *select)]

    def suite(self) -> list[Step]:
        """All tests, in a copy of the checkout with the built module in it: they start programs of their own there."""
        root = self.work / "checkout"
        copy = (sys.executable, "-m", "bench.gpu_check.checkout", str(ROOT), str(self.site), str(root))
        tests = (str(root / name) for name in self.scope.suite)
        select = (*self.spread(), "-p", "no:benchmark", *tests)
        return [Step("suite", "checkout", copy, {"PYTHONPATH": str(ROOT)}), self.pytest("suite", "suite", *select, root=root)]

    def spread(self) -> tuple[str, ...]:
        workers = max(1, min(12, self.machine.cores - 2))  # the cores are shared by worker, not by thread
        return ("-n", str(workers), "--dist", "worksteal") if self.machine.xdist and workers > 1 else ()

    def sanitizer(self) -> list[Step]:
        """Each tool over some files at a time, all at once. Only kernels of ours are looked at; but by initcheck all are, which
        must see who wrote what ours read. What does not fit into the part's time is left; some of every file is tested. On a
        CPU the same tests run without it."""
        select = ("-p", "no:benchmark", "-k", f"{self.machine.kind} and not compile and not graph")
        names = tuple(dict.fromkeys(name.partition("::")[0] for name in self.scope.sanitized))
        if not self.cuda and self.machine.sanitizer is None:
            step = self.pytest("sanitizer", "without a sanitizer", *select, *self.paths(self.scope.sanitized))
            return [replace(step, spare=SPARE, files=names)]
        # Without torch's memory pool, where an access behind a tensor may end in its neighbour, unseen.
        pool = {"PYTORCH_NO_CUDA_MEMORY_CACHING": "1"}
        steps = []
        groups = max(1, min(len(names), self.machine.cores // len(TOOLS)))  # a core for each process
        for number in range(groups):
            for tool in TOOLS:
                files = tuple(name for name in names[number::groups] if name not in BEYOND.get(tool, ()))
                if not files:
                    continue
                tests = self.paths([test for test in self.scope.sanitized if test.partition("::")[0] in files])
                before = [str(self.machine.sanitizer), "--tool", tool, "--error-exitcode", str(FOUND)]
                before += ["--report-api-errors", "no", "--show-backtrace", "no", "--print-limit", "1000"]
                before += ["--target-processes", "application-only"]
                before += [] if tool == "initcheck" else ["--kernel-name", f"kns={OURS}"]
                step = self.pytest("sanitizer", f"{tool} {number + 1}", *select, *tests, before=tuple(before), **pool)
                steps.append(replace(step, spare=SPARE, files=files))
        return steps

    def pytest(self, part: str, name: str, *arguments: str, before: tuple[str, ...] = (), root: Path = ROOT, **env: str) -> Step:
        """pytest on this build, not on the checkout's gcl_fast: begun elsewhere, and the checkout comes last on the path. root:
        where the tests are, the checkout or a copy with the build in it."""
        report = self.work / f"{name.replace(' ', '_')}.json"
        environment = self.environment(ROOT)
        first = self.own_packages() if root == ROOT else root
        environment |= {
            "PYTHONPATH": os.pathsep.join([str(first), environment["PYTHONPATH"]]),
            "GCL_TEST_REPORT": str(report),
            "GCL_TESTED": str(self.site if root == ROOT else root),
            "GCL_TEST_DEVICE": self.machine.kind,
            "OMP_NUM_THREADS": "1",
            **env,
        }
        argv = (*before, sys.executable, "-m", "pytest", "-c", str(root / "pyproject.toml"), "--rootdir", str(root))
        argv += ("-o", "addopts=-ra", "--import-mode=append", "-q", "-p", "bench.gpu_check.left_out", "-p", "no:cacheprovider")
        return Step(part, name, (*argv, *arguments), environment, self.work, report)

    def own_packages(self) -> Path:
        """A folder for the front of the path with the checkout's packages but gcl_fast: some wheels bring a "tests" of theirs."""
        folder = self.work / "own"
        folder.mkdir(parents=True, exist_ok=True)
        for name in OWN_PACKAGES:
            if not (folder / name).exists():
                (folder / name).symlink_to(ROOT / name, target_is_directory=True)
        return folder

    def paths(self, names: Sequence[str]) -> tuple[str, ...]:
        return tuple(str(ROOT / name) for name in names)
