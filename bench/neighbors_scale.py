"""Seconds and peak memory of pseudo-labels as the training set grows: kNN, Jaccard distance, DBSCAN.

    python bench/neighbors_scale.py [--rows 10000 50000 200000] [--note "..."] --out bench/results/neighbors_scale_cpu.json

Every size runs in a process of its own, so that its peak is its own. Two peaks are given: of the whole process (features and
libraries included) and of what Jaccard and DBSCAN add to the memory in use when the neighbours are there.
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


def measured(rows: int, dim: int) -> dict:
    import torch
    from neighbors import features

    from gcl_fast import ops

    def timed(work):
        begin = time.perf_counter()
        out = work()
        return out, round(time.perf_counter() - begin, 3)

    x = features(rows, dim, torch.device("cpu"))
    ops.dbscan(ops.jaccard_distance(x[:500], K1, K2), EPS, MIN_SAMPLES)  # libraries warm
    (similarity, index), knn = timed(lambda: ops.knn(x, K1))
    knn_peak = memory("VmHWM")
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts again from what is in use
    before = memory("VmRSS")
    parts, jaccard = timed(lambda: ops.neighbors._jaccard.distance(index, similarity, x, K1, K2))
    distance = ops.SparseDistance(*parts, shape=(rows, rows))
    labels, dbscan = timed(lambda: ops.dbscan(distance, EPS, MIN_SAMPLES))
    peak = memory("VmHWM")
    return {
        "rows": rows,
        "dim": dim,
        "knn_s": knn,
        "jaccard_s": jaccard,
        "dbscan_s": dbscan,
        "peak_rss_mb": round(max(peak, knn_peak)),
        "jaccard_dbscan_extra_mb": round(peak - before),
        "pairs": len(distance.values),
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
    parser.add_argument("--note", default="")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(measured(*options.one)))
        return
    commit = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=True, cwd=Path(__file__).parent)
    result = {
        "device": processor(),
        "commit": commit.stdout.strip(),
        "date": f"{datetime.datetime.now(datetime.timezone.utc):%Y-%m-%d}",
        "command": "python bench/neighbors_scale.py --rows " + " ".join(map(str, options.rows)),
        "threads": int(os.environ.get("OMP_NUM_THREADS", os.cpu_count())),
        "note": options.note,
        "sizes": [],
    }
    for rows, dim in [MARKET, *((rows, DIM) for rows in options.rows)]:
        command = [sys.executable, __file__, "--one", str(rows), str(dim)]
        run = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        result["sizes"].append(json.loads(run.stdout))
        print(run.stdout.strip(), flush=True)
        if options.out:
            options.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
