"""k-reciprocal re-ranking as `compat.re_ranking` gives it, against the usual algorithm: dense (Q + G) x (Q + G) matrices, a
full sort of every row and a Python loop over images (Zhong et al., CVPR 2017). Distances are given; both results are compared.

    python bench/rerank.py [--queries 500] [--gallery 2500] [--note "..."] --out bench/results/rerank_cpu.json
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np
import torch
from neighbors import features
from provenance import commit, device_name

from gcl_fast.compat.ranking import re_ranking

K1, K2, SHARE = 20, 6, 0.3


def usual(qg: np.ndarray, qq: np.ndarray, gg: np.ndarray) -> np.ndarray:
    """Re-ranked distances [Q, G] by dense matrices of all Q + G images."""
    queries = len(qq)
    scaled = np.block([[qq, qg], [qg.T, gg]]).astype(np.float32) ** 2
    scaled = (scaled / scaled.max(axis=0)).T
    rank = np.argsort(scaled, axis=1, kind="stable")
    weight = np.zeros_like(scaled)

    def mutual(i: int, k: int) -> np.ndarray:
        forward = rank[i, : k + 1]
        return forward[(rank[forward, : k + 1] == i).any(axis=1)]

    for i in range(len(scaled)):
        near = expanded = mutual(i, K1)
        for c in near:
            theirs = mutual(c, int(np.around(K1 / 2)))
            if len(np.intersect1d(theirs, near)) > 2 / 3 * len(theirs):
                expanded = np.append(expanded, theirs)
        expanded = np.unique(expanded)
        score = np.exp(-scaled[i, expanded])
        weight[i, expanded] = score / score.sum()
    weight = np.stack([weight[rank[i, :K2]].mean(axis=0) for i in range(len(scaled))])
    holders = [np.flatnonzero(weight[:, n]) for n in range(len(scaled))]
    distance = np.zeros((queries, len(scaled)), dtype=np.float32)
    for i in range(queries):
        shared = np.zeros(len(scaled), dtype=np.float32)
        for n in np.flatnonzero(weight[i]):
            shared[holders[n]] += np.minimum(weight[i, n], weight[holders[n], n])
        distance[i] = 1 - shared / (2 - shared)
    return ((1 - SHARE) * distance + SHARE * scaled[:queries])[:, queries:]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--queries", type=int, default=500)
    parser.add_argument("--gallery", type=int, default=2500)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--note", default="")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    x = features(options.queries + options.gallery, 256, torch.device("cpu"))
    distance, q = (2 - 2 * x @ x.T).clamp(min=0).fill_diagonal_(0).numpy(), options.queries
    parts = distance[:q, q:], distance[:q, :q], distance[q:, q:]
    seconds: dict[str, list[float]] = {"native": [], "usual": []}
    results = {}
    for _ in range(options.rounds):
        for name, work in (("native", lambda: re_ranking(*parts, K1, K2, SHARE)), ("usual", lambda: usual(*parts))):
            begin = time.perf_counter()
            results[name] = work()
            seconds[name].append(time.perf_counter() - begin)
    difference = float(np.abs(results["native"] - results["usual"]).max())
    best = {name: round(min(values), 4) for name, values in seconds.items()}
    result = {
        "device": device_name(),
        "commit": commit(),
        "command": f"python bench/rerank.py --queries {q} --gallery {options.gallery} --rounds {options.rounds}",
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "note": options.note,
        "queries": q,
        "gallery": options.gallery,
        "largest_difference": difference,
        "seconds_best_of": options.rounds,
        "seconds": best,
        "ratio": round(best["usual"] / best["native"], 2),
    }
    print(json.dumps(result, indent=1))
    assert difference < 1e-5, f"the two differ by {difference}"
    if options.out:
        options.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
