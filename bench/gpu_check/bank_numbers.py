"""The memory contrast of one iteration: loss, both gradients and the update; rivals as `bench/bank.py` has them."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import Tensor

from bench import bank, floors
from bench.gpu_check.catalogue import Number
from bench.gpu_check.measuring import Call, Prepared, copies_for
from gcl_fast import ops

TOLERANCE = 1e-4  # of float32 sums in another order; both read a bfloat16 bank as it is


def prepare(number: Number, device: torch.device) -> Prepared:
    case = number.case
    given = bank.inputs(case, device)
    stored = given["bank"]
    copies = min(copies_for(stored.numel() * stored.element_size(), device), 8)
    inputs = [given] + [{**given, "bank": stored.roll(n, 0), "labels": given["labels"].roll(n)} for n in range(1, copies)]

    def check() -> str:
        if number.implementation == "native":
            bank.check(case, device)
            return bank.CHECK
        if number.implementation == "official":
            assert bool(torch.isfinite(bank.official_step(case, bank.inputs(case, device))).all())
            return "its gradient is finite: it draws negatives in another way"
        loss, want = all_negatives(bank.inputs(case, device), _contrast(number.implementation))
        assert abs(loss - want) <= TOLERANCE * abs(want), f"the loss over all negatives is {loss:.6f}, ours {want:.6f}"
        return f"the loss over all negatives within {TOLERANCE} of ours (relative)"

    capture = {"official": "it reads back every row", "compiled": "torch.compile makes its own"}.get(number.implementation, "")
    work = floors.bank_step(case["batch"], case["rows"], case["dim"], case["negatives"], stored.element_size())
    calls = [_call(number.implementation, case, each) for each in inputs]
    warms_up = number.implementation == "compiled"
    return Prepared(
        calls, check, work, capture=capture, promised=number.implementation == "native", exact=None, warms_up=warms_up
    )


def _call(implementation: str, case: dict[str, Any], given: dict[str, Tensor]) -> Call:
    if implementation == "native":
        return lambda: bank.step(ops, case, given)
    if implementation == "official":
        return lambda: bank.official_step(case, given)
    function = _contrast(implementation)
    return lambda: bank.eager_step(function, case, given)


@cache
def _contrast(implementation: str) -> Callable[..., Tensor]:
    return torch.compile(bank.contrast) if implementation == "compiled" else bank.contrast


def all_negatives(given: dict[str, Tensor], contrast: Callable[..., Tensor]) -> tuple[float, float]:
    """A rival's loss and ours of the same positives where every other row is a negative: nothing is drawn."""
    stored, labels, index = (given[name] for name in ("bank", "labels", "index"))
    same = labels[index][:, None] == labels
    rows = torch.stack([index, index, index], 1)  # [B, 3]
    loss = float(contrast(given["f"], given["view"], stored, ~same, rows, len(stored)))
    f, view = (torch.nn.functional.normalize(given[name], dim=1) for name in ("f", "view"))
    positive = torch.stack([view, view, f], 1)  # [B, 3, D]
    ours = ops.bank_nce(view, stored, labels, rows, positive_query=positive, temperature=bank.TEMPERATURE)
    return loss, float(ours.mean(0).sum())
