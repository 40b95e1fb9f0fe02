"""ops.knn against its reference, on clustered features."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from gcl_fast import ops, reference

OP = "knn"
CHECK = "similarities within 1e-5 of the reference, each row its own first neighbour, at 1,000 rows or fewer"
QUICK = {"rows": [1000], "dim": [256], "k": [30]}
FULL = {"rows": [1000, 12936, 32621], "dim": [512, 2048], "k": [30]}


def features(rows: int, dim: int, device: torch.device) -> Tensor:
    """Features [N, D] of a training set: about 40 rows a cluster."""
    generator = torch.Generator().manual_seed(0)
    centre = torch.randn(max(rows // 40, 1), dim, generator=generator)
    member = torch.arange(rows) % len(centre)
    return (centre[member] + 0.7 * torch.randn(rows, dim, generator=generator)).to(device)


def fits(case: dict) -> bool:
    return case["rows"] <= 1000


def check(case: dict, device: torch.device) -> None:
    x = features(min(case["rows"], 1000), case["dim"], device)
    similarity, index = ops.knn(x, case["k"])
    want, _ = reference.knn(x, case["k"])
    assert (similarity - want).abs().max() <= 1e-5
    assert torch.equal(index[:, 0].cpu(), torch.arange(len(x)))


def call(implementation: str, case: dict, device: torch.device) -> Callable[[], object]:
    knn = (ops if implementation == "native" else reference).knn
    x = features(case["rows"], case["dim"], device)
    return lambda: knn(x, case["k"])


def test_knn(case, implementation, device, measure) -> None:
    measure()
