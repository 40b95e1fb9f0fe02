"""A progress bar over counted things: reading features, writing a world, scoring."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from gcl_fast import distributed


@contextmanager
def counting(title: str) -> Iterator[Callable[[int, int], None]]:
    """Gives a function to call with (done, in all); silent where there is no terminal or no rich, and but on the first rank."""
    try:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
    except ImportError:
        yield lambda done, total: None
        return
    console = Console(stderr=True)
    if not sys.stderr.isatty() or not distributed.first():
        yield lambda done, total: None
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console) as bar:
        task = bar.add_task(title, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
