"""ops.rank_metrics against its reference, on features with as many images a person as Market-1501 has."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from gcl_fast import ops, reference

OP = "rank_metrics"
CHECK = "mAP, CMC and mINP within 1e-4 of the reference, at 100 queries and 500 gallery images or fewer"
QUICK = {"queries": [100], "gallery": [500], "dim": [256]}
FULL = {"queries": [100, 3368], "gallery": [500, 15913], "dim": [512, 2048]}


def inputs(queries: int, gallery: int, dim: int, device: torch.device) -> tuple[Tensor, ...]:
    """Query and gallery features, person and camera numbers, in the order of the op."""
    generator = torch.Generator().manual_seed(0)
    person = torch.arange(queries + gallery) % max(gallery // 20, 1)
    camera = torch.randint(0, 6, (queries + gallery,), generator=generator)
    centre = torch.randn(int(person.max()) + 1, dim, generator=generator)
    x = centre[person] + 2.0 * torch.randn(queries + gallery, dim, generator=generator)
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
    assert 0.05 < want.mAP <= 1


def call(implementation: str, case: dict, device: torch.device) -> Callable[[], object]:
    metrics = (ops if implementation == "native" else reference).rank_metrics
    arguments = inputs(case["queries"], case["gallery"], case["dim"], device)
    return lambda: metrics(*arguments)


def test_rank_metrics(case, implementation, device, measure) -> None:
    measure()
