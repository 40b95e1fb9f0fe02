"""Runs hostile calls of every op for some seconds: python -m tests.fuzz.run --seconds 60

Each case is a function of its number alone: a valid call of a public op, then up to three of its arguments changed; or one of
the raw ops (torch.ops.gcl_fast.*) that a valid call comes to, changed the same way. The calls run in a process of their own,
which notes each number first: one that dies is told by its number and signal, and the next goes on behind it.

A public op may return or raise ValueError, TypeError or NotImplementedError; a raw op any Exception.
"""

from __future__ import annotations

import argparse
import faulthandler
import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from tests.fuzz.changes import changed
from tests.fuzz.valid_calls import CALLS, Call, Draw

ROOT = Path(__file__).resolve().parent.parent.parent
MEMORY = 24 << 30  # bytes of address space; what asks for more is refused as on a full machine
SLOW = 10.0  # seconds of one small call on a busy machine: it does work that nobody asked for
NATIVE = {"rasterize", "interpolate", "render_mesh", "mesh_flow", "mesh_warp", "bank_nce", "gcl_memory_loss", "draw_positives"}
NATIVE |= {"reflect_pad"}
"""Public ops whose every sum is ours: where the numbers lie changes no bit."""

REFUSALS = (ValueError, TypeError, NotImplementedError)
# As torchreid's and fast-reid's where no query has a match.
ALLOWED = {f"compat.evaluate_rank{end}": (AssertionError,) for end in ("", "_fastreid", "_fastreid_means")}


class Recorder(TorchDispatchMode):
    """The raw ops of this package that run inside."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[Call] = []

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if function.namespace == "gcl_fast":
            name = f"torch.ops.gcl_fast.{function._schema.name.partition('::')[2]}"
            self.calls.append(Call(name, function, [_kept(a) for a in args], dict(kwargs or {})))
        return function(*args, **(kwargs or {}))


def _kept(value: Any) -> Any:
    return value.detach().clone() if isinstance(value, Tensor) else value


def _plain(value: Any) -> Any:
    """The same numbers, each tensor contiguous and of its own."""
    if isinstance(value, (tuple, list)):
        return type(value)(_plain(v) for v in value)
    dense = isinstance(value, Tensor) and value.layout == torch.strided
    return value.detach().resolve_neg().clone(memory_format=torch.contiguous_format) if dense else value


def _tensors(value: Any) -> list[Tensor]:
    if isinstance(value, Tensor):
        return [value.detach()]
    return [t for v in value for t in _tensors(v)] if isinstance(value, (tuple, list)) else []


def _without_numbers(call: Call) -> bool:
    """Whether an argument is a meta tensor: torch has words of its own for reading one."""
    return any(t.device.type == "meta" for t in _tensors((call.args, list(call.kwargs.values()))))


def differentiated(call: Call, draw: Draw) -> Any:
    """The call's result, its backward run where it has one."""
    wanted = [a.requires_grad_() for a in call.args if isinstance(a, Tensor) and a.is_floating_point() and a.is_leaf]
    result = call()
    losses = [t for t in (result if isinstance(result, tuple) else [result]) if isinstance(t, Tensor) and t.requires_grad]
    if losses and wanted:
        torch.autograd.grad([t.sum() for t in losses], wanted, allow_unused=True)
    return result


class Cases:
    """Counts of calls by op and outcome; `faults` are lines for a person."""

    def __init__(self) -> None:
        self.outcomes: Counter[str] = Counter()
        self.ops: Counter[str] = Counter()
        self.faults: list[str] = []

    def public(self, number: int) -> None:
        draw = Draw(number)
        call = changed(draw.of(CALLS)(draw), draw)
        self.ops[call.name] += 1
        compared = call.name in NATIVE and draw.chance(0.5) and not _without_numbers(call)
        plain = Call(call.name, call.function, _plain(call.args), {k: _plain(v) for k, v in call.kwargs.items()})
        try:
            result = call() if compared else differentiated(call, draw)
        except Exception as error:
            allowed = REFUSALS + ALLOWED.get(call.name, ()) + ((RuntimeError,) if _without_numbers(plain) else ())
            if isinstance(error, allowed):
                self.outcomes["refused"] += 1
                return
            self.faults.append(f"case {number}, {call.name}: {type(error).__name__}: {str(error).splitlines()[0][:200]}")
            self.outcomes["unnamed error"] += 1
            return
        self.outcomes["returned"] += 1
        if compared:
            for one, other in zip(_tensors(result), _tensors(plain()), strict=True):
                if not torch.allclose(one, other, rtol=0, atol=0, equal_nan=True):
                    self.faults.append(f"case {number}, {call.name}: contiguous arguments give another result")
                    self.outcomes["other result"] += 1
                    break

    def raw(self, number: int) -> None:
        draw = Draw(number)
        valid = draw.of(CALLS)(draw)
        recorder = Recorder()
        try:
            with recorder:
                differentiated(valid, draw)
        except Exception:  # an empty bank, say: what ran until then counts; `public` judges errors
            pass
        if not recorder.calls:
            return
        call = changed(draw.of(recorder.calls), draw)
        self.ops[call.name] += 1
        try:
            with torch.no_grad():
                call()
            self.outcomes["raw returned"] += 1
        except Exception:  # torch's own errors are of many kinds
            self.outcomes["raw refused"] += 1


