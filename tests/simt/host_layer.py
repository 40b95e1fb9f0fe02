"""The launch layers of csrc on the CPU: each *_cuda.cu with emulated kernels and a recorded CUDA runtime, called through torch.

`run(layers, order)` compiles them as one source and starts a process in which every native op of these layers is called as the
public ops call it, by the cases of tests/cuda_cases.py, and compared with the CPU's kernel. A wrong result, what the emulation
finds, and a call of the host that the record objects to (host/cuda_runtime.h) are a SimtError.
"""

from __future__ import annotations

import ctypes
import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
from collections import defaultdict
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from tests.simt.harness import CSRC, HERE, ROOT, SECONDS, SimtError, compiler, digest_of

TORCH = Path(torch.__file__).resolve().parent
LAYERS = sorted(str(path.relative_to(CSRC)) for path in CSRC.rglob("*_cuda.cu"))
FLAGS = ("-std=c++20", "-O0", "-Wall", "-Wextra", "-ffp-contract=off", "-fPIC", "-shared", "-fvisibility=hidden")
FLAGS += ("-fno-gnu-unique", "-DGCL_SIMT", "-DUSE_CUDA", "-DTORCH_TARGET_VERSION=0x020a000000000000")
# Ops whose sums have another order on the GPU; all others have the CPU's bits.
NEAR = {
    "bank_nce": 4e-6,
    "gcl_memory_loss": 4e-6,
    "gcl_memory_step_": 4e-6,
    "gcl_memory_backward": 4e-6,
    "bank_update_": 2e-6,
    "halve_rows": 1e-6,
    "candidate_products": 1e-6,
    "expansion_weights": 1e-6,
    "row_products": 4e-6,
    "softmax_rows_": 4e-6,
}


@cache
def build(layers: tuple[str, ...], csrc: Path = CSRC) -> Path:
    """The library of launch layers, such as "rasterize/rasterize_cuda.cu", kept by the contents of its sources.

    One source, not optimised: most of the time goes into the headers, and kernels run for seconds.
    """
    sources = [HERE / "host/layer.cpp", HERE / "host/cuda_runtime.h", *(csrc / layer for layer in layers)]
    name = f"host-{Path(layers[0]).stem if len(layers) == 1 else 'layers'}"
    library = csrc.parent / "build/simt" / f"{name}-{digest_of(sources, *FLAGS, torch.__version__, str(csrc), csrc=csrc)}.so"
    if library.is_file():
        return library
    library.parent.mkdir(parents=True, exist_ok=True)
    include = [f"-I{HERE / 'host'}", f"-I{HERE}", f"-I{csrc}", "-isystem", str(TORCH / "include")]
    link = [f"-L{TORCH / 'lib'}", "-ltorch", "-ltorch_cpu", "-lc10"]
    with tempfile.TemporaryDirectory(dir=library.parent) as folder:
        linked, listed = Path(folder) / "layers.so", Path(folder) / "layers.h"
        listed.write_text("".join(f'#include "{layer}"\n' for layer in layers))
        command = [
            *compiler(),
            *FLAGS,
            f'-DHOST_SOURCE="{listed.name}"',
            f"-I{folder}",
            *include,
            str(sources[0]),
            "-o",
            str(linked),
            *link,
        ]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise SimtError(f"{', '.join(layers)}: does not compile on the recorded CUDA runtime:\n{done.stderr[:6000]}")
        for old in library.parent.glob(f"{name}-*"):
            if old != library:
                old.unlink(missing_ok=True)
        linked.replace(library)
    return library


def run(layers: list[str], order: str, csrc: Path = CSRC, cases: str = "") -> dict[str, dict[str, int]]:
    """How often each native op of the layers was called (of one shape once), and how many launches it made. Raises SimtError with
    what is wrong. cases: only those of tests/cuda_cases.py whose name begins so."""
    command = [sys.executable, "-m", "tests.simt.host_layer", order, str(build(tuple(layers), csrc)), cases]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT, env=environment)
    if done.returncode == -signal.SIGXCPU:
        raise SimtError(f"{layers} in {order} order did not end in {SECONDS} s of a processor")
    if done.returncode != 0:
        raise SimtError(f"{layers} in {order} order, exit code {done.returncode}:\n{done.stderr[-6000:]}")
    found: dict[str, dict[str, int]] = json.loads(done.stdout)
    return found


