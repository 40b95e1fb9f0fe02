"""The process that measures: a job on stdin (which numbers, until when), one line of results for each as soon as it is there.

It imports torch, NumPy and gcl_fast; what is optional is imported by the number that needs it, and where it is not there the
number is left out and says so. A number that fails is a line too, and the next one goes on, unless CUDA itself is broken.
"""

from __future__ import annotations

import gc
import importlib
import importlib.util
import json
import os
import sys
import threading
import time
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import Any

BROKEN = 3  # exit code: CUDA takes no more calls, a new process is needed
FAMILIES = {
    "ceilings": "ceiling_numbers",
    "meshes": "mesh_numbers",
    "bank": "bank_numbers",
    "neighbors": "neighbor_numbers",
    "ranking": "ranking_numbers",
    "loader": "loader_numbers",
    "training": "training_numbers",
}


@dataclass(frozen=True)
class Job:
    """keys: numbers in order; until: wall-clock time after which none is begun; tested: the folder that gcl_fast must come from;
    code: the counted machine code of its kernels."""

    keys: list[str]
    until: float
    kind: str
    toy: bool
    results: str
    identity: dict[str, Any]
    commit: str
    tested: str | None = None
    code: str | None = None


def main() -> int:
    job = Job(**json.load(sys.stdin))
    threading.Thread(target=_end_with_parent, args=(os.getppid(),), daemon=True).start()
    import torch

    import gcl_fast
    from bench.gpu_check import measuring
    from bench.gpu_check.catalogue import numbers
    from bench.gpu_check.records import Records

    if job.toy:
        measuring.SECONDS, measuring.PROFILED = 0.1, 1
    here = Path(gcl_fast.__file__).resolve()
    if job.tested and Path(job.tested).resolve() not in here.parents:
        print(f"gcl_fast was imported from {here}, not from {job.tested}", file=sys.stderr)
        return 1
    device = torch.device(job.kind)
    records = Records(Path(job.results), job.identity, job.commit)
    code = instructions(job.code)
    known = {number.key: number for number in numbers(toy=job.toy)}
    for key in job.keys:
        number = known[key]
        if time.time() + number.expected > job.until:
            continue
        records.add("begun", key, part=number.part)
        found = result(number, device, records)
        found |= {"kernels": [row | code.get(row["kernel"], {}) for row in found["kernels"]]} if found.get("kernels") else {}
        line = records.add("number", key, **found)
        print(f"gpu-check: {summary(line)}", flush=True)
        gc.collect()
        if device.type == "cuda" and not _cuda_lives(device):
            return BROKEN
    return 0


def instructions(path: str | None) -> dict[str, dict[str, int]]:
    """A kernel's name as the profiler shows it -> registers, stack, spills, instructions; empty where none were counted."""
    import torch

    demangle = getattr(torch._C, "_demangle", None)
    try:
        kernels = json.loads(Path(path or "").read_text())
    except (OSError, ValueError):
        return {}
    names = ("registers", "stack", "spills", "instructions")
    return {demangle(k["mangled"]): {name: k[name] for name in names} for k in kernels} if demangle else {}


def result(number: Any, device: Any, records: Any) -> dict[str, Any]:
    """What the line of a number says."""
    from bench.gpu_check.measuring import measure

    begin = time.monotonic()
    what: dict[str, Any] = {"part": number.part, "implementation": number.implementation, "case": number.case}
    what["goal_seconds"] = number.goal
    try:
        if device.type == "cuda":
            import torch

            torch.cuda.reset_peak_memory_stats(device)
        prepared = importlib.import_module(f"bench.gpu_check.{FAMILIES[number.family]}").prepare(number, device)
        found = measure(prepared, device)
    except ImportError as error:
        if (missing := missing_package(error)) is None:
            what |= {"status": "failed", "why": _short(error)}
        else:
            what |= {"status": "left_out", "why": f"needs {missing}, which is not here"}
    except Exception as error:
        what |= {"status": "failed", "why": _short(error), "traceback": traceback.format_exc()[-3000:]}
    else:
        what |= {"status": "ok", **found, **against(prepared.work, number, found, device, records)}
        what |= {} if prepared.work is None else prepared.work.as_dict()
    what["took"] = round(time.monotonic() - begin, 2)
    return what


