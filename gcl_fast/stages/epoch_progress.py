"""Progress of one epoch on the terminal."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from rich.progress import Progress


def peak_memory(device: torch.device) -> float:
    """Peak memory in GiB: of the allocator on a GPU, of the process on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**30 if sys.platform == "darwin" else 2**20)


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(int(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{seconds:02d}" if minutes >= 60 else f"{minutes}:{seconds:02d}"


class EpochProgress:
    """A progress bar of one epoch where there is a terminal, one line an epoch where there is none."""

    def __init__(self, title: str, total: int, done: int, batches_left: int, device: torch.device, *, show: bool = True) -> None:
        """batches_left: of the whole stage, this epoch included; it makes the ETA."""
        self.title, self.total, self.start = title, total, done
        self.left, self.device, self.done, self.images = batches_left, device, done, 0
        self.began = time.perf_counter()
        self.text, self.memory, self.show = "", "", show
        self.bar = self._open() if show else None

    def _open(self) -> Progress | None:
        if not sys.stderr.isatty():
            return None
        try:
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
        except ImportError:
            return None
        bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[text]}"),
            console=Console(stderr=True),
        )
        self.task = bar.add_task(self.title, total=self.total, completed=self.start, text="")
        bar.start()
        return bar

    def update(self, loss: float | None, images: int) -> None:
        self.done += 1
        self.images += images
        spent = time.perf_counter() - self.began
        batches = self.done - self.start
        eta = (self.left - batches) * spent / batches
        shown = "" if loss is None else f"loss {loss:.3f} · "
        if loss is not None or not self.memory:  # where losses are read, too: asking each step would cost each step
            self.memory = f"{peak_memory(self.device):.1f} GiB"
        self.text = f"{shown}{self.images / spent:.1f} images/s · stage ends in {_clock(eta)} · {self.memory}"
        if self.bar is not None:
            self.bar.update(self.task, completed=self.done, text=self.text)

    def close(self) -> None:
        if self.bar is not None:
            self.bar.stop()
        elif self.text and self.show:
            print(f"{self.title}  {self.done}/{self.total}  {self.text}", file=sys.stderr, flush=True)
