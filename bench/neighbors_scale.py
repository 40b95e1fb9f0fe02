"""Seconds and peak memory of pseudo-labels as the training set grows: kNN, Jaccard distance, DBSCAN.

    python bench/neighbors_scale.py [--rows 10000 50000 200000] [--device cuda] [--note "..."] --out bench/results/NAME.json
    python bench/neighbors_scale.py --approximate --rows 1000000 --out ...

Every size runs in a process of its own, so that its peak is its own. Two peaks are given: of the whole process (features and
libraries included) and of what Jaccard and DBSCAN add to the memory in use when the neighbours are there. Pairs are stored up
to DBSCAN's radius, as `pseudo_labels.cluster` does (--all: every pair that shares a neighbour). --approximate takes neighbours
from nearby clusters instead of `ops.knn`, whose time grows with the square of the rows; what follows does the same work. With
--device cuda both peaks are of the GPU's memory that torch holds, and each time ends when the GPU has finished.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path

from provenance import commit, device_name

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


def approximate_neighbours(x, k: int, near: int = 8):
    """Many of the k nearest rows of each row x [N, D], itself first: those in its own and the nearest of the clusters that the
    features were drawn from, 320 rows or so."""
    import torch
    from neighbors import clusters

    from gcl_fast.ops._knn import Lists

    centre, member, _ = clusters(*x.shape)
    basis = torch.linalg.svd(x[:1000], full_matrices=False)[2][: centre.shape[1]]
    short = x @ basis.T  # [N, 32]: the features have no more directions
    sizes = torch.bincount(member, minlength=len(centre))
    members = list(member.argsort(stable=True).split(sizes.tolist()))
    middle = torch.zeros_like(centre).index_add_(0, member, short) / sizes.clamp_min(1)[:, None]
    middle = torch.nn.functional.normalize(middle, dim=1)
    nearest = torch.cat([(part @ middle.T).topk(min(near, len(centre)), dim=1).indices for part in middle.split(256)])
    lists = Lists.empty(len(x), k, x)
    for own, others in zip(members, nearest.tolist(), strict=True):
        column = torch.cat([members[c] for c in others])
        product = short[own] @ short[column].T
        product.masked_fill_(own[:, None] == column[None], 2.0)  # itself first
        lists.value[own], best = product.topk(k, dim=1)
        lists.index[own] = column[best]
    lists.value[:, 0] = 1.0
    return lists


def measured(rows: int, dim: int, device: str, *, approximate: bool, every: bool) -> dict:
    import torch
    from neighbors import features

    from gcl_fast import ops

    def timed(work):
        used.wait()
        begin, busy = time.perf_counter(), time.process_time()
        out = work()
        used.wait()
        return out, round(time.perf_counter() - begin, 3), round(time.process_time() - busy, 3)

    jaccard, reach = ops.neighbors._jaccard, 1.0 if every else EPS
    used = GpuMemory() if device == "cuda" else HostMemory()
    x = features(rows, dim, torch.device(device))
    ops.dbscan(ops.jaccard_distance(x[:500], K1, K2), EPS, MIN_SAMPLES)  # libraries warm
    (similarity, index), knn, knn_busy = timed(lambda: approximate_neighbours(x, K1) if approximate else ops.knn(x, K1))
    knn_peak, before = used.peak(), used.restart()
    sets, weights, weights_busy = timed(lambda: jaccard.neighbour_sets(index, similarity, x, K1, K2))
    parts, overlaps, overlaps_busy = timed(lambda: jaccard.distances(sets, reach))
    distance = ops.SparseDistance(*parts, shape=(rows, rows))
    labels, dbscan, dbscan_busy = timed(lambda: ops.dbscan(distance, EPS, MIN_SAMPLES))
    peak = used.peak()
    entries, holders = len(sets.rows.columns), sets.holders.start.diff()
    return {
        "rows": rows,
        "dim": dim,
        "neighbours": "approximate" if approximate else "exact",
        "knn_s": knn,
        "jaccard_s": round(weights + overlaps, 3),
        "overlaps_s": overlaps,
        "dbscan_s": dbscan,
        "processor_s": {  # of all threads: what a shared machine does not distort
            "knn": knn_busy,
            "weights": weights_busy,
            "overlaps": overlaps_busy,
            "dbscan": dbscan_busy,
        },
        "peak_rss_mb" if device == "cpu" else "peak_gpu_mb": round(max(peak, knn_peak)),
        "jaccard_dbscan_extra_mb": round(peak - before),
        "pairs": len(distance.values),
        "weights_a_row": round(entries / rows, 1),
        "terms_a_row": round(int(holders[sets.rows.columns.long()].sum()) / rows, 1),
        "clusters": int(labels.max()) + 1,
        "outliers": int((labels < 0).sum()),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[10000, 50000, 200000])
    parser.add_argument("--one", type=int, nargs=2, metavar=("ROWS", "DIM"), help="measure this size here and print it")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--approximate", action="store_true", help="neighbours from nearby clusters")
    parser.add_argument("--all", action="store_true", help="store every pair that shares a neighbour")
    parser.add_argument("--note", default="")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(measured(*options.one, options.device, approximate=options.approximate, every=options.all)))
        return
    if options.device == "cuda":
        import torch

        if not torch.cuda.is_available():
            parser.error("--device cuda: torch sees no CUDA GPU here")
    given = (("--approximate", options.approximate), ("--all", options.all))
    flags = [flag for flag, asked in given if asked]
    flags += ["--device", options.device] if options.device != "cpu" else []
    result = {
        "device": device_name(options.device),
        "commit": commit(),
        "date": f"{datetime.datetime.now(datetime.timezone.utc):%Y-%m-%d}",
        "command": " ".join(["python bench/neighbors_scale.py", *flags, "--rows", *map(str, options.rows)]),
        "torch": version("torch"),
        "threads": int(os.environ.get("OMP_NUM_THREADS", os.cpu_count())),
        "note": options.note,
        "sizes": [],
    }
    for rows, dim in [*([] if options.approximate else [MARKET]), *((rows, DIM) for rows in options.rows)]:
        command = [sys.executable, __file__, "--one", str(rows), str(dim), *flags]
        run = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        result["sizes"].append(json.loads(run.stdout))
        print(run.stdout.strip(), flush=True)
        if options.out:
            options.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
