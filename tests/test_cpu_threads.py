"""Threads on a machine that others use too: as many as cores are free, and a word when steps become slow."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from gcl_fast.cli import waits
from gcl_fast.cli.doctor import examine
from gcl_fast.runs import cpu_threads
from gcl_fast.runs.cpu_threads import choose_threads, fitting_threads
from gcl_fast.stages import core_use
from gcl_fast.stages.core_use import StepWatch, allowed_cores, free_cores


@pytest.fixture
def two_cores(monkeypatch: pytest.MonkeyPatch):
    """A machine of two cores, one of them busy; torch's threads are put back."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    for name in cpu_threads.CHOSEN_BY:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(cpu_threads, "allowed_cores", lambda: 2.0)
    monkeypatch.setattr(cpu_threads, "free_cores", lambda _: 1.02)
    yield monkeypatch
    torch.set_num_threads(before)


@pytest.mark.parametrize(
    ("most", "allowed", "free", "threads"),
    [
        (2, 2.0, 2.0, 2),
        (2, 2.0, 1.75, 2),  # the system's own work
        (2, 2.0, 1.5, 1),
        (2, 2.0, 1.0, 1),
        (2, 2.0, 0.0, 1),
        (2, 2.0, None, 2),
        (32, 2.5, 60.0, 3),  # a container's limit on a large machine
        (8, 64.0, 60.0, 8),
        (8, 8.0, 5.1, 5),
    ],
)
def test_threads_fit_the_free_cores(most: int, allowed: float, free: float | None, threads: int) -> None:
    assert fitting_threads(most, allowed, free) == threads


def test_a_busy_core_takes_a_thread_away(two_cores: pytest.MonkeyPatch) -> None:
    words = choose_threads(0)
    assert torch.get_num_threads() == 1
    assert words == "threads: 1 instead of 2, since of 2 cores 1.0 are free now; --threads N chooses another number"
    torch.set_num_threads(2)
    two_cores.setattr(cpu_threads, "free_cores", lambda _: 1.9)
    assert choose_threads(0) == "" and torch.get_num_threads() == 2


def test_more_threads_than_cores_are_told(two_cores: pytest.MonkeyPatch) -> None:
    assert choose_threads(3) == "threads: 3 on 2 cores: they wait for each other" and torch.get_num_threads() == 3
    torch.set_num_threads(2)


def test_who_chooses_decides(two_cores: pytest.MonkeyPatch) -> None:
    assert choose_threads(2) == "" and torch.get_num_threads() == 2
    assert choose_threads(0, {"threads": 2}) == "" and torch.get_num_threads() == 2  # as the run had
    assert "4 in the run so far, 2 here" in choose_threads(0, {"threads": 4}) and torch.get_num_threads() == 2
    two_cores.setenv("OMP_NUM_THREADS", "2")
    assert choose_threads(0) == "" and torch.get_num_threads() == 2


def test_free_cores_are_counted_from_the_systems_ticks(tmp_path: Path) -> None:
    first = "cpu  9 9 9 9\ncpu0 100 0 50 800 50 0 0 0 0 0\ncpu1 10 5 5 80 0 0 0 0\ncpu12 7 7 7 7 7 0 0 0\nintr 5\n"
    assert core_use._idle(first, {0}) == (850, 1000)
    assert core_use._idle(first, {0, 1}) == (930, 1100)
    assert core_use._idle(first, {12}) == (14, 35)
    free = free_cores(0.02)
    assert free is None or 0 <= free <= len(core_use.cores()) + 1e-9
    assert 0 < allowed_cores() <= len(core_use.cores())


def test_slow_steps_are_told_once() -> None:
    watch = StepWatch(threads=2)
    said = [watch.step(0.5) for _ in range(30)] + [watch.step(0.6), watch.step(9.0), watch.step(0.5)]  # one slow step is none
    assert not any(said)
    said = [watch.step(4.0) for _ in range(20)]
    told = [words for words in said if words]
    assert len(told) == 1 and "steps take 4.00 s, 0.50 s before" in told[0] and "--threads 1" in told[0]
    alone = StepWatch(threads=1)
    assert not any(alone.step(seconds) for seconds in [0.5] * 30 + [4.0] * 30)
    quick = StepWatch(threads=2)
    assert not any(quick.step(seconds) for seconds in [0.001] * 30 + [0.01] * 30)  # nothing that anybody would notice


def test_waiting_threads_sleep_soon_unless_somebody_chose(monkeypatch: pytest.MonkeyPatch) -> None:
    late: dict[str, str] = {}
    waits.wait_briefly(late)  # torch has read it already
    assert not late
    monkeypatch.delitem(sys.modules, "torch")
    chosen = {"OMP_WAIT_POLICY": "ACTIVE"}
    waits.wait_briefly(chosen)
    assert chosen == {"OMP_WAIT_POLICY": "ACTIVE"}
    empty: dict[str, str] = {}
    waits.wait_briefly(empty)
    assert empty == waits.SHORT


def test_the_command_line_sets_it_before_torch_is_loaded() -> None:
    environment = {key: value for key, value in os.environ.items() if key not in waits.VARIABLES}
    shown = subprocess.run(
        [sys.executable, "-m", "gcl_fast", "doctor"], env=environment, capture_output=True, text=True, check=True
    ).stdout
    assert "GOMP_SPINCOUNT=10000" in shown and "threads wait" in shown


def test_the_doctor_tells_of_the_cores(two_cores: pytest.MonkeyPatch) -> None:
    two_cores.setattr(core_use, "allowed_cores", lambda: 2.0)
    two_cores.setattr(core_use, "free_cores", lambda _: 1.0)
    text = next(finding.text for finding in examine() if finding.name == "cores")
    assert text.startswith("2 may be used, 1.0 of") and "train would take 1 thread instead of 2" in text