def against(work: Any, number: Any, found: dict[str, Any], device: Any, records: Any) -> dict[str, Any]:
    """The time beside its goal and its floor (by this GPU's measured ceilings, else the published ones), and images a second."""
    beside: dict[str, Any] = {}
    seconds = found["seconds"]
    if number.goal:
        beside["times_goal"] = seconds / number.goal
    if work is not None and (ceilings := _ceilings(records, device)) is not None:
        floor = work.floor(ceilings[1])
        beside |= {"floor_seconds": floor, "floor_by": f"{ceilings[0]} ceilings"}
        beside |= {"share_of_floor": floor / seconds} if seconds else {}
    images = found.get("images", number.images)
    if images > 0 and seconds:
        beside["images_per_second"] = images / seconds
    if found.get("busy_seconds") and seconds:
        beside["busy_share"] = min(1.0, found["busy_seconds"] / seconds)
    return beside


def _ceilings(records: Any, device: Any) -> tuple[str, Any] | None:
    from bench.floors import Ceilings, published

    ended = records.ended()
    measured = {}
    for name, key, amount in (
        ("bandwidth", "ceiling copy", "bytes_per_call"),
        ("fp32", "ceiling fp32 product", "operations_per_call"),
        ("bf16", "ceiling bf16 product", "operations_per_call"),
    ):
        line = ended.get(key, {})
        if line.get("status") == "ok":
            measured[name] = line[amount] / line["seconds"]
    if len(measured) == 3:
        return "measured", Ceilings(**measured)
    known = published(records.identity.get("device", "")) if device.type == "cuda" else None
    return None if known is None else ("published", known)


def missing_package(error: ImportError) -> str | None:
    """The optional package that is not here; None where one of our own modules fails, or a package that is here."""
    seen: BaseException | None = error
    names = []
    while seen is not None:
        if isinstance(seen, ImportError) and seen.name:
            names.append(seen.name)
        seen = seen.__cause__ or seen.__context__
    for name in names:
        top = name.split(".")[0]
        if top in ("bench", "gcl_fast", "torch", "numpy"):
            return None
        try:
            here = importlib.util.find_spec(name) is not None
        except (ImportError, ValueError):
            here = False
        if not here or name == "faiss":  # faiss without its GPU part
            return name
    return None


def summary(line: dict[str, Any]) -> str:
    """A number in one line, for who watches."""
    if line["status"] != "ok":
        return f"{line['key']}: {line['status']}: {line['why']}"
    said = f"{line['key']}: {short_time(line['seconds'])} ({line['measured_by'].removesuffix('_seconds')})"
    said += f", goal {short_time(line['goal_seconds'])}" if line.get("goal_seconds") else ""
    return said + (f", floor {short_time(line['floor_seconds'])}" if line.get("floor_seconds") else "")


def short_time(seconds: float) -> str:
    for unit, size in (("s", 1.0), ("ms", 1e-3), ("us", 1e-6)):
        if abs(seconds) >= size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds * 1e9:.3g} ns"


def _short(error: Exception) -> str:
    words = str(error).strip().splitlines()
    return f"{type(error).__name__}: {words[0] if words else 'no message'}"[:500]


def _cuda_lives(device: Any) -> bool:
    import torch

    try:
        torch.cuda.synchronize(device)
        torch.cuda.empty_cache()
        return bool(torch.ones(2, device=device).sum().item() == 2)
    except RuntimeError:
        return False


def _end_with_parent(parent: int) -> None:
    """Nobody reads what is measured once the caller was killed."""
    while os.getppid() == parent:
        time.sleep(0.2)
    os._exit(4)


if __name__ == "__main__":
    sys.exit(main())
