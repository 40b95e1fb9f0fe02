"""Whether a command of gpu-check went well: its exit code, pytest's report, what compute-sanitizer found."""

from __future__ import annotations

import json
import re
from pathlib import Path

from bench.gpu_check.commands import FOUND, NATIVE_OP_TESTS, Outcome, Step

OURS = "gcl::"  # in a finding of compute-sanitizer: a kernel of this package
# Kernels that read a product of cuBLAS. On sm_90 it is written by the bulk copy engine, which initcheck (CUDA 13.0) does not
# follow: torch's own addition to such a product is found, too.
OF_PRODUCTS = ("gcl::knn_update",)
FOREIGN = ("racecheck", "initcheck", "synccheck")  # what these find in others' kernels is told, and fails nothing


def findings(output: str) -> tuple[list[str], list[str]]:
    """What compute-sanitizer found: in kernels of this package, and in others."""
    blocks: list[str] = []
    for line in output.splitlines():
        if not line.startswith("========="):
            continue
        text = line.removeprefix("=========").removeprefix(" ")
        if re.match(r"(Invalid|Misaligned|Uninitialized|Error|Barrier error|Potential|Out-of-range|Race)", text):
            blocks.append(text)
        elif text.startswith(" ") and blocks:
            blocks[-1] += "\n" + text
    own = [OURS in block and not (block.startswith("Uninit") and any(name in block for name in OF_PRODUCTS)) for block in blocks]
    return [b for b, ours in zip(blocks, own, strict=True) if ours], [b for b, ours in zip(blocks, own, strict=True) if not ours]


def read_json(path: Path | None) -> dict | None:
    try:
        return json.loads(path.read_text()) if path is not None else None
    except (OSError, ValueError):
        return None


def judge(step: Step, outcome: Outcome, report: dict | None, device: str) -> str | None:
    """None if all is well, else what is wrong."""
    if outcome.timed_out:
        found = len(findings(outcome.output)[0])  # the tools say each finding when it comes
        return f"ended after {outcome.seconds:.0f} s, its time limit" + (f", with {found} findings" if found else "")
    if step.part == "build" or step.report is None:
        return None if outcome.code == 0 else f"exit code {outcome.code}"
    ours, others = findings(outcome.output)
    foreign = step.name.split()[0] in FOREIGN and others and not ours
    if step.part == "sanitizer" and (ours or (others and not foreign)):
        return f"{len(ours) + len(others)} findings"
    if outcome.code != 0 and not (foreign and outcome.code == FOUND):
        return f"exit code {outcome.code}"
    if report is None:
        return "pytest wrote no report"
    if report["failed"]:
        return f"{report['failed']} tests failed"
    late = f" ({report['not_reached']} not reached in the time)" if report["not_reached"] else ""
    if step.part != "suite" or device == "cuda":
        if not report[f"passed_on_{device}"]:
            return f"no test passed on {device.upper()}: it was not tested" + late
    elif not report["passed"]:
        return "no test passed"
    never = [name for name in step.files if name not in report["files"]]
    if never:
        return f"no test ran of {', '.join(never)}{late}"
    native = [entry["test"] for entry in report["left_out"] if any(name in entry["test"] for name in NATIVE_OP_TESTS)]
    return f"tests of native ops were left out: {', '.join(native[:3])}" if native else None
