"""One training iteration of stages 1 to 3: the plain path, the fast one, and the fast one as one CUDA graph (step graph) or with
its networks compiled to CUDA graphs (graphs).

queued_seconds stands for an iteration, as the engine runs it: nothing waits for the GPU between iterations. busy_share: of that
time, how much the GPU has kernels running.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from bench import step
from bench.floors import Work
from bench.gpu_check.catalogue import Number
from bench.gpu_check.measuring import Prepared
from gcl_fast.config import TrainConfig
from gcl_fast.stages.step_graph import CudaGraph, StepGraph

COMPARED = {"fp32": 2, "bf16": 8}  # iterations
PRECISION = {"plain": "fp32", "fast fp32": "fp32", "fast": "auto", "step graph": "auto", "graphs": "auto"}
SETTINGS: dict[str, dict[str, Any]] = {"step graph": {"step_graph": True}, "graphs": {"compile": "graphs"}}  # of a way
NOT_CAPTURED = {"graphs": "networks are CUDA graphs of torch.compile", "step graph": "it is a CUDA graph itself"}
REPLAYED = 4  # iterations
Case = dict[str, Any]
Stepper = Callable[[], dict[str, torch.Tensor]]


class Operations(TorchDispatchMode):
    """Counts the operations of products and convolutions, forward and backward. (torch's own counter follows modules too, and
    cannot count gradients of gradients.)"""

    def __init__(self) -> None:
        super().__init__()
        self.total = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if (count := flop_registry.get(func._overloadpacket)) is not None:
            self.total += count(*args, **(kwargs or {}), out_val=out)
        return out


def prepare(number: Number, device: torch.device) -> Prepared:
    way, case = number.case["way"], {**number.case, "precision": PRECISION[number.case["way"]]}
    stage, run = _side(way, case, device)
    bf16 = bool(getattr(stage, "bf16", False))
    precision = "bf16" if bf16 else "fp32"
    mark = getattr(torch.compiler, "cudagraph_mark_step_begin", None) if way == "graphs" else None

    def before() -> None:
        if mark is not None:
            mark()

    def check() -> str:
        """The losses of some iterations, each from the plain path's weights."""
        if way == "plain":
            losses = run()
            assert all(bool(torch.isfinite(value)) for value in losses.values())
            return "its losses are finite: it is what the others are compared with"
        if way == "step graph":
            run()  # the second one, which is recorded: its time is no iteration's
            return replayed()
        reference, plain = _side("plain", {**case, "precision": "fp32"}, device)
        compared = COMPARED[precision]
        with unsearched():
            plain()  # as the other side did already: both draw by the number of the iteration
        pairs: dict[str, list[tuple[float, float]]] = {}
        for _ in range(compared):
            step.take_over(stage, reference)
            before()
            got = {name: float(value) for name, value in run().items()}
            with unsearched():
                want = plain()
            for name, value in want.items():
                pairs.setdefault(name, []).append((got[name], float(value)))
        step.agree(pairs, precision)
        what = "each loss's mean over" if bf16 else "every loss of"
        return f"{what} {compared} iterations within {step.TOLERANCE[precision]} of the plain path's"

    def replayed() -> str:
        """Some iterations beside those of the same path without a graph, from the same weights on: to take over weights would
        give the optimisers other memory than the graph's."""
        _, eager = _side("fast", case, device)
        pairs: dict[str, list[tuple[float, float]]] = {}
        _, graphed = _side(way, case, device)
        for _ in range(REPLAYED):
            got, want = graphed(), eager()
            for name, value in want.items():
                pairs.setdefault(name, []).append((float(got[name]), float(value)))
        step.agree(pairs, precision)
        return f"each loss of {REPLAYED} iterations within {step.TOLERANCE[precision]} of the fast path's"

    work, counted = None, {}
    if way == "plain":
        with Operations() as counter:
            run()
        counted = {"operations_per_call": float(counter.total)}
        work = Work(0.0, fp32=counted["operations_per_call"])
    extra = {"bf16": bf16, "compiled": way == "graphs", **counted}
    why = NOT_CAPTURED.get(way, "random draws are made on the host")
    return Prepared([run], check, work, why, seconds="queued_seconds", rounds=30, before=before, extra=extra, warms_up=True)


@contextmanager
def unsearched() -> Iterator[None]:
    """Without cuDNN's search for the fastest of its ways, which takes many seconds at the first call: for what is not timed."""
    searches = torch.backends.cudnn.benchmark
    torch.backends.cudnn.benchmark = False
    try:
        yield
    finally:
        torch.backends.cudnn.benchmark = searches


def _side(way: str, case: Case, device: torch.device) -> tuple[Any, Stepper]:
    original = step.config_of

    def changed(*arguments: Any, **options: Any) -> TrainConfig:
        return replace(original(*arguments, **options), **SETTINGS.get(way, {}))

    step.config_of = changed
    try:
        stage, run = step.side("reference" if way == "plain" else "native", case, device)
    finally:
        step.config_of = original
    if stage.step_graph:
        stage.step = StepGraph(stage, CudaGraph(device))
    return stage, run
