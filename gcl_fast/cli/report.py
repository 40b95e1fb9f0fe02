"""gcl-fast report: a run's report, written anew."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import tyro

from gcl_fast.cli.options import parse


@dataclass
class ReportOptions:
    """Write RUN/report.html anew from what the run has written: scores, curves and pictures in one file. Training does so by
    itself; this is for a run that was stopped, or of an older version."""

    run: tyro.conf.Positional[Path]
    """A run folder, such as runs/market1501."""


def main(argv: list[str]) -> int:
    options = parse(ReportOptions, argv, prog="gcl-fast report")

    from gcl_fast.report import write_report

    print(f"report: {write_report(options.run)}")
    return 0