class Emulated(TorchDispatchMode):
    """Calls the emulated op beside each native one, and compares; of calls with arguments of the same shapes the first."""

    def __init__(self, order: str, library: str) -> None:
        super().__init__()
        self.schemas = torch.library.Library("gcl_emulated", "DEF")
        for name in torch._C._dispatch_get_all_op_names():
            if name.startswith("gcl_fast::"):
                op = getattr(torch.ops.gcl_fast, name.split("::")[1].split(".")[0]).default
                self.schemas.define(str(op._schema).split("::", 1)[1])
        self.library = ctypes.CDLL(library)
        self.library.simt_report.restype = ctypes.c_char_p
        assert self.library.simt_set_order(order.encode(), ctypes.c_uint64(7)) == 0, order
        self.shapes: set[tuple[object, ...]] = set()
        self.seen: dict[str, dict[str, int]] = defaultdict(lambda: {"calls": 0, "launches": 0})

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None) -> Any:
        if func.namespace != "gcl_fast":
            return func(*args, **(kwargs or {}))
        name = func._schema.name.split("::")[1]
        if not torch._C._dispatch_has_kernel_for_dispatch_key(f"gcl_emulated::{name}", "CPU"):
            return func(*args)
        shapes = (name, *((a.dtype, a.shape) if isinstance(a, Tensor) else str(a) for a in args))
        if shapes in self.shapes:
            return func(*args)
        self.shapes.add(shapes)
        given = as_on_cuda(name, args)
        own = tuple(a.clone(memory_format=torch.preserve_format) if isinstance(a, Tensor) else a for a in given)
        got = getattr(torch.ops.gcl_emulated, name)(*own)
        self.note(name)
        out = func(*args)
        one, two = got, out
        if name == "overlap_rows":  # room behind a row's entries is never written
            one, two = ((count, *(entries(count, args[-2], room) for room in rooms)) for count, *rooms in (got, out))
        written = [n for n, argument in enumerate(func._schema.arguments) if argument.alias_info is not None]
        compare(name, [*tensors(one), *(own[n] for n in written)], [*tensors(two), *(args[n] for n in written)])
        return out

    def note(self, name: str) -> None:
        first, *faults = self.library.simt_report().decode().splitlines()
        if faults:
            raise SystemExit(f"{name}: " + "; ".join(faults))
        self.seen[name]["calls"] += 1
        self.seen[name]["launches"] += int(first.split()[0])


def as_on_cuda(name: str, args: tuple[Any, ...]) -> tuple[Any, ...]:
    """With the orders that Python makes on CUDA only."""
    from gcl_fast.ops.interpolate import _entries_by_row
    from gcl_fast.ops.warp import _pixels_by_cell

    if name == "interpolate_backward":
        return (*args[:5], *(_entries_by_row(*args[1:4]) if args[7] else args[5:7]), *args[7:])
    if name == "mesh_warp_backward":
        return (*args[:3], *_pixels_by_cell(*args[1:3]))
    return args


def entries(count: Tensor, starts: Tensor, room: Tensor) -> Tensor:
    """What rows of these counts, from these starts on, hold."""
    spans = zip(starts.tolist(), count.tolist(), strict=False)
    return torch.cat([room[:0], *(room[start : start + number] for start, number in spans)])


def tensors(out: Any) -> list[Tensor]:
    return [] if out is None else list(out) if isinstance(out, (tuple, list)) else [out]


def compare(name: str, got: list[Tensor], want: list[Tensor]) -> None:
    for n, (one, two) in enumerate(zip(got, want, strict=True)):
        where = f"{name}: result {n}"
        if one.dtype != two.dtype or one.shape != two.shape:
            raise SystemExit(f"{where} is {list(one.shape)} {one.dtype}, wanted {list(two.shape)} {two.dtype}")
        near = NEAR.get(name, 0.0) if one.is_floating_point() else 0.0
        if near:
            if not torch.allclose(one, two, rtol=0.0, atol=near * max([1.0, *two.abs().flatten().tolist()])):
                raise SystemExit(f"{where} is off by {float((one - two).abs().max())}")
        elif not torch.equal(one.contiguous().flatten().view(torch.uint8), two.contiguous().flatten().view(torch.uint8)):
            raise SystemExit(f"{where}: {int((one != two).sum())} of {one.numel()} entries differ from the CPU's")


def main(order: str, library: str, cases: str = "") -> None:
    from tests.cuda_cases import CASES

    resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS + 1))  # a kernel that loops for ever is an error, not a hang
    chosen = [(case, case.inputs(0)) for case in CASES if case.name.startswith(cases)]
    assert chosen, f"no case {cases}"
    with Emulated(order, library) as emulated:
        for case, inputs in chosen:
            case.run(inputs)
    print(json.dumps(emulated.seen))


if __name__ == "__main__":
    main(*sys.argv[1:])
