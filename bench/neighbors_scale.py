"""Seconds and peak memory of pseudo-labels as the training set grows: kNN, Jaccard distance, DBSCAN.

    python bench/neighbors_scale.py [--rows 10000 50000 200000] [--device cuda] [--note "..."] --out bench/results/NAME.json

Every size runs in a process of its own, so that its peak is its own. Two peaks are given: of the whole process (features and
libraries included) and of what Jaccard and DBSCAN add to the memory in use when the neighbours are there. With --device cuda both
are of the GPU's memory that torch holds, and each time ends when the GPU has finished.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import subprocess
import sys
import time
from pathlib import Path

K1, K2, EPS, MIN_SAMPLES = 30, 6, 0.55, 4
DIM, MARKET = 256, (12936, 2048)  # Market-1501's training set


def memory(field: str) -> float:
    """VmRSS (now) or VmHWM (peak) of this process in MB."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(field))
    return int(line.split()[1]) * 1024 / 1e6


class HostMemory:
    """In MB, of this process."""

    def peak(self) -> float:
        return memory("VmHWM")

    def restart(self) -> float:
        """What is in use now, from which the peak starts again."""
        Path("/proc/self/clear_refs").write_text("5")
        return memory("VmRSS")

    def wait(self) -> None:
        """Nothing is still running."""


class GpuMemory:
    """In MB, of torch's tensors on the GPU."""

    def peak(self) -> float:
        import torch

        return torch.cuda.max_memory_allocated() / 1e6

    def restart(self) -> float:
        import torch

        torch.cuda.reset_peak_memory_stats()
        return torch.cuda.memory_allocated() / 1e6

    def wait(self) -> None:
        import torch

        torch.cuda.synchronize()


def measured(rows: int, dim: int, device: str) -> dict:
    import torch
    from neighbors import features

    from gcl_fast import ops

    def timed(work):
        used.wait()
        begin = time.perf_counter()
        out = work()
        used.wait()
        return out, round(time.perf_counter() - begin, 3)

    used = GpuMemory() if device == "cuda" else HostMemory()
    x = features(rows, dim, torch.device(device))
    ops.dbscan(ops.jaccard_distance(x[:500], K1, K2), EPS, MIN_SAMPLES)  # libraries warm
    (similarity, index), knn = timed(lambda: ops.knn(x, K1))
    knn_peak, before = used.peak(), used.restart()
    parts, jaccard = timed(lambda: ops.neighbors._jaccard.distance(index, similarity, x, K1, K2))
    distance = ops.SparseDistance(*parts, shape=(rows, rows))
    labels, dbscan = timed(lambda: ops.dbscan(distance, EPS, MIN_SAMPLES))
    peak = used.peak()
    return {
        "rows": rows,
        "dim": dim,
        "knn_s": knn,
        "jaccard_s": jaccard,
        "dbscan_s": dbscan,
        "peak_rss_mb" if device == "cpu" else "peak_gpu_mb": round(max(peak, knn_peak)),
        "jaccard_dbscan_extra_mb": round(peak - before),
        "pairs": len(distance.values),
        "clusters": int(labels.max()) + 1,
        "outliers": int((labels < 0).sum()),
    }


def name_of(device: str) -> str:
    import torch

    from gcl_fast.runs.resolved import processor

    return torch.cuda.get_device_name() if device == "cuda" else f"{processor()}, {os.cpu_count()} cores"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[10000, 50000, 200000])
    parser.add_argument("--one", type=int, nargs=2, metavar=("ROWS", "DIM"), help="measure this size here and print it")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--note", default="")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(measured(*options.one, options.device)))
        return
    if options.device == "cuda":
        import torch

        if not torch.cuda.is_available():
            parser.error("--device cuda: torch sees no CUDA GPU here")
    commit = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=True, cwd=Path(__file__).parent)
    result = {
        "device": name_of(options.device),
        "commit": commit.stdout.strip(),
        "date": f"{datetime.datetime.now(datetime.timezone.utc):%Y-%m-%d}",
        "command": "python bench/neighbors_scale.py --rows "
        + " ".join(map(str, options.rows))
        + (" --device cuda" if options.device == "cuda" else ""),
        "threads": int(os.environ.get("OMP_NUM_THREADS", os.cpu_count())),
        "note": options.note,
        "sizes": [],
    }
    for rows, dim in [MARKET, *((rows, DIM) for rows in options.rows)]:
        command = [sys.executable, __file__, "--one", str(rows), str(dim), "--device", options.device]
        run = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        result["sizes"].append(json.loads(run.stdout))
        print(run.stdout.strip(), flush=True)
        if options.out:
            options.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
