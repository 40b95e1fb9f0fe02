"""gcl-fast bench: time the ops on this machine."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

import gcl_fast
from gcl_fast.cli.options import named, parse
from gcl_fast.errors import MissingFileError, ProgramError
from gcl_fast.packages import missing
from gcl_fast.progress import counted

Bench = Literal[
    "rasterize",
    "camera",
    "interpolate",
    "reflect_pad",
    "render",
    "warp",
    "bank",
    "centroids",
    "neighbors",
    "ranking",
    "loader",
    "step",
    "epoch",
]
OPS: tuple[Bench, ...] = get_args(Bench)
ROOT = Path(gcl_fast.__file__).resolve().parents[1]
Report = dict[str, Any]  # pytest-benchmark's JSON


class Row(NamedTuple):
    """A line of the printed table."""

    op: str
    case: str
    device: str
    native: str
    reference: str
    faster: str


@dataclass
class BenchOptions:
    """Time the ops against their plain definitions on every device there is; each result is checked before it is timed.

    Needs a clone of the repository: the benches lie beside the package, not in it.
    """

    op: Literal["all"] | Bench = "all"
    """One op, the training step, a whole epoch, or all of them."""
    full: bool = False
    """The big table of sizes (minutes) instead of the quick one."""
    json: Path | None = None
    """Write the numbers here too, with device, commit, command and versions."""
    plot: Path | None = None
    """Write the table here as an HTML page with bars."""

    def __post_init__(self) -> None:
        named("--plot", self.plot, ".html", ".htm")


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


def measure(op: str, full: bool) -> str:
    """pytest-benchmark's JSON as text; an error says what stands in the way."""
    if not (ROOT / "bench" / "conftest.py").is_file():
        raise MissingFileError(
            f"the benches are not in the installed package: clone the repository, `make build` there, and run gcl-fast from it "
            f"(looked for {ROOT / 'bench'})"
        )
    if importlib.util.find_spec("pytest_benchmark") is None:
        raise missing("pytest_benchmark", "gcl-fast bench")
    with tempfile.TemporaryDirectory() as folder:
        into = Path(folder) / "bench.json"
        code = run(op, full, into)
        if code != 0 or not into.is_file():
            raise ProgramError(f"pytest ended with exit code {code}: a bench failed or its result was wrong (see above)")
        return into.read_text()


def rows(report: Report) -> list[Row]:
    """One row a case and device: op, case, device, median of native and of reference, how many times faster."""
    groups: dict[str, Report] = {}
    for entry in report["benchmarks"]:
        groups.setdefault(entry["group"], {})[entry["extra_info"]["implementation"]] = entry
    return [_row(group, times) for group, times in groups.items()]


def _row(group: str, times: Report) -> Row:
    info = (times.get("native") or times["reference"])["extra_info"]
    median = {name: float(entry["stats"]["median"]) for name, entry in times.items()}
    ratio = f"{median['reference'] / median['native']:.1f}x" if {"native", "reference"} <= median.keys() else ""
    case = " ".join(f"{k}={'x'.join(map(str, v)) if isinstance(v, list) else v}" for k, v in info["case"].items())
    native, reference = (seconds(median[name]) if name in median else "" for name in ("native", "reference"))
    return Row(info["op"], case, group.split()[-1], native, reference, ratio)


def seconds(value: float) -> str:
    for unit, scale in (("s", 1), ("ms", 1e3)):
        if value * scale >= 1:
            return f"{value * scale:.3g} {unit}"
    return f"{value * 1e6:.3g} us"


def show(table: list[Row]) -> None:
    """The table on the terminal, with rich where it is installed."""
    heads = Row._fields
    try:
        from rich.console import Console
        from rich.table import Table
    except ImportError:
        widths = [max(map(len, column)) for column in zip(heads, *table, strict=True)]
        for line in (heads, *table):
            print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())
        return
    rich_table = Table()
    for n, head in enumerate(heads):
        rich_table.add_column(head, justify="right" if n >= 3 else "left")
    for line in table:
        rich_table.add_row(*line)
    Console().print(rich_table)


def distinct(report: Report, fact: str) -> list[str]:
    """The values of a fact such as "device" over all benchmarks, sorted."""
    return sorted({entry["extra_info"][fact] for entry in report["benchmarks"]})


PAGE = """<!doctype html><meta charset="utf-8"><title>gcl-fast bench</title><style>{{ style|safe }}</style>
<main><h1>gcl-fast bench</h1><p class="faint">{{ devices }}; commit {{ commits }}; medians</p>
<div class="table"><table><thead><tr><th>case</th><th>implementation</th><th>median</th><th></th></tr></thead><tbody>
{% for bar in bars -%}
<tr><td>{{ bar.case }}</td><td>{{ bar.implementation }}</td><td>{{ bar.median }}</td>
<td class="bar"><i{% if bar.implementation == "native" %} class="own"{% endif %} style="width:{{ bar.percent }}%"></i></td></tr>
{% endfor -%}
</tbody></table></div></main>
"""


def page(report: Report) -> str:
    """The table as HTML: in each case a bar for each implementation, as long as its share of the slowest's time."""
    from jinja2 import Environment

    from gcl_fast.report.style import STYLE

    groups: dict[str, dict[str, float]] = {}
    for entry in report["benchmarks"]:
        groups.setdefault(entry["group"], {})[entry["extra_info"]["implementation"]] = entry["stats"]["median"]
    bars = [
        {
            "case": case,
            "implementation": implementation,
            "median": seconds(median),
            "percent": f"{100 * median / max(medians.values()):.1f}",
        }
        for case, medians in groups.items()
        for implementation, median in sorted(medians.items(), key=lambda pair: pair[1])
    ]
    devices, commits = "; ".join(distinct(report, "device")), ", ".join(distinct(report, "commit"))
    return Environment(autoescape=True).from_string(PAGE).render(style=STYLE, devices=devices, commits=commits, bars=bars)


def main(argv: list[str]) -> int:
    options = parse(BenchOptions, argv, prog="gcl-fast bench")

    from gcl_fast.files import check_writable, write_whole

    for path in filter(None, (options.json, options.plot)):
        check_writable(path)
    text = measure(options.op, options.full)
    report = json.loads(text)
    show(rows(report))
    if report["benchmarks"]:
        info = report["benchmarks"][0]["extra_info"]
        print("; ".join(distinct(report, "device")))
        print(
            f"medians; torch {info['torch']}, CUDA {info['cuda']}, commit {info['commit']}, {counted(info['threads'], 'thread')}"
        )
    if options.json is not None:
        print(f"written: {write_whole(options.json, text)}")
    if options.plot is not None:
        print(f"written: {write_whole(options.plot, page(report))}")
    return 0
