"""How a number is measured: checked, then timed in three ways, then looked at by the profiler.

graph_seconds   median of 50 replays of a CUDA graph that holds one call for each of the rotating inputs, by the GPU's own clock,
                divided by the calls: what the kernels take, without the host
eager_seconds   median of calls that the host waits for, one by one
queued_seconds  calls in a row, waited for once: the larger of host and GPU
busy_seconds    of a call, in which the GPU ran a kernel, by the profiler; `kernels` says which

The inputs together are larger than the GPU's second-level cache, so that no call finds the last one's bytes there.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from bench.floors import Work

REPLAYS = 50
SECONDS = 4.0  # of timing a number in one way, at most, whatever the number of rounds
PROFILED = 3  # calls, of a long one one: thousands of kernels take long to read
LONG = 0.05  # seconds
MOST_COPIES = 64
Call = Callable[[], Any]


@dataclass
class Prepared:
    """A number ready to be measured.

    calls      one for each of the rotating inputs; each returns its outputs
    check      compares with an oracle, raises AssertionError, returns what was compared
    work       what must be moved and computed, for the floor; None where there is none
    capture    "" where a CUDA graph may hold the calls, else why not
    promised   a capture that fails is a failure (ours); else it is told
    exact      whether a replay must give the eager call's bits; None: the outputs are not compared (they change in place)
    seconds    which of the times stands against the goal where no graph was made: "eager_seconds" or "queued_seconds"
    rounds     at most, of one way of timing
    before     run before each call (torch.compile's graphs want to know where a step begins)
    warms_up   the first call compiles or searches: long as it takes, it is no measurement
    extra      figures of the number's own
    """

    calls: Sequence[Call]
    check: Callable[[], str]
    work: Work | None = None
    capture: str = ""
    promised: bool = True
    exact: bool | None = True
    seconds: str = "eager_seconds"
    rounds: int = REPLAYS
    profiled: bool = True
    before: Call = lambda: None
    warms_up: bool = False
    extra: dict[str, Any] = field(default_factory=dict)


def copies_for(num_bytes: int, device: torch.device) -> int:
    """How many inputs of this size overflow the second-level cache twice."""
    if device.type != "cuda":
        return 2
    cache = getattr(torch.cuda.get_device_properties(device), "L2_cache_size", 64 << 20)
    return int(min(max(1, -(-2 * cache // max(num_bytes, 1))), MOST_COPIES))


def wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def measure(prepared: Prepared, device: torch.device) -> dict[str, Any]:
    """Check and time; the figures. Raises what the check, a call or a promised capture raises.

    A first call (first_seconds) comes before the check, which may look at what it gave; where it takes long, it is the
    measurement.
    """
    first = timed_once(prepared, prepared.calls[0], device)
    found: dict[str, Any] = {"first_seconds": first, "check": prepared.check(), **prepared.extra}
    found |= timed_eagerly(prepared, first, device)
    if device.type == "cuda" and not prepared.capture:
        try:
            found |= timed_as_graph(prepared, device)
        except RuntimeError as error:
            if prepared.promised:
                raise
            found["not_captured"] = f"{type(error).__name__}: {error}"[:300]
    else:
        found["not_captured"] = prepared.capture or "no GPU"
    measured_by = "graph_seconds" if "graph_seconds" in found else prepared.seconds
    found |= {"seconds": found[measured_by], "measured_by": measured_by}
    if prepared.profiled:
        found |= profiled(prepared, device, found["seconds"])
    if device.type == "cuda":
        found["peak_bytes"] = torch.cuda.max_memory_allocated(device)
    return found


def timed_once(prepared: Prepared, call: Call, device: torch.device) -> float:
    prepared.before()
    begin = time.perf_counter()
    call()
    wait(device)
    return time.perf_counter() - begin


def timed_eagerly(prepared: Prepared, first: float, device: torch.device) -> dict[str, Any]:
    """first: seconds of a call before, with all that a first call brings."""
    calls = prepared.calls
    if first >= SECONDS and prepared.warms_up:
        first = timed_once(prepared, calls[0], device)
    if first >= SECONDS:
        return {"eager_seconds": first, "queued_seconds": first, "rounds": 1}
    warm = min(timed_once(prepared, call, device) for call in (*calls, calls[0])[:3])
    rounds = max(1, min(prepared.rounds, int(SECONDS / max(warm, 1e-6))))
    each = [timed_once(prepared, calls[n % len(calls)], device) for n in range(rounds)]
    begin = time.perf_counter()
    for n in range(rounds):
        prepared.before()
        calls[n % len(calls)]()
    wait(device)
    queued = (time.perf_counter() - begin) / rounds
    spread = statistics.quantiles(each, n=4) if len(each) > 3 else (min(each), each[0], max(each))
    return {
        "eager_seconds": statistics.median(each),
        "eager_quartiles": [spread[0], spread[2]],
        "queued_seconds": queued,
        "rounds": rounds,
    }


def timed_as_graph(prepared: Prepared, device: torch.device) -> dict[str, Any]:
    """One graph of all calls, replayed; its outputs against those of the eager calls."""
    calls = prepared.calls
    want = [call() for call in calls] if prepared.exact is not None else []
    side = torch.cuda.Stream(device)
    side.wait_stream(torch.cuda.current_stream(device))
    with torch.cuda.stream(side):
        for _ in range(2):
            for call in calls:
                call()
    torch.cuda.current_stream(device).wait_stream(side)
    wait(device)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        got = [call() for call in calls]  # kept: the outputs of one call are not written over by the next
    graph.replay()
    wait(device)
    for eager, replayed in zip(want, got, strict=False):
        compare(eager, replayed, exact=bool(prepared.exact))
    del want
    times = []
    begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    for _ in range(REPLAYS):
        graph.replay()  # the GPU is busy while the host asks for the next one, whose launch is then no part of the time
        begin.record()
        graph.replay()
        end.record()
        end.synchronize()
        times.append(begin.elapsed_time(end) / 1000 / len(calls))
    quartiles = statistics.quantiles(times, n=4)
    return {
        "graph_seconds": statistics.median(times),
        "graph_quartiles": [quartiles[0], quartiles[2]],
        "replays": REPLAYS,
        "calls_in_graph": len(calls),
        "replay_equals_eager": {True: "to the bit", False: "to rounding", None: "not compared"}[prepared.exact],
    }


def compare(eager: Any, replayed: Any, *, exact: bool) -> None:
    """AssertionError where the replay of a graph gives other outputs than the eager call."""
    if isinstance(eager, Tensor):
        assert eager.shape == replayed.shape and eager.dtype == replayed.dtype, "a replay gives tensors of another shape"
        if exact:
            same = (eager == replayed) | ((eager != eager) & (replayed != replayed))
            assert bool(same.all()), "a graph's replay differs from the eager call"
        else:
            limit = 1e-4 * max(float(eager.double().abs().max()), 1e-30) if eager.numel() else 0.0
            assert not eager.numel() or float((eager.double() - replayed.double()).abs().max()) <= limit, (
                "a graph's replay differs from the eager call by more than rounding"
            )
    elif isinstance(eager, (tuple, list)):
        for a, b in zip(eager, replayed, strict=True):
            compare(a, b, exact=exact)


def profiled(prepared: Prepared, device: torch.device, seconds: float = 0.0) -> dict[str, Any]:
    """The kernels of a call and how long each took; on a CPU the operators."""
    from torch.profiler import ProfilerActivity, profile

    cuda = device.type == "cuda"
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if cuda else [])]
    times = PROFILED if seconds < LONG else 1
    try:
        with profile(activities=activities) as seen:
            for n in range(times):
                prepared.before()
                prepared.calls[n % len(prepared.calls)]()
            wait(device)
        events = seen.events() if cuda else []
    except RuntimeError as error:  # CUPTI may be forbidden
        return {"kernels": [], "profiler": f"{type(error).__name__}: {error}"[:300]}
    if not cuda:
        averages = sorted(seen.key_averages(), key=lambda event: -event.self_cpu_time_total)
        return {"kernels": [kernel_row(e.key, e.count / times, e.self_cpu_time_total / times) for e in averages[:12]]}
    spans = [
        (event.name, event.time_range.start, event.time_range.end)
        for event in events
        if event.device_type == torch.autograd.DeviceType.CUDA
        and not getattr(event, "is_user_annotation", False)
        and event.time_range.end > event.time_range.start
    ]
    return {"kernels": kernel_table(spans, times), "busy_seconds": union([span[1:] for span in spans]) / times / 1e6}


def kernel_row(name: str, calls: float, microseconds: float) -> dict[str, Any]:
    return {"kernel": name[:500], "calls": round(calls, 2), "microseconds": round(microseconds, 2)}


def kernel_table(spans: Sequence[tuple[str, float, float]], times: int, most: int = 12) -> list[dict[str, Any]]:
    """Kernels of one call by the time they take; microseconds and number of launches a call."""
    total: dict[str, float] = {}
    count: dict[str, int] = {}
    for name, begin, end in spans:
        total[name] = total.get(name, 0.0) + end - begin
        count[name] = count.get(name, 0) + 1
    ordered = sorted(total, key=lambda name: -total[name])
    return [kernel_row(name, count[name] / times, total[name] / times) for name in ordered[:most]]


def union(spans: Sequence[tuple[float, float]]) -> float:
    """Length of the union of intervals: time in which at least one kernel ran."""
    covered, last = 0.0, float("-inf")
    for begin, end in sorted(spans):
        covered += max(0.0, end - max(begin, last))
        last = max(last, end)
    return covered
