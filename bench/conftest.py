"""Fixtures of the op benches: cases by product, both implementations in one run, every device there is, and what each number
must carry: device, commit, command, versions, and the correctness check that ran before it.

    python -m pytest bench/rasterize.py --benchmark-only [--full] [--benchmark-json OUT]

A bench module holds QUICK and FULL (argument -> values), check(case, device) and call(implementation, case, device) -> the
function to time. `fits(case)` in a module leaves the reference out where it would take minutes; IMPLEMENTATIONS names others to
time beside the two, "floor" being a copy that moves as many bytes as the op must, and left_out(implementation, case) what of
the product is not run.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from provenance import commit, device_name

ROOT = Path(__file__).resolve().parent.parent
DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
SECONDS = {False: 1.0, True: 4.0}  # of timing for each number, quick and full
MIN_ROUNDS, MAX_ROUNDS = 5, 1000  # 3 where a round takes more than a second
KEPT = ("median", "iqr", "min", "max", "mean", "stddev", "rounds")  # in the JSON, seconds
QUEUED = 20  # calls in a row for the time that a GPU takes when nothing waits for it
_checked: set[tuple] = set()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--full", action="store_true", help="the big table of sizes (minutes) instead of the quick one")
    parser.addoption("--device", choices=("cpu", "cuda"), help="only this device (default: every device there is)")


def pytest_configure(config: pytest.Config) -> None:
    config.option.timeout = 0  # the reference takes its time
    if config.getoption("--device") == "cuda" and "cuda" not in DEVICES:
        raise pytest.UsageError("--device cuda: torch sees no CUDA GPU here")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "case" not in metafunc.fixturenames:
        return
    module = metafunc.module
    axes = module.FULL if metafunc.config.getoption("--full") else module.QUICK
    cases = [dict(zip(axes, values, strict=True)) for values in itertools.product(*axes.values())]
    fits = getattr(module, "fits", lambda case: True)
    left_out = getattr(module, "left_out", lambda implementation, case: False)
    only = metafunc.config.getoption("--device")
    runs = [
        pytest.param(case, implementation, torch.device(device), id=f"{_label(case)}-{device}-{implementation}")
        for case in cases
        for device in ([only] if only else DEVICES)
        for implementation in getattr(module, "IMPLEMENTATIONS", ("native", "reference"))
        if (implementation != "reference" or fits(case)) and not left_out(implementation, case)
    ]
    metafunc.parametrize(("case", "implementation", "device"), runs)


def _label(case: dict[str, Any]) -> str:
    return " ".join(f"{name}={'x'.join(map(str, v)) if isinstance(v, tuple) else v}" for name, v in case.items())


@pytest.fixture
def measure(benchmark, request: pytest.FixtureRequest) -> Callable[..., None]:
    """Checks the case, then times the implementation: median of rounds after a warm-up, the GPU waited for in each. `see` is
    given what is timed."""

    def run(see: Callable[[Any], object] = lambda call: None) -> None:
        case, implementation, device = (request.getfixturevalue(name) for name in ("case", "implementation", "device"))
        module, op = request.module, request.module.OP
        if (op, _label(case), device.type) not in _checked:
            module.check(case, device)
            _checked.add((op, _label(case), device.type))
        call = module.call(implementation, case, device)
        see(call)

        def synchronised() -> None:
            call()
            if device.type == "cuda":
                torch.cuda.synchronize()

        synchronised()
        begin = time.perf_counter()
        synchronised()
        once = max(time.perf_counter() - begin, 1e-6)
        budget = SECONDS[request.config.getoption("--full")]
        rounds = int(min(max(budget / once, MIN_ROUNDS if once < 1 else 3), MAX_ROUNDS))
        benchmark.group = f"{op} {_label(case)} {device.type}"
        benchmark.extra_info.update(
            op=op,
            case={name: list(v) if isinstance(v, tuple) else v for name, v in case.items()},
            implementation=implementation,
            check=module.CHECK,
            threads=torch.get_num_threads(),
            device=device_name(device),
            commit=commit(),
            command=command(request.config),
            torch=torch.__version__,
            cuda=torch.version.cuda,
        )
        if device.type == "cuda":
            benchmark.extra_info["queued_seconds"] = _queued(call)
        benchmark.pedantic(synchronised, rounds=rounds, warmup_rounds=5 if once < 0.1 else 0)  # two calls went before

    return run


@pytest.fixture
def measure_images(measure: Callable[..., None], benchmark, request: pytest.FixtureRequest) -> Callable[[], None]:
    """As `measure`, of a case whose "batch" is images: with images a second and, on a GPU, the most memory it took."""

    def run() -> None:
        cuda = request.getfixturevalue("device").type == "cuda"
        if cuda:
            torch.cuda.reset_peak_memory_stats()
        measure()
        benchmark.extra_info["images_per_second"] = round(request.getfixturevalue("case")["batch"] / benchmark.stats["median"], 3)
        if cuda:
            benchmark.extra_info["peak_bytes"] = torch.cuda.max_memory_allocated()

    return run


def _queued(call: Callable[[], object]) -> float:
    """Seconds a call takes on the GPU when calls stand in a queue: no wait between them."""
    begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    begin.record()
    for _ in range(QUEUED):
        call()
    end.record()
    end.synchronize()
    return begin.elapsed_time(end) / QUEUED / 1000


def command(config: pytest.Config) -> str:
    """The command line as anyone would type it: paths from the repository's root, no output files."""
    words, arguments = [], [str(a) for a in config.invocation_params.args]
    for n, word in enumerate(arguments):
        if word.startswith("--benchmark-json") or (n > 0 and arguments[n - 1] == "--benchmark-json"):
            continue
        words.append(word.replace(f"{ROOT}/", "").replace(str(ROOT), "."))
    return "python -m pytest " + " ".join(words)


def pytest_benchmark_update_machine_info(config: pytest.Config, machine_info: dict[str, Any]) -> None:
    """Nothing that names the machine or its folders."""
    cpu = machine_info.get("cpu", {})
    keep = {name: machine_info[name] for name in ("machine", "system", "python_version") if name in machine_info}
    keep["cpu"] = {name: cpu[name] for name in ("arch", "brand_raw", "count") if name in cpu}
    machine_info.clear()
    machine_info.update(keep)


def pytest_benchmark_update_commit_info(config: pytest.Config, commit_info: dict[str, Any]) -> None:
    commit_info.clear()
    commit_info["describe"] = commit()


def pytest_benchmark_update_json(config: pytest.Config, benchmarks: list, output_json: dict[str, Any]) -> None:
    for entry in output_json["benchmarks"]:
        entry["stats"] = {name: entry["stats"][name] for name in KEPT}
        for name in ("params", "param", "options", "fullname"):  # said in extra_info
            entry.pop(name, None)
