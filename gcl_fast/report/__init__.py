"""The report of a run: one HTML file that needs nothing but itself."""

from __future__ import annotations

from html import escape
from pathlib import Path

import gcl_fast
from gcl_fast.report import sections
from gcl_fast.report.run_data import read_run
from gcl_fast.report.style import STYLE
from gcl_fast.visuals.png import write_atomically

__all__ = ["write_report"]


def write_report(run_dir: str | Path) -> Path:
    """Write `<run_dir>/report.html` from what the run has written so far and return its path.

    Read: metrics.json, history.jsonl, config.yaml, pictures/*.png with captions.json; any of them may be missing as long
    as there are metrics or a history. Pictures and curves are inside the file; nothing is fetched when it is opened.
    FileNotFoundError without a run folder, ValueError naming file and line for a broken file. Deterministic.
    """
    run = read_run(run_dir)
    parts = (
        sections.cards,
        sections.scores,
        sections.novel_view_scores,
        sections.curves,
        sections.pictures,
        sections.times,
        sections.other_metrics,
        sections.configuration,
    )
    body = "\n".join(html for html in (part(run) for part in parts) if html)
    title = escape(run.name)
    page = (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{title} · gcl_fast</title><style>{STYLE}</style></head>\n<body><main>"
        f"<h1>{title}</h1><div class=faint>Training report, gcl_fast {escape(gcl_fast.__version__)}</div>\n"
        f"{body}\n</main></body></html>\n"
    )
    path = Path(run_dir) / "report.html"
    write_atomically(path, page.encode("utf-8"))
    return path
