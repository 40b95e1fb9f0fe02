"""ops.jaccard_distance against its reference, on clustered features, nearest neighbours included."""

from __future__ import annotations

from collections.abc import Callable

import torch
from knn import features

from gcl_fast import ops, reference

OP = "jaccard_distance"
CHECK = "distances within 1e-5 of the reference at 300 rows"
QUICK = {"rows": [300], "dim": [256]}
FULL = {"rows": [300, 4000, 12936], "dim": [512, 2048]}


def fits(case: dict) -> bool:
    return case["rows"] <= 300


def check(case: dict, device: torch.device) -> None:
    x = features(300, case["dim"], device)
    got, want = ops.jaccard_distance(x).to_dense(), reference.jaccard_distance(x).to_dense()
    assert (got.cpu() - want.cpu()).abs().max() <= 1e-5
    assert 0.005 < (want < 1).float().mean() < 0.5


def call(implementation: str, case: dict, device: torch.device) -> Callable[[], object]:
    jaccard = (ops if implementation == "native" else reference).jaccard_distance
    x = features(case["rows"], case["dim"], device)
    return lambda: jaccard(x)


def test_jaccard_distance(case, implementation, device, measure) -> None:
    measure()
