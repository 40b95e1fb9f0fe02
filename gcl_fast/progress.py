"""Progress over counted things: reading features, writing a world, scoring. A bar on a terminal, else a line now and then."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from gcl_fast import distributed

LONG = 48 * 3600.0  # seconds, above which hours say little
LINE_SECONDS = 20.0  # between two lines where there is no terminal; what is quicker says nothing


def counted(number: int, noun: str) -> str:
    """1 epoch, 2 epochs, 1 identity, 1,200 identities, 3 meshes."""
    several = f"{noun[:-1]}ies" if noun.endswith("y") else f"{noun}{'es' if noun.endswith('sh') else 's'}"
    return f"{number:,} {noun if number == 1 else several}"


def clock(seconds: float) -> str:
    """Seconds as 1:05 or 2:01:05; more than two days as 3.5 days."""
    if seconds > LONG:
        return f"{seconds / 86400:,.1f} days"
    minutes, seconds = divmod(int(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{seconds:02d}" if minutes >= 60 else f"{minutes}:{seconds:02d}"


def lines(title: str) -> Callable[[int, int], None]:
    """Gives a function to call with (done, in all) that prints a line to stderr every `LINE_SECONDS`."""
    began = last = time.perf_counter()

    def update(done: int, total: int) -> None:
        nonlocal last
        now = time.perf_counter()
        if now - last >= LINE_SECONDS and 0 < done < total:
            last = now
            left = clock((now - began) * (total - done) / done)
            print(f"{title}  {done:,}/{total:,}  {left} left", file=sys.stderr, flush=True)

    return update


@contextmanager
def counting(title: str) -> Iterator[Callable[[int, int], None]]:
    """Gives a function to call with (done, in all): a bar on a terminal, lines where there is none or no rich; silent but on
    the first rank."""
    if not distributed.first():
        yield lambda done, total: None
        return
    try:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
    except ImportError:
        yield lines(title)
        return
    console = Console(stderr=True)
    if not sys.stderr.isatty():
        yield lines(title)
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console) as bar:
        task = bar.add_task(title, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
