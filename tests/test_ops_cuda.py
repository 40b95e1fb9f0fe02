"""What every public op promises on a GPU: CUDA graphs, streams, devices, the CPU's bits.

Each test is one body that runs on the CPU too, where `Replay` and `beside` stand in for graphs and streams: so the tests
themselves are known to work before the first GPU sees them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from gcl_fast import ops
from tests.cuda_cases import CASES, LARGE, MORE, PUBLIC, Case, Tensors

GPUS = torch.cuda.device_count()
needs_gpu = pytest.mark.skipif(GPUS == 0, reason="needs a CUDA GPU")
each_device = pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=needs_gpu)])
each_case = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
each_free_case = pytest.mark.parametrize("case", [case for case in CASES if not case.waits], ids=lambda case: case.name)
SPIN = 100_000_000  # clock ticks, about 50 ms


def inputs(case: Case, seed: int, device: str | torch.device) -> Tensors:
    return {name: value.to(device) for name, value in case.inputs(seed).items()}


def same_bits(got: Tensors, want: Tensors) -> None:
    assert got.keys() == want.keys()
    for name, value in want.items():
        one, two = got[name].cpu(), value.cpu()
        assert one.dtype == two.dtype and one.shape == two.shape, name
        differ = int((one.contiguous().view(-1).view(torch.uint8) != two.contiguous().view(-1).view(torch.uint8)).sum())
        assert differ == 0, f"{name}: {differ} bytes differ"


class Replay:
    """`run` held by a CUDA graph, reading the memory of `static`; on the CPU simply run again. Results are in `results`."""

    def __init__(self, run: Callable[[], Tensors], device: str) -> None:
        self.run, self.graph = run, None
        if device == "cpu":
            self.results = {name: torch.empty_like(value) for name, value in run().items()}
            return
        warm = torch.cuda.Stream()
        warm.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(warm):
            for _ in range(2):
                run()
        torch.cuda.current_stream().wait_stream(warm)
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph):
            self.results = run()

    def __call__(self) -> Tensors:
        if self.graph is None:
            for name, value in self.run().items():
                self.results[name].copy_(value)
        else:
            self.graph.replay()
        return self.results


@contextmanager
def beside(device: str) -> Iterator[None]:
    """Work goes to a stream other than the default one, behind a kernel that keeps it waiting."""
    if device == "cpu":
        yield
        return
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        torch.cuda._sleep(SPIN)
        yield
    torch.cuda.synchronize()


class NativeCalls(TorchDispatchMode):
    """Notes each call of a native op with copies of its arguments, as they were before it."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[Any, tuple[Any, ...]]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None) -> Any:
        if func.namespace == "gcl_fast":
            self.calls.append((func, tuple(a.detach().clone() if isinstance(a, Tensor) else a for a in args)))
        return func(*args, **(kwargs or {}))


def test_every_public_op_has_a_case() -> None:
    named = {case.op for case in CASES}
    assert named == set(PUBLIC), "tests/cuda_cases.py names every public op, and nothing else"
    assert set(PUBLIC) - set(MORE) < set(ops.__all__)
    assert len({case.name for case in CASES + LARGE}) == len(CASES + LARGE)


def test_every_native_op_is_called_by_a_case() -> None:
    with NativeCalls() as seen:
        for case in CASES:
            case.run(inputs(case, 0, "cpu"))
    called = {func.__name__.split(".")[0] for func, _ in seen.calls}
    registered = {name.split("::")[1].split(".")[0] for name in torch._C._dispatch_get_all_op_names() if "gcl_fast::" in name}
    assert registered - called == {"centroid_cross_entropy"}  # of Python, for compiled graphs alone: tests/test_centroids.py


@each_case
def test_a_case_shows_something(case: Case) -> None:
    one, two = (case.run(inputs(case, seed, "cpu")) for seed in (0, 1))
    assert any(one[name].shape != two[name].shape or not torch.equal(one[name], two[name]) for name in one)
    assert case.near > 0 or set(one) <= case.exact, "a result is neither exact nor near"
    same_bits(case.run(inputs(case, 0, "cpu")), one)  # deterministic


