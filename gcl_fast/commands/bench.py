"""gcl-fast bench: time the ops on this machine."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import gcl_fast
from gcl_fast.commands.options import parse

OPS = ("rasterize", "interpolate", "render", "warp", "bank", "neighbors", "ranking", "loader", "step")
ROOT = Path(gcl_fast.__file__).resolve().parents[1]


@dataclass
class BenchOptions:
    """Time the ops against their plain definitions on every device there is; each result is checked before it is timed."""

    op: Literal["all", "rasterize", "interpolate", "render", "warp", "bank", "neighbors", "ranking", "loader", "step"] = "all"
    """One op, the training step, or all of them."""
    full: bool = False
    """The big table of sizes (minutes) instead of the quick one."""
    json: Path | None = None
    """Write the numbers here too, with device, commit, command and versions."""


def run(op: str, full: bool, into: Path) -> int:
    """pytest-benchmark's exit code; its JSON goes to `into`."""
    files = [f"bench/{name}.py" for name in (OPS if op == "all" else (op,))]
    command = [sys.executable, "-m", "pytest", *files, "--benchmark-only", "-q", "--benchmark-json", str(into)]
    command += ["--benchmark-columns=median,iqr,rounds", "-p", "no:cacheprovider", *(["--full"] if full else [])]
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    # pytest's own report is shown where something failed; the table of numbers is printed below.
    environment = os.environ | {"PYTHONPATH": path}
    done = subprocess.run(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode != 0:
        print(done.stdout, file=sys.stderr)
    return done.returncode


def rows(report: dict) -> list[tuple[str, ...]]:
    """One row a case and device: op, case, device, median of native and of reference, how many times faster."""
    table: dict[str, dict] = {}
    for entry in report["benchmarks"]:
        table.setdefault(entry["group"], {})[entry["extra_info"]["implementation"]] = entry
    out = []
    for group, times in table.items():
        entry = times.get("native") or times["reference"]
        median = {name: times[name]["stats"]["median"] for name in times}
        ratio = f"{median['reference'] / median['native']:.1f}x" if {"native", "reference"} <= median.keys() else ""
        info = entry["extra_info"]
        case = " ".join(f"{k}={'x'.join(map(str, v)) if isinstance(v, list) else v}" for k, v in info["case"].items())
        shown = (seconds(median[name]) if name in median else "" for name in ("native", "reference"))
        out.append((info["op"], case, group.split()[-1], *shown, ratio))
    return out


def seconds(value: float) -> str:
    for unit, scale in (("s", 1), ("ms", 1e3)):
        if value * scale >= 1:
            return f"{value * scale:.3g} {unit}"
    return f"{value * 1e6:.3g} us"


def show(lines: list[tuple[str, ...]]) -> None:
    heads = ("op", "case", "device", "native", "reference", "faster")
    try:
        from rich.console import Console
        from rich.table import Table
    except ImportError:
        widths = [max(map(len, column)) for column in zip(heads, *lines, strict=True)]
        for line in (heads, *lines):
            print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())
        return
    table = Table()
    for n, head in enumerate(heads):
        table.add_column(head, justify="right" if n >= 3 else "left")
    for line in lines:
        table.add_row(*line)
    Console().print(table)


def main(argv: list[str]) -> int:
    options = parse(BenchOptions, argv, prog="gcl-fast bench")
    if not (ROOT / "bench" / "conftest.py").is_file():
        raise FileNotFoundError(
            f"the benches are not in the installed package: clone the repository, `make build` there, and run gcl-fast from it "
            f"(looked for {ROOT / 'bench'})"
        )
    try:
        import pytest_benchmark  # noqa: F401
    except ImportError:
        raise RuntimeError("pytest-benchmark is not installed: pip install pytest pytest-benchmark") from None
    with tempfile.TemporaryDirectory() as folder:
        into = Path(folder) / "bench.json"
        code = run(options.op, options.full, into)
        if code != 0 or not into.is_file():
            raise RuntimeError(f"pytest ended with exit code {code}: a bench failed or its result was wrong (see above)")
        text = into.read_text()
    report = json.loads(text)
    show(rows(report))
    if report["benchmarks"]:
        info = report["benchmarks"][0]["extra_info"]
        print("; ".join(sorted({entry["extra_info"]["device"] for entry in report["benchmarks"]})))
        print(f"medians; torch {info['torch']}, CUDA {info['cuda']}, commit {info['commit']}, {info['threads']} threads")
    if options.json is not None:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(text)
        print(f"written: {options.json}")
    return 0
