"""ops.rank_metrics against its reference, and beside: `product`, the bare product of features that any ranking pays for;
`argsort`, that product and torch's sort of every row; `official`, the scores as ReID codes compute them: argsort in NumPy, then a
loop over the queries with scikit-learn's average precision, and a second sort for CMC. Features with as many images a person as
Market-1501 has, whose people overlap.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from gcl_fast import ops, reference

OP = "ranking"
IMPLEMENTATIONS = ("native", "reference", "product", "argsort", "official")
CHECK = "mAP, CMC and mINP within 1e-4 of the reference, at 100 queries and 500 gallery images or fewer"
QUICK = {"queries": [100], "gallery": [500], "dim": [256]}
FULL = {"queries": [100, 3368], "gallery": [500, 15913], "dim": [2048]}  # the last: Market-1501
STEP = 512  # queries in a product


def inputs(queries: int, gallery: int, dim: int, device: torch.device) -> tuple[Tensor, ...]:
    """Query and gallery features, person and camera numbers, in the order of the op."""
    generator = torch.Generator().manual_seed(0)
    person = torch.arange(queries + gallery) % max(gallery // 20, 1)
    camera = torch.randint(0, 6, (queries + gallery,), generator=generator)
    centre = torch.randn(int(person.max()) + 1, dim, generator=generator)
    noise = 2.0 * (dim / 64) ** 0.25  # people overlap whatever the width is
    x = centre[person] + noise * torch.randn(queries + gallery, dim, generator=generator)
    parts = (x[:queries], x[queries:], person[:queries], person[queries:], camera[:queries], camera[queries:])
    return tuple(part.to(device) for part in parts)


def fits(case: dict) -> bool:
    return case["queries"] * case["gallery"] <= 50_000


def check(case: dict, device: torch.device) -> None:
    arguments = inputs(min(case["queries"], 100), min(case["gallery"], 500), case["dim"], device)
    got, want = ops.rank_metrics(*arguments), reference.rank_metrics(*arguments)
    assert got.num_valid == want.num_valid
    assert abs(got.mAP - want.mAP) <= 1e-4 and abs(got.mINP - want.mINP) <= 1e-4
    assert (torch.as_tensor(got.cmc) - torch.as_tensor(want.cmc)).abs().max() <= 1e-4
    assert 0.05 < want.mAP < 1
    if device.type == "cpu":
        assert abs(official(*arguments)[0] - want.mAP) <= 1e-4


def official(query: Tensor, gallery: Tensor, *ids: Tensor) -> tuple[float, np.ndarray]:
    """mAP and CMC (50 ranks) by sorting all distances, twice, and a loop over the queries."""
    from sklearn.metrics import average_precision_score

    query, gallery = (torch.nn.functional.normalize(x) for x in (query, gallery))
    distance = (2 - 2 * query @ gallery.T).cpu().numpy()
    qp, gp, qc, gc = (t.cpu().numpy() for t in ids)
    indices = np.argsort(distance, axis=1)
    precisions = []
    for q in range(len(qp)):
        ranking = indices[q]
        keep = (gp[ranking] != qp[q]) | (gc[ranking] != qc[q])
        right = (gp[ranking] == qp[q])[keep]
        if right.any():
            precisions.append(average_precision_score(right, -distance[q][ranking][keep]))
    indices = np.argsort(distance, axis=1)
    curves = []
    for q in range(len(qp)):
        ranking = indices[q]
        keep = (gp[ranking] != qp[q]) | (gc[ranking] != qc[q])
        right = (gp[ranking] == qp[q])[keep]
        if right.any():
            curves.append(np.minimum(right.cumsum(), 1)[:50])
    return float(np.mean(precisions)), np.mean(curves, axis=0)


def product(query: Tensor, gallery: Tensor, *, sort: bool) -> None:
    for first in range(0, len(query), STEP):
        similarity = query[first : first + STEP] @ gallery.T
        if sort:
            similarity.argsort(dim=1, descending=True)


def call(implementation: str, case: dict, device: torch.device) -> Callable[[], object]:
    arguments = inputs(case["queries"], case["gallery"], case["dim"], device)
    if implementation in ("product", "argsort"):
        unit = [torch.nn.functional.normalize(x) for x in arguments[:2]]
        return lambda: product(*unit, sort=implementation == "argsort")
    functions = {"native": ops.rank_metrics, "reference": reference.rank_metrics, "official": official}
    return lambda: functions[implementation](*arguments)


def test_ranking(case, implementation, device, measure) -> None:
    measure()
