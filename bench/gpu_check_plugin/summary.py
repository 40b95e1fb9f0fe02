"""The summary of gpu_check: findings of compute-sanitizer, medians of benches, the table."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
OURS = "gcl::"  # in a finding of compute-sanitizer: a kernel of this package


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
    ours = [block for block in blocks if OURS in block]
    return ours, [block for block in blocks if OURS not in block]


def brief(entry: dict) -> dict:
    """A benchmark's medians and what they belong to."""
    info = entry["extra_info"]
    keys = ("op", "case", "implementation", "device", "check", "queued_seconds", "images_per_second", "peak_bytes", "breakdown")
    kept = {key: info[key] for key in keys if key in info}
    return kept | {"median_seconds": entry["stats"]["median"], "rounds": entry["stats"]["rounds"]}


def table(summary: dict) -> str:
    """The summary for people: the parts, then each case, this package's time beside the plain definition's."""
    lines = [f"{summary['device']}, torch {summary['torch']}, CUDA {summary['torch_cuda']}, commit {summary['commit']}", ""]
    for part in summary["parts"]:
        spent = f"{part['seconds']:.0f} s" if "seconds" in part else ""
        state = "ok" if part["ok"] else "FAILED"
        lines.append(f"{state:<7} {part['part']:<10} {part['name']:<10} {spent:>6}  {part.get('why', '')}".rstrip())
    cases: dict[tuple[str, str], dict[str, float]] = {}
    for entry in summary["benchmarks"]:
        case = " ".join(f"{name}={value}" for name, value in entry["case"].items())
        cases.setdefault((entry["op"], case), {})[entry["implementation"]] = entry["median_seconds"]
    lines += ["", f"{'native':>12} {'plain':>12} {'faster':>8}  case"] if cases else []
    for (op, case), times in cases.items():
        native, reference = times.get("native"), times.get("reference")
        shown = [f"{t * 1e3:.3f} ms" if t is not None else "" for t in (native, reference)]
        ratio = f"{reference / native:.1f}x" if native and reference else ""
        lines.append(f"{shown[0]:>12} {shown[1]:>12} {ratio:>8}  {op} {case}")
    return "\n".join(lines) + "\n"


def plain(text: str) -> str:
    """Without this machine's folders."""
    folders = {sys.executable: "python", f"{ROOT}/": "", str(ROOT): ".", sys.prefix: "PREFIX", str(Path.home()): "~"}
    for folder, name in folders.items():
        text = text.replace(folder, name) if folder not in ("", "/") else text
    return text


def read_json(path: Path | None) -> dict | None:
    try:
        return json.loads(path.read_text()) if path is not None else None
    except (OSError, ValueError):
        return None


def commit() -> str:
    command = ["git", "describe", "--always", "--tags", "--dirty"]
    try:
        said = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False).stdout.strip()
    except OSError:
        said = ""
    return said or os.environ.get("GCL_COMMIT", "unknown")
