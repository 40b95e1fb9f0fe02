"""The parent of the process that measures: starts it, ends it where a number takes too long, starts it anew after a crash.

A number that takes its process with it (a crash, a hang, no memory) fails; those after it are measured by the next process.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.gpu_check.catalogue import Number
from bench.gpu_check.machine import plain
from bench.gpu_check.records import Records

LOOK = 0.2  # seconds between two looks at the process
START = 90.0  # seconds that a process may take before its first number


class Measurements:
    """Runs numbers in processes of their own, one after the other."""

    def __init__(
        self, records: Records, *, kind: str, toy: bool, env: Mapping[str, str], work: Path, tested: Path | None = None
    ) -> None:
        self.records, self.kind, self.toy, self.env, self.work, self.tested = records, kind, toy, dict(env), work, tested
        self.again = False  # try again what was left out: packages may have come
        self.start = 10 * START if toy else START
        self.tried: set[str] = set()  # in this run
        self.command = [sys.executable, "-m", "bench.gpu_check.worker"]

    def open(self, numbers: Sequence[Number]) -> list[Number]:
        """Those without a result yet; what a kill or a crash took comes last."""
        ended, cut = self.records.ended(), self.records.cut()
        done = ("ok",) if self.again else ("ok", "left_out")
        left = [n for n in numbers if ended.get(n.key, {}).get("status") not in done and n.key not in self.tried]
        return [n for n in left if n.key not in cut] + [n for n in left if n.key in cut]

    def run(self, numbers: Sequence[Number], until: float) -> None:
        """Measure what is open until the wall-clock time `until`; each number is tried once."""
        while True:
            left = [n for n in self.open(numbers) if time.time() + n.expected <= until]
            if not left:
                return
            before = {line["key"]: line["time"] for line in self.records.mine() if line["kind"] == "begun"}
            why = self._process(left, until)
            begun = {line["key"]: line["time"] for line in self.records.mine() if line["kind"] == "begun"}
            new = {key for key, when in begun.items() if when != before.get(key)}
            self.tried |= new
            if not new:
                if why is not None:
                    self._failed(left[0], f"the process that measures began nothing: {why}")
                    self.tried |= {number.key for number in left}
                return
            if why is not None and time.time() < until:  # else the time was over: the next run takes it up
                for number in left:
                    if number.key in self.records.cut() & new:
                        self._failed(number, why)

    def _failed(self, number: Number, why: str) -> None:
        self.records.add(
            "number",
            number.key,
            part=number.part,
            implementation=number.implementation,
            case=number.case,
            goal_seconds=number.goal,
            status="failed",
            why=why,
        )
        print(f"gpu-check: {number.key}: failed: {why}", flush=True)

    def _process(self, numbers: Sequence[Number], until: float) -> str | None:
        """One process; None if it ended well, else what happened."""
        job = {
            "keys": [number.key for number in numbers],
            "until": until,
            "kind": self.kind,
            "toy": self.toy,
            "results": str(self.records.path.resolve()),
            "identity": self.records.identity,
            "commit": self.records.commit,
            "tested": str(self.tested) if self.tested else None,
            "code": str(self.work / "machine_code.json"),
        }
        log = self.work / "measuring.log"
        limits = {number.key: number.limit for number in numbers}
        with log.open("wb") as errors:
            process = subprocess.Popen(
                self.command,
                cwd=self.work,
                env=os.environ | self.env,
                stdin=subprocess.PIPE,
                stderr=errors,
                start_new_session=True,
            )
            try:
                assert process.stdin is not None
                process.stdin.write(json.dumps(job).encode())
                process.stdin.close()
            except BrokenPipeError:
                pass
            try:
                overdue = self._watch(process, limits, until)
            finally:
                _end(process)
        if overdue is not None:
            return overdue
        if process.returncode == 0:
            return None
        said = plain(log.read_text(errors="replace")[-1500:]).strip()
        name = f"signal {-process.returncode}" if process.returncode < 0 else f"exit code {process.returncode}"
        return f"its process ended with {name}{': ' + said if said else ''}"

    def _watch(self, process: subprocess.Popen[bytes], limits: Mapping[str, float], until: float) -> str | None:
        """Wait for the end; what was overdue, else None."""
        started = time.time()
        while process.poll() is None:
            time.sleep(LOOK)
            now = time.time()
            if now >= until:
                return "the time of the whole check was over"
            last = self._last_line(started)
            if last is None and now - started > self.start:
                return f"the process that measures began nothing in {self.start:.0f} s"
            if last is not None and last["kind"] == "begun" and now - last["time"] > limits.get(last["key"], 60.0):
                return f"ended after {limits.get(last['key'], 60.0):.0f} s, its time limit"
        return None

    def _last_line(self, since: float) -> dict[str, Any] | None:
        """What this process wrote last."""
        lines = [line for line in self.records.mine() if line["time"] >= since - 0.001]
        return lines[-1] if lines else None


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
