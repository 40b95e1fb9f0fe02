"""Progress of one epoch on the terminal."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING

import torch

from gcl_fast.progress import clock

if TYPE_CHECKING:
    from rich.progress import Progress


def peak_memory(device: torch.device) -> float:
    """Peak memory in GiB: of the allocator on a GPU, of the process on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**30 if sys.platform == "darwin" else 2**20)


class EpochProgress:
    """A progress bar of one epoch where there is a terminal, one line an epoch where there is none."""

    def __init__(
        self,
        title: str,
        total: int,
        done: int,
        batches_left: int,
        device: torch.device,
        *,
        batches_later: tuple[float, float] = (0.0, 0.0),
        show: bool = True,
    ) -> None:
        """batches_left: of the whole stage, this epoch included; batches_later: as many of them as the stages to come take the
        time of, at least and at most. They make the ETAs."""
        self.later = batches_later
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
        eta = clock((self.left - batches) * spent / batches)
        soonest, latest = (clock((self.left - batches + later) * spent / batches) for later in self.later)
        if self.later[1]:
            eta += f", the run in {f'about {latest}' if soonest == latest else f'{soonest} to {latest}'}"
        shown = "" if loss is None else f"loss {loss:.3f} · "
        if loss is not None or not self.memory:  # where losses are read, too: asking each step would cost each step
            self.memory = f"{peak_memory(self.device):.1f} GiB"
        self.text = f"{shown}{self.images / spent:.1f} images/s · stage ends in {eta} · {self.memory}"
        if self.bar is not None:
            self.bar.update(self.task, completed=self.done, text=self.text)

    @property
    def images_per_second(self) -> float:
        """Of this epoch so far."""
        return self.images / max(time.perf_counter() - self.began, 1e-9)

    def close(self) -> None:
        if self.bar is not None:
            self.bar.stop()
        elif self.text and self.show:
            print(f"{self.title}  {self.done}/{self.total}  {self.text}", file=sys.stderr, flush=True)
