"""A training step as one CUDA graph: the host starts one thing where it started ten thousand."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import fields, is_dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor

from gcl_fast.records import Batch
from gcl_fast.stages.stage import Stage

Result = TypeVar("Result")


class CudaGraph:
    """What ran on a GPU, to be done again in the same memory: kernels and their arguments, the host's numbers among them."""

    def __init__(self, device: torch.device, stream: torch.cuda.Stream | None = None) -> None:
        """stream: of a graph that is gone, where there was one: for each that multiplies torch keeps cuBLAS' workspace for good,
        up to 32 MiB a thread."""
        if stream is None:
            stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]  # torch has no type for it
        self.stream: torch.cuda.Stream = stream
        self._graph = torch.cuda.CUDAGraph()

    def aside(self, run: Callable[[], Result]) -> Result:
        """run() on the stream that is recorded later: what torch keeps of a first time (gradients' streams, workspaces) fits."""
        now = torch.cuda.current_stream(self.stream.device)
        self.stream.wait_stream(now)
        with torch.cuda.stream(self.stream):
            result = run()
        now.wait_stream(self.stream)
        return result

    def record(self, run: Callable[[], Result]) -> Result:
        """run(), of which nothing is computed before `replay`: the result's memory is filled by it."""
        with torch.cuda.graph(self._graph, stream=self.stream, capture_error_mode="thread_local"):  # loaders go on in theirs
            return run()

    def replay(self) -> None:
        self._graph.replay()


class StepGraph:
    """The steps of a stage within one epoch: the first runs as ever, the second is recorded, it and all others are replayed.

    What a step reads of the host (learning rates, momenta, the number of clusters) becomes part of the recording, and changes
    between epochs only: each has a recording of its own. Random numbers are drawn on the host as ever, and go where the recording
    reads them, as the batch does. A batch of other shapes than the first one's runs as ever.

    Losses and weights are those of steps without a graph, to the bit where the kernels repeat theirs.
    """

    def __init__(self, stage: Stage, graph: CudaGraph) -> None:
        self.stage, self._graph = stage, graph
        self._shapes: list[torch.Size] = []
        self._inputs: Any = None  # batch and random numbers, where the recording reads them
        self._names: list[str] = []  # of the losses
        self._values = torch.empty(0)  # theirs

    def __call__(self, batch: Batch, iteration: int) -> dict[str, Tensor]:
        """As `Stage.step`."""
        given = batch, self.stage.draw(batch, iteration)
        shapes = [tensor.shape for tensor in tensors_of(given)]
        if shapes != self._shapes:
            self._shapes = self._shapes or shapes
            return self._graph.aside(lambda: self.stage.update(*given))
        if self._inputs is None:
            self._inputs = deepcopy(given)
            with capturable(self.stage.optimizers.values()):
                self._values = self._graph.record(self._update)
        else:
            torch._foreach_copy_(list(tensors_of(self._inputs)), list(tensors_of(given)))
        self._graph.replay()
        return dict(zip(self._names, self._values.clone().unbind(), strict=True))  # the next step overwrites them

    def _update(self) -> Tensor:
        losses = self.stage.update(*self._inputs)
        self._names = list(losses)
        return torch.stack(list(losses.values()))


def tensors_of(value: object) -> Iterator[Tensor]:
    """The tensors in a tuple or dataclass, one after the other."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, tuple):
        for part in value:
            yield from tensors_of(part)
    elif is_dataclass(value):
        for field in fields(value):
            yield from tensors_of(getattr(value, field.name))


@contextmanager
def capturable(optimizers: Iterable[torch.optim.Optimizer]) -> Iterator[None]:
    """Optimisers say inside that a graph may hold them: fused ones count their steps on the device anyhow."""
    groups = [group for optimizer in optimizers for group in optimizer.param_groups if "capturable" in group]
    before = [group["capturable"] for group in groups]
    for group in groups:
        group["capturable"] = True
    try:
        yield
    finally:
        for group, value in zip(groups, before, strict=True):
            group["capturable"] = value
