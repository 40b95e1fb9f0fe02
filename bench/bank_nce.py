"""ops.bank_nce, forward and backward to the query, against its reference."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from gcl_fast import ops, reference

OP = "bank_nce"
CHECK = "loss and gradient within 1e-5 (relative) of the reference in float64"
QUICK = {"batch": [16], "rows": [2048], "dim": [256], "negatives": [1024]}
FULL = {"batch": [16, 64], "rows": [12936, 32621], "dim": [512, 2048], "negatives": [8192]}


def inputs(case: dict, device: torch.device, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    bank = torch.nn.functional.normalize(torch.randn(case["rows"], case["dim"], generator=generator), dim=1)
    labels = torch.randint(-1, case["rows"] // 20, (case["rows"],), generator=generator)
    positive = torch.randint(0, case["rows"], (case["batch"], 3), generator=generator)
    query = torch.nn.functional.normalize(torch.randn(case["batch"], case["dim"], generator=generator), dim=1)
    return query.to(device, dtype), bank.to(device, dtype), labels.to(device), positive.to(device)


def loss_and_gradient(nce: Callable[..., Tensor], case: dict, query: Tensor, *rest: Tensor) -> tuple[Tensor, Tensor]:
    query = query.detach().requires_grad_()
    loss = nce(query, *rest, temperature=0.04, num_negatives=case["negatives"], seed=3)
    return loss.detach(), torch.autograd.grad(loss.sum(), query)[0]


def check(case: dict, device: torch.device) -> None:
    got = loss_and_gradient(ops.bank_nce, case, *inputs(case, device))
    want = loss_and_gradient(reference.bank_nce, case, *inputs(case, device, torch.float64))
    for a, b in zip(got, want, strict=True):
        assert (a - b).abs().max() <= 1e-5 * b.abs().max()


def call(implementation: str, case: dict, device: torch.device) -> Callable[[], object]:
    nce = (ops if implementation == "native" else reference).bank_nce
    arguments = inputs(case, device)
    return lambda: loss_and_gradient(nce, case, *arguments)


def test_bank_nce(case, implementation, device, measure) -> None:
    measure()
