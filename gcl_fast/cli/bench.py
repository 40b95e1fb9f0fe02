"""gcl-fast bench: time the ops on this machine."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Literal

import gcl_fast
from gcl_fast.cli.options import parse

OPS = ("rasterize", "interpolate", "render", "warp", "bank", "neighbors", "ranking", "loader", "step", "epoch")
ROOT = Path(gcl_fast.__file__).resolve().parents[1]


@dataclass
class BenchOptions:
    """Time the ops against their plain definitions on every device there is; each result is checked before it is timed."""

    op: Literal[
        "all", "rasterize", "interpolate", "render", "warp", "bank", "neighbors", "ranking", "loader", "step", "epoch"
    ] = "all"
    """One op, the training step, a whole epoch, or all of them."""
    full: bool = False
    """The big table of sizes (minutes) instead of the quick one."""
    json: Path | None = None
    """Write the numbers here too, with device, commit, command and versions."""
    plot: Path | None = None
    """Write the table here as an HTML page with bars."""


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


def page(report: dict) -> str:
    """The table as HTML: in each case a bar for each implementation, as long as its share of the slowest's time."""
    from gcl_fast.report.style import STYLE

    groups: dict[str, list[dict]] = {}
    for entry in report["benchmarks"]:
        groups.setdefault(entry["group"], []).append(entry)
    body = []
    for group, entries in groups.items():
        slowest = max(entry["stats"]["median"] for entry in entries)
        for entry in sorted(entries, key=lambda e: e["stats"]["median"]):
            info, median = entry["extra_info"], entry["stats"]["median"]
            own = ' class="own"' if info["implementation"] == "native" else ""
            cells = [escape(group), escape(info["implementation"]), seconds(median)]
            body.append(
                "<tr>"
                + "".join(f"<td>{cell}</td>" for cell in cells)
                + f'<td class="bar"><i{own} style="width:{100 * median / slowest:.1f}%"></i></td></tr>'
            )
    devices = "; ".join(sorted({entry["extra_info"]["device"] for entry in report["benchmarks"]}))
    commits = ", ".join(sorted({entry["extra_info"]["commit"] for entry in report["benchmarks"]}))
    head = "<tr><th>case</th><th>implementation</th><th>median</th><th></th></tr>"
    return (
        f'<!doctype html><meta charset="utf-8"><title>gcl-fast bench</title><style>{STYLE}</style><main><h1>gcl-fast bench</h1>'
        f'<p class="faint">{escape(devices)}; commit {escape(commits)}; medians</p>'
        f'<div class="table"><table><thead>{head}</thead>'
        f"<tbody>{''.join(body)}</tbody></table></div></main>\n"
    )


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
    for path, content in ((options.json, text), (options.plot, page(report))):
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content)
            print(f"written: {path}")
    return 0
