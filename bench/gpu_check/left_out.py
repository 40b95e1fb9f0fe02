"""pytest plugin of gpu-check: a test that fails because an optional package is missing is left out, with the package's name.

Only that is left out: the package is one of OPTIONAL, it cannot be found here, and the error, one that caused it, or what
the test printed says that it is missing. Everything else stays a failure. What happened is written to $GCL_TEST_REPORT;
$GCL_TESTED is the folder that gcl_fast must come from.

$GCL_TEST_UNTIL (seconds since the epoch), where it is set, is when testing ends: the test that runs then is cut off, those after
it are skipped, and all of them are counted as not reached. The order is then such that some of each file are tested early.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import signal
import threading
import time
from collections.abc import Generator, Iterable, Sequence
from itertools import zip_longest
from pathlib import Path

import pytest

# import name -> name to install
OPTIONAL = {
    "anny": "anny",
    "faiss": "faiss-gpu",
    "matplotlib": "matplotlib",
    "nvidia.dali": "nvidia-dali-cuda130",
    "PIL": "pillow",
    "rich": "rich",
    "safetensors": "safetensors",
    "scipy": "scipy",
    "sklearn": "scikit-learn",
    "smplx": "smplx",
    "tensorboard": "tensorboard",
    "torchmetrics": "torchmetrics",
    "torchvision": "torchvision",
    "tyro": "tyro",
    "yaml": "pyyaml",
}
MARK = "left out: needs "
NOT_REACHED = "not reached in the time"
UNTIL = float(os.environ.get("GCL_TEST_UNTIL", "inf"))
DEVICE = os.environ.get("GCL_TEST_DEVICE", "cuda")  # that is to be tested


def present(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except (ImportError, ValueError):
        return False


def missing() -> dict[str, str]:
    """The optional packages that are not here: import name -> name to install."""
    return {module: package for module, package in OPTIONAL.items() if not present(module)}


def needs(texts: Iterable[str]) -> str | None:
    """The missing package that one of the texts names as missing."""
    for text in texts:
        for module, package in missing().items():
            names = "|".join(re.escape(name) for name in (module, package))
            modules = "|".join(re.escape(name) for name in (module, module.split(".")[0]))
            said = rf"No module named '({modules})['.]|\bneeds (the package )?({names})\b|pip install '?({names})\b"
            if re.search(said, text, re.IGNORECASE):
                return package
    return None


def messages(error: BaseException | None) -> list[str]:
    """What an error and those that caused it say."""
    found: list[str] = []
    while error is not None and len(found) < 20:
        found.append(f"{type(error).__name__}: {error}")
        error = error.__cause__ or error.__context__
    return found


def in_turns(groups: Iterable[Sequence]) -> list:
    """The first of each group, then the second of each, and so on."""
    return [one for turn in zip_longest(*groups) for one in turn if one is not None]


def early(items: Iterable) -> list:
    """The tests in the order in which every op is reached early: files take turns, and in a file its test functions."""
    files: dict[Path, dict[str, list]] = {}
    for item in items:
        files.setdefault(item.path, {}).setdefault(item.nodeid.partition("[")[0], []).append(item)
    return in_turns(in_turns(functions.values()) for functions in files.values())


@pytest.hookimpl(trylast=True)  # after -k
def pytest_collection_modifyitems(items: list) -> None:
    if "GCL_TEST_UNTIL" in os.environ:
        items[:] = early(items)


class _Clock:
    """Cuts off the test that runs at UNTIL: one slow test must not take what its tool needs to end. Signals reach Python's main
    thread alone, and SIGALRM is pytest-timeout's; between tests, and in pytest's own code, nothing may be raised."""

    in_test = False

    def start(self) -> None:
        signal.signal(signal.SIGUSR1, self.cut)
        main = threading.main_thread().ident
        timer = threading.Timer(max(0.0, UNTIL - time.time()), lambda: signal.pthread_kill(main, signal.SIGUSR1))
        timer.daemon = True
        timer.start()

    def cut(self, *_) -> None:
        if self.in_test:
            self.in_test = False
            pytest.skip(NOT_REACHED)


clock = _Clock()


def pytest_configure(config) -> None:
    if "GCL_TEST_UNTIL" in os.environ:
        clock.start()


def _skip_if_late() -> None:
    if time.time() > UNTIL:
        pytest.skip(NOT_REACHED)


@pytest.hookimpl(tryfirst=True)  # before any fixture
def pytest_runtest_setup(item) -> None:
    _skip_if_late()


@pytest.hookimpl(hookwrapper=True, trylast=True)
def pytest_runtest_call(item) -> Generator[None, object, None]:
    _skip_if_late()  # it was time while a fixture was made
    clock.in_test = True
    yield
    clock.in_test = False


def _leave_out(report, call, where) -> None:
    if report.outcome != "failed" or call is None or call.excinfo is None:
        return
    printed = [text for _, text in report.sections] if isinstance(call.excinfo.value, (AssertionError, SystemExit)) else []
    package = needs([*messages(call.excinfo.value), *printed])
    if package is not None:
        report.outcome = "skipped"
        report.longrepr = (str(where), 0, f"{MARK}{package}")


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call) -> Generator[None, object, None]:
    outcome = yield
    _leave_out(outcome.get_result(), call, item.path)


@pytest.hookimpl(hookwrapper=True)
def pytest_make_collect_report(collector) -> Generator[None, object, None]:
    outcome = yield
    report = outcome.get_result()
    _leave_out(report, getattr(report, "call", None), collector.path)


class _Tally:
    def __init__(self) -> None:
        self.counts = {"passed": 0, f"passed_on_{DEVICE}": 0}
        self.failed: set[str] = set()  # each worker of pytest-xdist reports a file that does not import
        self.skipped: dict[str, str] = {}
        self.left_out: dict[str, str] = {}
        self.not_reached: set[str] = set()
        self.files: set[str] = set()  # of which a test passed or failed

    def add(self, report, *, counts: bool) -> None:
        reason = report.longrepr[2] if report.skipped and isinstance(report.longrepr, tuple) else ""
        if reason.startswith(MARK):
            self.left_out[report.nodeid] = reason.removeprefix(MARK)
        elif reason.endswith(NOT_REACHED):
            self.not_reached.add(report.nodeid)
        elif report.failed:
            self.failed.add(report.nodeid)
        elif report.skipped:
            self.skipped[report.nodeid] = reason.removeprefix("Skipped: ")
        elif counts:
            self.counts["passed"] += 1
            self.counts[f"passed_on_{DEVICE}"] += DEVICE in report.nodeid.partition("[")[2]


tally = _Tally()


def pytest_sessionstart(session) -> None:
    """Stops where another gcl_fast than the one to test would be tested."""
    expected = os.environ.get("GCL_TESTED")
    if expected:
        import gcl_fast

        if Path(expected).resolve() not in Path(gcl_fast.__file__).resolve().parents:
            pytest.exit(f"gcl_fast was imported from {gcl_fast.__file__}, not from {expected}", returncode=3)


def pytest_runtest_logreport(report) -> None:
    if report.when == "call" or not report.passed:
        tally.add(report, counts=True)
        if not report.skipped:
            tally.files.add(report.nodeid.partition("::")[0])


def pytest_collectreport(report) -> None:
    tally.add(report, counts=False)


def pytest_sessionfinish(session) -> None:
    path = os.environ.get("GCL_TEST_REPORT")
    if path and not hasattr(session.config, "workerinput"):  # not in the workers of pytest-xdist
        found = {
            **tally.counts,
            "failed": len(tally.failed),
            "failed_tests": sorted(tally.failed),
            "skipped": [{"test": test, "reason": reason} for test, reason in sorted(tally.skipped.items())],
            "left_out": [{"test": test, "needs": package} for test, package in sorted(tally.left_out.items())],
            "not_reached": len(tally.not_reached),
            "files": sorted(tally.files),
        }
        Path(path).write_text(json.dumps(found))
