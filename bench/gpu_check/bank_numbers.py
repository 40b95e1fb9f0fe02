"""The memory contrast of one iteration: loss, both gradients and the update; rivals as `bench/bank.py` has them."""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch import Tensor

from bench import bank, floors
from bench.gpu_check.catalogue import Number
from bench.gpu_check.measuring import Call, Prepared, copies_for
from gcl_fast import ops


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
        loss, want = (
            _loss(number.implementation, case, bank.inputs(case, device)),
            _loss("native", case, bank.inputs(case, device)),
        )
        assert abs(loss - want) <= 0.1 * want, f"the loss is {loss:.4f}, ours {want:.4f}"
        return "the loss within 10% of ours (its negatives are drawn in another way)"

    capture = {"official": "it reads back every row", "compiled": "torch.compile makes its own"}.get(number.implementation, "")
    work = floors.bank_step(case["batch"], case["rows"], case["dim"], case["negatives"], stored.element_size())
    calls = [_call(number.implementation, case, each) for each in inputs]
    return Prepared(calls, check, work, capture=capture, exact=None)


def _call(implementation: str, case: dict[str, Any], given: dict[str, Tensor]) -> Call:
    if implementation == "native":
        return lambda: bank.step(ops, case, given)
    if implementation == "official":
        return lambda: bank.official_step(case, given)
    function = _compiled() if implementation == "compiled" else bank.contrast
    return lambda: bank.eager_step(function, case, given)


@cache
def _compiled() -> Any:
    return torch.compile(bank.contrast)


def _loss(implementation: str, case: dict[str, Any], given: dict[str, Tensor]) -> float:
    """The loss alone, from fresh inputs: the rivals' steps return gradients."""
    f, view, stored, labels, index = (given[name] for name in ("f", "view", "bank", "labels", "index"))
    if implementation == "native":
        terms = ops.gcl_memory_loss(
            f, view, stored, labels, index, temperature=bank.TEMPERATURE, num_negatives=case["negatives"], seed=3
        )
        return float(terms.sum())
    same = labels[index][:, None] == labels
    others = torch.multinomial(same.float(), 2, replacement=True)
    rows = torch.cat([index[:, None], others], 1)
    return float(bank.contrast(f, view, stored, ~same, rows, case["negatives"]))