def replayed_equals_eager(case: Case, device: str, seeds: tuple[int, ...]) -> None:
    static = inputs(case, 0, device)
    replay = Replay(lambda: case.run(static), device)
    for seed in seeds:
        fresh = inputs(case, seed, device)
        for name, value in fresh.items():
            static[name].copy_(value)
        same_bits(replay(), case.run(fresh))


@each_device
@each_free_case
def test_a_replayed_graph_equals_eager_on_fresh_inputs(case: Case, device: str) -> None:
    replayed_equals_eager(case, device, (1, 2, 0))


@each_device
@pytest.mark.parametrize("case", [case for case in LARGE if not case.waits], ids=lambda case: case.name)
def test_a_large_graph_too(case: Case, device: str) -> None:
    replayed_equals_eager(case, device, (1,))


def written(count: Tensor, starts: Tensor, room: Tensor) -> Tensor:
    """The entries of `room` that rows of these counts and starts hold; 0 elsewhere."""
    place = torch.arange(len(room), device=room.device)
    row = torch.searchsorted(starts, place, right=True) - 1
    inside = place - starts[row] < count[row.clamp_max(len(count) - 1)]
    return torch.where(inside & (row < len(count)), room, 0)


@each_device
@each_case
def test_every_native_op_is_captured(case: Case, device: str) -> None:
    with NativeCalls() as seen:
        case.run(inputs(case, 3, device))
    for func, args in seen.calls:

        def run(func: Any = func, args: tuple[Any, ...] = args) -> Tensors:
            own = tuple(a.clone() if isinstance(a, Tensor) else a for a in args)
            out = func(*own)
            out = () if out is None else out if isinstance(out, tuple) else (out,)
            if func.__name__.startswith(("overlap_rows", "overlap_upper_rows")):  # room behind a row's entries is never written
                out = (out[0], *(written(out[0], own[-2], part) for part in out[1:]))
            tensors = (*out, *(a for a in own if isinstance(a, Tensor)))  # what it writes in place too
            return {f"{func} {n}": value for n, value in enumerate(tensors)}

        same_bits(Replay(run, device)(), run())


@each_device
@each_case
def test_it_runs_on_the_current_stream(case: Case, device: str) -> None:
    want = case.run(inputs(case, 1, device))
    static, fresh = inputs(case, 2, device), inputs(case, 1, device)
    if any(static[name].shape != fresh[name].shape for name in fresh):
        static = {name: value.clone() for name, value in fresh.items()}
        for value in static.values():
            value.zero_()
    with beside(device):  # a kernel on another stream would read what stood there before
        for name, value in fresh.items():
            static[name].copy_(value, non_blocking=True)
        got = case.run(static)
    same_bits(got, want)


@pytest.mark.skipif(GPUS < 2, reason="needs two CUDA GPUs")
@each_case
def test_it_runs_where_its_tensors_are(case: Case) -> None:
    want = case.run(inputs(case, 1, "cuda:0"))
    with torch.cuda.device(0):
        got = case.run(inputs(case, 1, "cuda:1"))
    assert all(value.device.type == "cpu" or value.device.index == 1 for value in got.values())
    same_bits(got, want)


@each_device
@pytest.mark.parametrize("case", CASES + LARGE, ids=lambda case: case.name)
def test_it_gives_what_the_cpu_gives(case: Case, device: str) -> None:
    want, got = case.run(inputs(case, 4, "cpu")), case.run(inputs(case, 4, device))
    exact = [name for name in want if name in case.exact]
    same_bits({name: got[name] for name in exact}, {name: want[name] for name in exact})
    for name in want.keys() - set(exact):
        one, two = got[name].cpu().double(), want[name].double()
        assert one.shape == two.shape and torch.equal(one.isfinite(), two.isfinite()), name
        seen = two.isfinite()
        scale = float(two[seen].abs().max()) if seen.any() else 0.0
        assert float((one[seen] - two[seen]).abs().max() if seen.any() else 0.0) <= case.near * max(scale, 1.0), name
