"""The one loop of all stages: it logs, checks, saves and resumes; a stage only steps."""

from __future__ import annotations

import contextlib
import math
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import torch
from torch import Tensor

from gcl_fast import distributed
from gcl_fast.data.plans import Plan
from gcl_fast.errors import CheckpointError, StageError
from gcl_fast.records import Batch
from gcl_fast.stages.checkpoint import save_checkpoint
from gcl_fast.stages.core_use import StepWatch
from gcl_fast.stages.epoch_progress import EpochProgress
from gcl_fast.stages.finite import broken_learning, broken_state, restorable, way_on
from gcl_fast.stages.log import RunLog
from gcl_fast.stages.optimizer_state import load_optimizer
from gcl_fast.stages.stage import Stage
from gcl_fast.stages.step_graph import CudaGraph, StepGraph
from gcl_fast.stages.stop_signals import stops_put_off

ShowPictures = Callable[[str, dict[str, dict[str, Tensor]], int], None]


class Engine:
    """Runs one stage in one run folder; checkpoints lie in <run>/<stage name>/last.pt and best.pt.

    A run killed at any moment and started again with resume=True reaches the same weights, bit for bit on a CPU with
    the same number of threads: every random number is a function of seed, stage, epoch and position, and what cannot
    be recomputed (plan of the epoch, pseudo-labels, bank) is in the checkpoint.
    Several processes (gcl_fast.distributed) share each batch of the plan; the first one writes the run folder.
    """

    def __init__(
        self,
        stage: Stage,
        log: RunLog,
        *,
        config: dict[str, Any],
        checkpoint_every: int = 200,
        log_every: int = 10,
        picture_every: int = 5,
        show_pictures: ShowPictures | None = None,
        after_epoch: Callable[[float], None] | None = None,
        batches_later: tuple[float, float] = (0.0, 0.0),
        image_names: str = "",
    ) -> None:
        """after_epoch: called in the first process when an epoch is saved, with the seconds that it took; batches_later: see
        `EpochProgress`; image_names: a fingerprint of the training images, which a stage goes on with ("": not compared)."""
        self.stage, self.log, self.config = stage, log, config
        self.checkpoint_every, self.log_every, self.picture_every = checkpoint_every, log_every, picture_every
        self.show_pictures, self.after_epoch, self.batches_later = show_pictures, after_epoch, batches_later
        self.image_names = image_names
        self.folder: Path = log.run_dir / stage.name
        self.epoch, self.position, self.iteration = 0, 0, 0
        self.plan: Plan | None = None
        self.best: float | None = None
        self.scores: dict[str, float] = {}
        self.seconds, self.trained = 0.0, False  # trained: in this call
        self.graph_stream: torch.cuda.Stream | None = None  # on which all epochs' graphs are recorded
        self.watch = StepWatch(torch.get_num_threads() if stage.device.type == "cpu" else 1)

    def run(self, *, resume: bool = False) -> dict[str, float]:
        """Train the stage to its end; returns the last scores, {} when nothing was scored."""
        if resume and distributed.from_first((self.folder / "last.pt").exists):
            self.restore(restorable(self.folder, self.stage.device))
        distributed.join(self.stage.modules.values(), self.stage.optimizers.values())
        self.log.rewind(self.stage.name, self.iteration, self.epoch + (self.plan is not None))
        began = time.perf_counter() - self.seconds
        while self.epoch < self.stage.epochs:
            epoch_began = time.perf_counter()
            self.stage.enter_epoch(self.epoch)
            if self.plan is None:
                self.plan, self.position = self._new_plan(began), 0
            self._train_epoch(self.plan, began)
            self.trained = True
            self._end_epoch(began)
            if self.after_epoch is not None and distributed.first():
                self.after_epoch(time.perf_counter() - epoch_began)
        self.seconds = time.perf_counter() - began
        distributed.barrier()  # what comes next may read the checkpoint
        return self.scores

    def _new_plan(self, began: float) -> Plan:
        plan = self.stage.epoch_plan(self.epoch)
        figures, watch = self.stage.epoch_scalars(), self.stage.watch
        line, warnings = watch.take_notes() if watch is not None else ("", [])
        if figures:
            self._write(figures, time.perf_counter() - began, warnings)
        if distributed.first():
            title = f"{self.stage.name} epoch {self.epoch + 1}/{self.stage.epochs}"
            for words in [f"{title}  {line}"] * bool(line) + [f"warning: {title}: {warning}" for warning in warnings]:
                print(words, file=sys.stderr, flush=True)
        return plan

    def _train_epoch(self, plan: Plan, began: float) -> None:
        stage = self.stage
        left = stage.batches_left(plan, self.epoch, self.position)
        title = f"{stage.name} epoch {self.epoch + 1}/{stage.epochs}"
        progress = EpochProgress(
            title,
            len(plan.batches),
            self.position,
            left,
            stage.device,
            batches_later=self.batches_later,
            show=distributed.first(),
        )
        ranks = distributed.world()
        share = plan.share(distributed.rank(), ranks, unit=stage.unit)
        if ranks > 1 and min(map(len, share)) < 2 and not self.config.get("sync_bn"):  # of few clusters, or few images in them
            smallest = min(map(len, plan))
            raise StageError(
                f"{title}: a batch has {smallest} images, which leaves one to each of {ranks} processes, and batch norm needs "
                "two: --resume with fewer processes"
            )
        pending: list[dict[str, Tensor]] = []
        with contextlib.closing(progress), stops_put_off(enabled=ranks == 1) as stop:
            step = self._step()
            stepped = time.perf_counter()
            for batch in stage.batches(share, self.epoch, self.position):
                if stage.graphs:
                    torch.compiler.cudagraph_mark_step_begin()  # type: ignore[no-untyped-call]  # torch has no type for it
                losses = step(batch.to(stage.device, memory_format=stage.memory_format), self.iteration)
                pending.append(losses)
                self.iteration += 1
                self.position += 1
                shown = None
                due = self.iteration % self.checkpoint_every == 0 or bool(stop.number)
                if due or self.iteration % self.log_every == 0 or self.position == len(plan.batches):
                    shown = self._flush(pending, time.perf_counter() - began)
                if due and (stop.number or self.position < len(plan.batches)):
                    self.save(time.perf_counter() - began)
                progress.update(shown, ranks * len(batch))
                stop.check()
                self._watch_step(stepped)
                stepped = time.perf_counter()
        self.log.shown(stage.name, max(self.iteration - 1, 0), {"images_per_second": progress.images_per_second, **stage.rates()})

    def _step(self) -> Callable[[Batch, int], dict[str, Tensor]]:
        """What takes the steps of an epoch. The stage does not hold it: the memory of a graph is free for what comes after."""
        if not self.stage.step_graph:
            return self.stage.step
        graph = CudaGraph(self.stage.device, self.graph_stream)
        self.graph_stream = graph.stream
        return StepGraph(self.stage, graph)

    def _watch_step(self, began: float) -> None:
        words = self.watch.step(time.perf_counter() - began)
        if words and distributed.first():
            print(f"{self.stage.name}: {words}", file=sys.stderr, flush=True)

    def _flush(self, pending: list[dict[str, Tensor]], seconds: float) -> float:
        """Write the mean of the waiting losses; the one place that waits for the device."""
        names = list(pending[0])
        values = torch.stack([torch.stack([losses[n].double() for n in names]) for losses in pending])
        values = distributed.mean(values).cpu()
        pending.clear()
        broken = [n for n, column in zip(names, values.T, strict=True) if not bool(torch.isfinite(column).all())]
        if broken:
            self._break_down(f"loss not finite: {', '.join(broken)}")
        problem = broken_learning(self.stage.modules)
        if problem:
            self._break_down(problem)
        means: dict[str, float] = dict(zip(names, values.mean(0).tolist(), strict=True))
        self._write(means, seconds)
        return means.get("total", means[names[0]])

    def _break_down(self, problem: str) -> NoReturn:
        raise StageError(
            f"{self.stage.name}, epoch {self.epoch + 1}, iteration {self.iteration}: {problem}; {way_on(self.folder)}"
        )

    def _write(self, values: dict[str, float], seconds: float, warnings: Sequence[str] = ()) -> None:
        # A line belongs to the last finished iteration, so that rewind drops what a resumed run repeats.
        self.log.scalars(self.stage.name, self.epoch, max(self.iteration - 1, 0), seconds, values, warnings)

    def _end_epoch(self, began: float) -> None:
        last = self.epoch + 1 == self.stage.epochs
        distributed.average_buffers(self.stage.modules.values())
        try:
            scores = self.stage.evaluate(self.epoch)
        except KeyboardInterrupt:  # scoring is long: the epoch's steps are kept
            if distributed.world() == 1:
                self.save(time.perf_counter() - began)
            raise
        with stops_put_off(enabled=distributed.world() == 1) as stop:  # else the steps since the last checkpoint were lost
            if scores:
                self.scores = scores
                self._write({k: v for k, v in scores.items() if k != "score"}, time.perf_counter() - began)
            if self.show_pictures and distributed.first() and (last or (self.epoch + 1) % self.picture_every == 0):
                pictures = self.stage.pictures()
                if pictures:
                    self.show_pictures(self.stage.name, pictures, self.iteration)
            self.epoch, self.position, self.plan = self.epoch + 1, 0, None
            better = "score" in scores and (self.best is None or scores["score"] > self.best)
            if better:
                self.best = scores["score"]
            self.seconds = time.perf_counter() - began
            if distributed.first() and (better or (last and self.best is None)):
                self._keep("best.pt")  # before last.pt, after which a resumed run would not write it again
            self.save(self.seconds)
        stop.check()

    def _go_on(self, state: dict[str, Any]) -> None:
        """Take over what is of the very images: rows, labels, the plan."""
        before, now = state.get("image_names"), self.image_names
        if before and now and before != now and (state["extra"] or state["plan"] is not None):
            raise other_images(self.folder / "last.pt")
        try:
            self.stage.load_extra_state(state["extra"])
        except RuntimeError as error:  # tensors of another number of images
            raise other_images(self.folder / "last.pt") from error

    def state(self) -> dict[str, Any]:
        """All that a checkpoint holds. The keys are a promise to runs that go on: add, never rename."""
        stage = self.stage
        cuda = stage.device.type == "cuda"
        return {
            "stage": stage.name,
            "epoch": self.epoch,
            "position": self.position,
            "iteration": self.iteration,
            "seconds": self.seconds,
            "plan": None if self.plan is None else [torch.from_numpy(np.asarray(b)) for b in self.plan.batches],
            "best": self.best,
            "scores": dict(self.scores),
            "modules": {name: module.state_dict() for name, module in stage.modules.items()},
            "optimizers": {name: optimizer.state_dict() for name, optimizer in stage.optimizers.items()},
            "extra": stage.extra_state(),
            "most_clusters": 0 if stage.watch is None else stage.watch.most_clusters,
            "random": {"torch": torch.get_rng_state(), "cuda": torch.cuda.get_rng_state(stage.device) if cuda else None},
            "config": self.config,
            "image_names": self.image_names,
        }

    def save(self, seconds: float) -> None:
        self.seconds = seconds
        distributed.average_buffers(self.stage.modules.values())
        if distributed.first():
            self._keep("last.pt")

    def _keep(self, name: str) -> None:
        """Write a checkpoint, unless a number in it is not finite: the old one is still good then."""
        state = self.state()
        broken = broken_state(state)
        if broken:
            self._break_down(f"not saved, numbers not finite: {broken}")
        save_checkpoint(self.folder / name, state)

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from what `state` gave, from checkpoints of commit 26a14f4 on."""
        stage = self.stage
        if state["stage"] != stage.name:
            raise StageError(f"the checkpoint is of {state['stage']}, not of {stage.name}")
        for name, module in stage.modules.items():
            module.load_state_dict(state["modules"][name])
        for name, optimizer in stage.optimizers.items():
            load_optimizer(optimizer, state["optimizers"][name])
        if state["plan"] is not None or state["epoch"] < stage.epochs:  # a finished stage holds for any images
            self._go_on(state)
        if stage.watch is not None:
            stage.watch.most_clusters = state.get("most_clusters", 0)
        torch.set_rng_state(state["random"]["torch"].cpu())
        if state["random"]["cuda"] is not None and stage.device.type == "cuda":
            torch.cuda.set_rng_state(state["random"]["cuda"].cpu(), stage.device)
        self.epoch, self.position, self.iteration = state["epoch"], state["position"], state["iteration"]
        self.plan = None if state["plan"] is None else Plan(tuple(b.cpu().numpy() for b in state["plan"]))
        self.best, self.scores, self.seconds = state["best"], dict(state["scores"]), state["seconds"]
        if self.best is not None and not math.isfinite(self.best):
            self.best = None


def other_images(path: Path) -> CheckpointError:
    """A checkpoint that cannot be gone on from with the images of now."""
    return CheckpointError(
        f"{path} does not fit the training images of now: were images or meshes added, damaged or left out since? Put them back, "
        f"or start another run from it, with --name NEW and --init {path}"
    )
