"""What a run writes while it trains: history.jsonl, TensorBoard events, a progress bar."""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch


class RunLog:
    """Scalars and pictures of one run folder.

    history.jsonl has one JSON object a line: stage, epoch, iteration, time (seconds since the stage began), scalars.
    write: False writes nothing, for all processes but the first.
    """

    def __init__(self, run_dir: Path, *, tensorboard: bool = True, write: bool = True) -> None:
        self.run_dir, self.write = run_dir, write
        self.history = run_dir / "history.jsonl"
        if write:
            run_dir.mkdir(parents=True, exist_ok=True)
        self.writer = self._open_tensorboard() if tensorboard and write else None

    def _open_tensorboard(self) -> Any:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            print("TensorBoard events are not written: pip install tensorboard (history.jsonl is)", file=sys.stderr)
            return None
        return SummaryWriter(self.run_dir / "events")

    def rewind(self, stage: str, iteration: int) -> None:
        """Forget the lines of `stage` from `iteration` on: a resumed run writes them again."""
        if not self.write or not self.history.exists():
            return
        kept = []
        for line in self.history.read_text().splitlines():
            try:
                entry = json.loads(line)
            except json.JSONDecodeError:  # a kill in the middle of a write
                continue
            if entry["stage"] != stage or entry["iteration"] < iteration:
                kept.append(line)
        partial = self.history.with_suffix(".partial")
        partial.write_text("".join(line + "\n" for line in kept))
        os.replace(partial, self.history)

    def scalars(self, stage: str, epoch: int, iteration: int, seconds: float, values: dict[str, float]) -> None:
        if not self.write:
            return
        entry = {"stage": stage, "epoch": epoch, "iteration": iteration, "time": round(seconds, 3), **values}
        with open(self.history, "a") as file:
            file.write(json.dumps(entry) + "\n")
        if self.writer is not None:
            for name, value in values.items():
                self.writer.add_scalar(f"{stage}/{name}", value, iteration)

    def picture(self, name: str, image: np.ndarray, iteration: int) -> None:
        """image [H, W, 3] uint8."""
        if self.writer is not None:
            self.writer.add_image(name, image, iteration, dataformats="HWC")

    def close(self) -> None:
        if self.writer is not None:
            self.writer.close()


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
        self.text, self.show = "", show
        self.bar = self._open() if show else None

    def _open(self) -> Any:
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
        self.text = (
            f"{shown}{self.images / spent:.1f} images/s · stage ends in {_clock(eta)} · {peak_memory(self.device):.1f} GiB"
        )
        if self.bar is not None:
            self.bar.update(self.task, completed=self.done, text=self.text)

    def close(self) -> None:
        if self.bar is not None:
            self.bar.stop()
        elif self.text and self.show:
            print(f"{self.title}  {self.done}/{self.total}  {self.text}", file=sys.stderr, flush=True)
