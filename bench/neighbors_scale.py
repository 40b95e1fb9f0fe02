"""Seconds and peak memory of pseudo-labels as the training set grows: kNN, Jaccard distance, DBSCAN.

    python bench/neighbors_scale.py [--rows 10000 50000 200000] [--note "..."] --out bench/results/neighbors_scale_cpu.json
    python bench/neighbors_scale.py --approximate --rows 1000000 --out ...

Every size runs in a process of its own, so that its peak is its own. Two peaks are given: of the whole process (features and
libraries included) and of what Jaccard and DBSCAN add to the memory in use when the neighbours are there. Pairs are stored up
to DBSCAN's radius, as `pseudo_labels.cluster` does (--all: every pair that shares a neighbour). --approximate takes neighbours
from an inverted file instead of `ops.knn`, whose time grows with the square of the rows; what follows does the same work.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
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


def approximate_neighbours(x, k: int, probes: int = 12):
    """Most of the k nearest rows of each row x [N, D], itself first: those in the nearest of about 2 sqrt(N) buckets.

    The features have rank 32 (`neighbors.features`), so 32 numbers a row have the same products.
    """
    import torch

    from gcl_fast.ops._knn import Lists

    basis = torch.linalg.svd(x[torch.randperm(len(x), generator=torch.Generator().manual_seed(1))[:1000]], full_matrices=False)[2]
    short = x @ basis[:32].T  # [N, 32]
    centre = short[torch.randperm(len(x), generator=torch.Generator().manual_seed(2))[: int(2 * len(x) ** 0.5)]]
    bucket = torch.cat([(part @ centre.T).argmax(1) for part in short.split(8192)])
    order = bucket.argsort(stable=True)
    members = list(order.split(torch.bincount(bucket, minlength=len(centre)).tolist()))
    near = torch.cat([(part @ centre.T).topk(probes, dim=1).indices for part in centre.split(1024)])
    lists = Lists.empty(len(x), k, x)
    for own, buckets in zip(members, near.tolist(), strict=True):
        if not len(own):
            continue
        others = torch.cat([members[b] for b in buckets])
        product = short[own] @ short[others].T
        itself = own[:, None] == others[None]
        lists.value[own, 0], lists.index[own, 0] = (short[own] * short[own]).sum(1), own
        best = product.masked_fill_(itself, -2.0).topk(min(k - 1, len(others) - 1), dim=1)
        lists.value[own, 1 : 1 + best.values.shape[1]] = best.values
        lists.index[own, 1 : 1 + best.values.shape[1]] = others[best.indices]
    return lists


def measured(rows: int, dim: int, *, approximate: bool, every: bool) -> dict:
    import torch
    from neighbors import features

    from gcl_fast import ops

    def timed(work):
        begin = time.perf_counter()
        out = work()
        return out, round(time.perf_counter() - begin, 3)

    jaccard, reach = ops.neighbors._jaccard, 1.0 if every else EPS
    x = features(rows, dim, torch.device("cpu"))
    ops.dbscan(ops.jaccard_distance(x[:500], K1, K2), EPS, MIN_SAMPLES)  # libraries warm
    (similarity, index), knn = timed(lambda: approximate_neighbours(x, K1) if approximate else ops.knn(x, K1))
    knn_peak = memory("VmHWM")
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts again from what is in use
    before = memory("VmRSS")
    sets, weights = timed(lambda: jaccard.neighbour_sets(index, similarity, x, K1, K2))
    parts, overlaps = timed(lambda: jaccard.distances(sets, reach))
    distance = ops.SparseDistance(*parts, shape=(rows, rows))
    labels, dbscan = timed(lambda: ops.dbscan(distance, EPS, MIN_SAMPLES))
    peak = memory("VmHWM")
    entries, holders = len(sets.rows.columns), sets.holders.start.diff()
    return {
        "rows": rows,
        "dim": dim,
        "neighbours": "approximate" if approximate else "exact",
        "knn_s": knn,
        "jaccard_s": round(weights + overlaps, 3),
        "overlaps_s": overlaps,
        "dbscan_s": dbscan,
        "peak_rss_mb": round(max(peak, knn_peak)),
        "jaccard_dbscan_extra_mb": round(peak - before),
        "pairs": len(distance.values),
        "weights_a_row": round(entries / rows, 1),
        "terms_a_row": round(int(holders[sets.rows.columns.long()].sum()) / rows, 1),
        "clusters": int(labels.max()) + 1,
        "outliers": int((labels < 0).sum()),
    }


def processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    return f"{names[0] if names else platform.processor()}, {os.cpu_count()} cores"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[10000, 50000, 200000])
    parser.add_argument("--one", type=int, nargs=2, metavar=("ROWS", "DIM"), help="measure this size here and print it")
    parser.add_argument("--approximate", action="store_true", help="neighbours from an inverted file")
    parser.add_argument("--all", action="store_true", help="store every pair that shares a neighbour")
    parser.add_argument("--note", default="")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(measured(*options.one, approximate=options.approximate, every=options.all)))
        return
    flags = [flag for flag, given in (("--approximate", options.approximate), ("--all", options.all)) if given]
    commit = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=True, cwd=Path(__file__).parent)
    result = {
        "device": processor(),
        "commit": commit.stdout.strip(),
        "date": f"{datetime.datetime.now(datetime.timezone.utc):%Y-%m-%d}",
        "command": " ".join(["python bench/neighbors_scale.py", *flags, "--rows", *map(str, options.rows)]),
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