def child(first: int, seconds: float, count: int, note: str) -> None:
    faulthandler.enable()
    warnings.simplefilter("ignore")
    torch.set_num_threads(2)
    if "ASAN_OPTIONS" not in os.environ:  # a sanitizer's shadow needs terabytes of addresses
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    cases, end, number = Cases(), time.monotonic() + seconds, first
    with np.errstate(all="ignore"), open(note, "r+b", buffering=0) as file:
        while number < first + count and time.monotonic() < end:
            os.pwrite(file.fileno(), b"%-20d" % number, 0)
            if str(number) == os.environ.get("GCL_FUZZ_CRASH_AT"):
                os.kill(os.getpid(), signal.SIGFPE)  # the fuzzer's own test
            before = time.monotonic()
            cases.raw(number) if number % 2 else cases.public(number)
            if time.monotonic() - before > SLOW:
                cases.faults.append(f"case {number} took {time.monotonic() - before:.0f} s")
            number += 1
    print(json.dumps({"next": number, "outcomes": cases.outcomes, "ops": cases.ops, "faults": cases.faults}))


def fuzz(first: int, seconds: float, count: int = 1 << 40) -> dict[str, Any]:
    """Calls from case `first` on; a process that dies is a crash and the next begins behind it."""
    total: dict[str, Any] = {"outcomes": Counter(), "ops": Counter(), "faults": [], "crashes": []}
    end, last = time.monotonic() + seconds, first + count
    while first < last and time.monotonic() < end:
        with tempfile.NamedTemporaryFile(suffix=".case") as note:
            note.write(b"%-20d" % first)
            note.flush()
            left = max(1.0, end - time.monotonic())
            numbers = [f"--first={first}", f"--seconds={left}", f"--count={last - first}", f"--note={note.name}"]
            command = [sys.executable, "-m", "tests.fuzz.run", *numbers]
            path = os.pathsep.join(filter(None, (os.environ.get("PYTHONPATH"), str(ROOT))))
            done = subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ | {"PYTHONPATH": path})
            at = int(Path(note.name).read_text())
        if done.returncode == 0:
            told = json.loads(done.stdout.splitlines()[-1])
            total["outcomes"].update(told["outcomes"])
            total["ops"].update(told["ops"])
            total["faults"] += told["faults"]
            first = told["next"]
            continue
        code = -done.returncode
        name = signal.Signals(code).name if code in {s.value for s in signal.Signals} else f"exit {done.returncode}"
        total["crashes"].append(f"case {at}: {name}\n{done.stderr[:3000]}")
        total["outcomes"]["cases of processes that died"] += at - first
        first = at + 1
    return total


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--first", type=int, default=0, help="number of the first case")
    parser.add_argument("--count", type=int, default=1 << 40)
    parser.add_argument("--note", default="", help="where the process that calls notes what it calls")
    options = parser.parse_args()
    if options.note:
        child(options.first, options.seconds, options.count, options.note)
        return 0
    total = fuzz(options.first, options.seconds, options.count)
    for line in total["faults"][:40] + total["crashes"]:
        print(line)
    print(", ".join(f"{name} {count}" for name, count in sorted(total["ops"].items())))
    print(f"calls {sum(total['ops'].values())}: {dict(total['outcomes'])}; crashes {len(total['crashes'])}", end="")
    print(f", under {os.environ['GCL_SANITIZER']}" if "GCL_SANITIZER" in os.environ else "")
    return bool(total["faults"] or total["crashes"])


if __name__ == "__main__":
    sys.exit(main())
