"""The report of a run: one HTML file that needs nothing but itself."""

from __future__ import annotations

import os
from pathlib import Path

from gcl_fast.files import write_whole
from gcl_fast.report.page import render_page
from gcl_fast.report.run_data import read_run

__all__ = ["write_report"]


def write_report(run_dir: str | os.PathLike[str], *, live: bool = False) -> Path:
    """Write `<run_dir>/report.html` from what the run has written so far.

    Pictures and curves are inside the file; nothing is fetched when it is opened. Deterministic.

    Arguments:
        run_dir: a run folder. Read are metrics.json, history.jsonl, config.yaml, pictures/*.png with captions.json; any of
            them may be missing as long as there are metrics or a history.
        live: the run goes on: the page says so and reloads itself every minute.

    Returns: the path of the report.
    Errors: MissingFileError without a run folder, InputError that names file and line for a broken file,
        MissingPackageError without jinja2.
    """
    return write_whole(Path(run_dir) / "report.html", render_page(read_run(run_dir), live=live), flush=not live)
