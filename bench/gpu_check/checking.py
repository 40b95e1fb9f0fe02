"""The parts of gpu-check in their order, each in its share of the time, and what is written about them."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from bench import machine_code
from bench.gpu_check.catalogue import Number
from bench.gpu_check.commands import Commands, Outcome, Runner, Step
from bench.gpu_check.judging import findings, judge, read_json
from bench.gpu_check.machine import ROOT, plain
from bench.gpu_check.records import Records, write_whole
from bench.gpu_check.table import markdown
from bench.gpu_check.watching import Measurements

PARTS = ("build", "kernels", "targets", "train", "sanitizer", "suite")
NUMBERS = ("targets", "train")
# At most, in a part's turn; numbers have a second turn after the sanitizer. A rehearsal has no such limits.
SECONDS = {
    "build": 240,
    "kernels": 90,
    "targets": 170,
    "train": 100,
    "sanitizer": 150,
    "suite": 400,
}  # at most, in the first round
LEAST = {"build": 5, "kernels": 5, "sanitizer": 45, "suite": 40}  # seconds below which a part is left for the next run
TAIL = 6000  # characters


class Check:
    """Runs the parts that are asked for; what is done already, by an earlier run of the same source on this device, is left out.

    Results go to <results>/<name>.jsonl as they come; .json and .md beside it are written anew after each part.
    """

    def __init__(
        self, commands: Commands, records: Records, numbers: Sequence[Number], *, seconds: float, toy: bool, runner: Runner
    ) -> None:
        self.commands, self.records, self.numbers, self.toy, self.runner = commands, records, list(numbers), toy, runner
        self.begin, self.until = time.time(), time.time() + seconds
        self.command = ""
        self.measurements = Measurements(
            records,
            kind=commands.machine.kind,
            toy=toy,
            env={"OMP_NUM_THREADS": "1" if toy else str(commands.machine.cores)},
            work=commands.work,
            tested=commands.site,
        )
        self.measurements.again = commands.wheels is not None
        self.measurements.env |= commands.environment(ROOT)

    def run(self, parts: Sequence[str], command: str) -> bool:
        """True if every part asked for is well and nothing is left."""
        self.command, asked = command, [part for part in PARTS if part in parts]
        for part in asked:
            if part == "suite":
                self._numbers([p for p in NUMBERS if p in asked], self.until)  # what did not fit before
            if part in NUMBERS:
                self._numbers([part], min(self.until, time.time() + self.share(part)))
            elif part == "build":
                self._build()
            else:
                self._part(part)
            self.write(asked)
        if "suite" not in asked:
            self._numbers([p for p in NUMBERS if p in asked], self.until)
        return bool(self.write(asked)["ok"])

    # Parts

    def share(self, part: str) -> float:
        return float("inf") if self.toy else SECONDS[part]

    def _build(self) -> None:
        site, stamp = self.commands.site, self.commands.work / "built.json"
        if self.built() and read_json(stamp) == self._stamp() and self._done("build"):
            print("gpu-check: build: done before", flush=True)
            return
        stamp.unlink(missing_ok=True)
        shutil.rmtree(site, ignore_errors=True)
        self._steps("build", self.commands.build(copied=self.toy and not self.commands.cuda))
        if self._done("build"):
            stamp.write_text(json.dumps(self._stamp()))
            self._count_instructions()

    def _stamp(self) -> dict[str, Any]:
        return {**self.records.identity, "capability": self.commands.machine.capability}

    def built(self) -> bool:
        return bool(list((self.commands.site / "gcl_fast").glob("_C*")))

    def _count_instructions(self) -> None:
        """Registers, spills and instructions of the kernels of this architecture, for the tables; nothing hangs on them."""
        target = self.commands.work / "machine_code.json"
        target.unlink(missing_ok=True)
        if not self.commands.cuda:
            return
        try:
            module = next((self.commands.site / "gcl_fast").glob("_C*.so"))
            kernels = machine_code.read_module(module, f"sm_{self.commands.machine.capability}")
            target.write_text(json.dumps([machine_code.as_dict(kernel) for kernel in kernels]))
        except (FileNotFoundError, RuntimeError, StopIteration) as error:
            print(f"gpu-check: instructions are not counted: {plain(str(error))}", flush=True)

    def _part(self, part: str) -> None:
        if self._done(part):
            print(f"gpu-check: {part}: done before", flush=True)
        elif not self.built():
            self._ended(part, "failed", [], f"not run: there is no build in {plain(str(self.commands.site))} (part build)")
        elif not self.commands.machine.pytest and not self._carries("pytest"):
            self._ended(part, "failed", [], "not run: pytest is not here; carry its wheels in a folder and give it: --wheels DIR")
        elif part == "sanitizer" and self.commands.cuda and self.commands.machine.sanitizer is None:
            why = (
                "compute-sanitizer was not found: it comes with the CUDA toolkit (package cuda-sanitizer); put its folder on PATH"
            )
            self._ended(part, "failed", [], f"{why} or set CUDA_HOME")
        else:
            self._steps(part, getattr(self.commands, part)())

    def _carries(self, package: str) -> bool:
        return self.commands.wheels is not None and (self.commands.packages / package).is_dir()

    def _done(self, part: str) -> bool:
        return self.records.ended().get(f"part {part}", {}).get("status") == "ok"

    def _steps(self, part: str, steps: Sequence[Step]) -> None:
        seconds = min(self.share(part), self.until - time.time())
        if seconds < LEAST[part] and not (self.toy and seconds > 1):
            print(f"gpu-check: {part}: no time left, the next run begins with it", flush=True)
            return
        end, told = time.time() + seconds, []
        if part == "sanitizer":  # one tool leaves most of the GPU idle
            with ThreadPoolExecutor(len(steps)) as pool:
                told = list(pool.map(lambda step: self._step(step, end), steps))
        else:
            for step in steps:  # the first failure ends the part
                told.append(self._step(step, end))
                if "why" in told[-1]:
                    break
        failed = [step for step in told if "why" in step]
        why = "; ".join(f"{step['name']}: {step['why']}" for step in failed)
        if part == "sanitizer":  # how much of it was tested is to be known where it is well, too
            why = "; ".join(filter(None, [*_tested(told), why]))
        self._ended(part, "failed" if failed else "ok", told, why)

    def _ended(self, part: str, status: str, steps: Sequence[dict[str, Any]], why: str) -> None:
        if why:
            print(f"gpu-check: {part}: {why}", flush=True)
        self.records.add("part", f"part {part}", status=status, steps=list(steps), **({"why": why} if why else {}))

    def _step(self, step: Step, end: float) -> dict[str, Any]:
        if step.report is not None:
            step.report.unlink(missing_ok=True)
        print(f"gpu-check: {step.name} ...", flush=True)
        outcome = self.runner(step.ending(end), max(1.0, end - time.time()))
        report = read_json(step.report)
        why = judge(step, outcome, report, self.commands.machine.kind)
        print(f"gpu-check: {step.name}: {'ok' if why is None else why} ({outcome.seconds:.0f} s)", flush=True)
        if why is not None:
            print(outcome.output[-TAIL:], flush=True)
        return self._told(step, outcome, report, why)

    def _told(self, step: Step, outcome: Outcome, report: dict | None, why: str | None) -> dict[str, Any]:
        shown = step.argv if step.name not in ("import", "copy") else (*step.argv[:2], "'...'")
        told: dict[str, Any] = {
            "name": step.name,
            "command": plain(" ".join(shown)),
            "exit_code": outcome.code,
            "seconds": round(outcome.seconds, 1),
        }
        if report is not None:
            told["tests"] = {key: report[key] for key in ("passed", f"passed_on_{self.commands.machine.kind}", "failed")}
            told["tests"] |= {key: len(report[key]) for key in ("skipped", "left_out")}
            told["tests"]["not_reached"] = report["not_reached"]
            told |= {key: report[key] for key in ("failed_tests", "left_out") if report[key]}
        if step.name in ("import", "wheels") and why is None:
            told["says"] = plain(outcome.output.strip())
        if step.part == "sanitizer":
            told["findings_elsewhere"] = len(findings(outcome.output)[1])
        if why is not None:
            told |= {"why": why, "output_tail": plain(outcome.output[-TAIL:])}
        return told

    def _numbers(self, parts: Sequence[str], until: float) -> None:
        numbers = [number for number in self.numbers if number.part in parts]
        left = self.measurements.open(numbers)
        if not left:
            return
        if not self.built():
            print(f"gpu-check: {', '.join(parts)}: not measured: there is no build (part build)", flush=True)
            return
        print(f"gpu-check: {len(left)} numbers to measure ...", flush=True)
        self.measurements.run(numbers, until)

    # What is written

    def state_of(self, part: str) -> dict[str, Any]:
        """A part of the summary: ok, failed, or left for the next run."""
        ended = self.records.ended()
        if part not in NUMBERS:
            line = ended.get(f"part {part}")
            if line is None:
                return {"part": part, "status": "left", "why": "not run yet"}
            return {"part": part, **{key: line[key] for key in ("status", "why", "steps", "commit") if key in line}}
        keys = [number.key for number in self.numbers if number.part == part]
        by = {status: [k for k in keys if ended.get(k, {}).get("status") == status] for status in ("ok", "failed", "left_out")}
        left = [key for key in keys if key not in ended]
        measured = sum(ended[key]["implementation"] != "product" for key in by["ok"])
        status = "failed" if by["failed"] else "left" if left else "ok" if measured else "failed"
        why = f"{len(by['ok'])} of {len(keys)} measured"
        for title, names in (("failed", by["failed"]), ("left for the next run", left), ("left out", by["left_out"])):
            why += f"; {title}: {', '.join(names)}" if names else ""
        return {"part": part, "status": status, "why": why}

    def write(self, asked: Sequence[str]) -> dict[str, Any]:
        """The summary as JSON and Markdown, and itself."""
        machine, states = self.commands.machine, [self.state_of(part) for part in asked]
        keys = {number.key for number in self.numbers if number.part in asked}
        summary = {
            "ok": bool(states) and all(state["status"] == "ok" for state in states),
            "parts_asked": list(asked),
            **self.records.identity,
            "compute_capability": machine.capability,
            "cores": machine.cores,
            "commit": self.records.commit,
            "command": self.command,
            "seconds": round(time.time() - self.begin, 1),
            "parts": states,
            "numbers": [line for line in self.records.ended().values() if line["kind"] == "number" and line["key"] in keys],
        }
        base = self.records.path
        write_whole(base.with_suffix(".json"), json.dumps(summary, indent=1) + "\n")
        write_whole(base.with_suffix(".md"), markdown(self.records.lines(), summary))
        return summary


def _tested(steps: Sequence[dict[str, Any]]) -> list[str]:
    """How many tests ran under each tool of compute-sanitizer, where nothing was wrong."""
    sums: dict[str, list[int]] = {}
    for step in steps:
        if "why" not in step and "tests" in step:
            tool = sums.setdefault(step["name"].rstrip(" 0123456789"), [0, 0])
            tool[0] += step["tests"]["passed"]
            tool[1] += step["tests"]["not_reached"]
    return [f"{tool}: {passed} tests ran, {late} not reached in the time" for tool, (passed, late) in sums.items()]
