"""Cores of this machine: which may be used, which are free, and whether steps became slow because they are not."""

from __future__ import annotations

import os
import statistics
import time
from collections import deque
from pathlib import Path

SAMPLE = 0.25  # seconds of watching
SLOW = 3.0  # times the usual step
LEARN, RECENT = 20, 5  # steps that tell what is usual, and what is now
LEAST = 2.0  # seconds that the slow steps must have cost, to be worth a word


def cores() -> set[int]:
    """The numbers of the cores that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return os.sched_getaffinity(0)
    return set(range(os.cpu_count() or 1))


def allowed_cores() -> float:
    """How many cores' time this process may use: its cores, or the limit of its container where that is less."""
    count = float(len(cores()))
    for folder, quota_name, period_name in (
        ("/sys/fs/cgroup", "cpu.max", None),
        ("/sys/fs/cgroup/cpu", "cpu.cfs_quota_us", "cpu.cfs_period_us"),
    ):
        try:
            words = Path(folder, quota_name).read_text().split()
            quota = words[0]
            period = words[1] if period_name is None else Path(folder, period_name).read_text()
            if quota != "max" and int(quota) > 0:
                count = min(count, int(quota) / int(period))
        except (OSError, ValueError, IndexError):  # no such group or limit
            continue
    return count


def _idle(stat: str, numbers: set[int]) -> tuple[int, int]:
    """(idle ticks, all ticks) of the cores, from /proc/stat."""
    idle = total = 0
    for line in stat.splitlines():
        name, *fields = line.split()
        if name.startswith("cpu") and name[3:].isdecimal() and int(name[3:]) in numbers:
            ticks = [int(field) for field in fields[:8]]  # guests are within user time
            idle, total = idle + ticks[3] + ticks[4], total + sum(ticks)
    return idle, total


def free_cores(seconds: float) -> float | None:
    """How many of this process's cores were idle while it slept for `seconds`; None where the system does not say."""
    numbers = cores()
    try:
        before = _idle(Path("/proc/stat").read_text(), numbers)
        time.sleep(seconds)
        after = _idle(Path("/proc/stat").read_text(), numbers)
    except (OSError, ValueError, IndexError):
        return None
    spent = after[1] - before[1]
    return len(numbers) * (after[0] - before[0]) / spent if spent > 0 else None


class StepWatch:
    """Notices when steps become much slower than they were, and says once that others may have taken the cores."""

    def __init__(self, threads: int) -> None:
        self.threads, self.usual, self.said = threads, 0.0, False
        self._first: list[float] = []
        self._recent: deque[float] = deque(maxlen=RECENT)

    def step(self, seconds: float) -> str:
        """After each step; the words to print, nearly always none."""
        if len(self._first) < LEARN:
            self._first.append(seconds)
            self.usual = statistics.median(self._first)
            return ""
        self._recent.append(seconds)
        now = statistics.median(self._recent)
        lost = len(self._recent) * (now - self.usual)
        if self.said or self.threads < 2 or len(self._recent) < RECENT or now < SLOW * self.usual or lost < LEAST:
            return ""
        self.said = True
        return (
            f"steps take {now:.2f} s, {self.usual:.2f} s before: if another process took one of the cores, {self.threads} "
            "threads wait for the one that has none; Ctrl-C, then --resume with --threads 1 (or one for each free core) is faster"
        )
