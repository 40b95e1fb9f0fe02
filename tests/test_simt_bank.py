"""The bank ops' CUDA source on emulated threads: the same samples as the CPU bit for bit, values to rounding, no race."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from gcl_fast import ops, reference
from gcl_fast.reference.bank import negative_rows, sampling_keys
from tests.simt.harness import ORDERS, run

every_order = pytest.mark.parametrize("order", ORDERS)
REAL = {"float": torch.float32, "double": torch.float64, "half": torch.float16, "brain": torch.bfloat16}


def problem(b: int, n: int, d: int, kind: str, classes: int = 5) -> tuple[torch.Tensor, ...]:
    """query, bank, labels with some -1, positive [B, 2], in the types of `kind`."""
    gen = torch.Generator().manual_seed(b + n + d)
    work = torch.float64 if kind == "double" else torch.float32
    query = torch.nn.functional.normalize(torch.randn(b, d, generator=gen)).to(work)
    bank = torch.nn.functional.normalize(torch.randn(n, d, generator=gen)).to(REAL[kind])
    labels = torch.randint(-1, classes, (n,), generator=gen)
    return query, bank, labels, torch.randint(0, n, (b, 2), generator=gen)


def given(bank: torch.Tensor, kind: str, **more: np.ndarray | int) -> dict[str, np.ndarray | int]:
    bits = bank.view(torch.int16).int() & 0xFFFF if bank.element_size() == 2 else bank
    return {"bank": bits.numpy(), "real8": int(kind == "double"), "brain": int(kind == "brain"), **more}


def options(labels: torch.Tensor, k: int | None, seed: int, chunks: int) -> dict[str, np.ndarray | int]:
    return {
        "labels": labels.numpy(),
        "count": -1 if k is None else k,
        "key": np.array(seed),
        "temperature": np.array(0.1),
        "chunks": chunks,
    }


CASES = {  # B, N, D, K, parts: one warp and several, groups that are not full, widths that are not whole, a part without rows
    "small": (3, 21, 8, 5, 2),
    "odd width": (5, 30, 13, None, 3),
    "two groups": (18, 26, 20, 9, 2),
    "two warps": (4, 11, 300, 4, 1),
    "eight queries": (9, 10, 2052, 3, 1),
    "four queries": (5, 9, 4100, 3, 1),
    "more parts than rows": (2, 7, 8, 2, 5),
    "fewer than K": (2, 40, 8, 39, 2),
}


NARROW = [name for name, case in CASES.items() if case[2] <= 512]
RUNS = [("float", name, order) for name in CASES for order in ORDERS]
RUNS += [(kind, name, order) for kind in ("double", "brain") for name in NARROW for order in ("forward", "random")]


@pytest.mark.parametrize(("kind", "case", "order"), RUNS)
def test_bank_nce_is_that_of_the_cpu(kind: str, case: str, order: str) -> None:
    b, n, d, k, chunks = CASES[case]
    query, bank, labels, positive = problem(b, n, d, kind)
    own = torch.stack([query, query.roll(1, 0)], 1)
    arrays = given(bank, kind, query=query.numpy(), positive=positive.numpy(), positive_query=own.numpy(), own=1)
    out = run("bank", "nce", order, 3, **arrays, **options(labels, k, 11, chunks))
    want = torch.ops.gcl_fast.bank_nce(query, bank, labels, positive, own, 0.1, -1 if k is None else k, torch.tensor(11), True)
    tight = 1e-12 if kind == "double" else 2e-6
    for name, value in zip(("loss", "mean", "weight", "rows"), want, strict=True):
        np.testing.assert_allclose(out[name], value.numpy(), rtol=tight, atol=tight, err_msg=name)


@every_order
@pytest.mark.parametrize("splits", ["one block", "three blocks"])
def test_the_sample_is_the_references(splits: str, order: str) -> None:
    b, n, k, seed = 4, 900, 700, -5
    query, bank, labels, positive = problem(b, n, 4, "float")
    labels[300:], positive[:, 0] = 2, torch.tensor([500, 7, int((labels < 0).nonzero()[0]), 299])  # fewer than K for the first
    labels[[7, 299]] = 1
    kernel = "nce" if splits == "one block" else "select"
    arrays = given(bank, "float", query=query.numpy(), positive=positive.numpy(), own=0)
    last = torch.from_numpy(run("bank", kernel, order, 3, **arrays, **options(labels, k, seed, 2))["last"].astype(np.int64))
    allowed = negative_rows(labels, positive[:, 0], None, seed)
    chosen = allowed & (sampling_keys(seed, 0, b, n, torch.device("cpu")) <= last[:, None])
    assert torch.equal(chosen, negative_rows(labels, positive[:, 0], k, seed))
    assert chosen.sum(1).tolist() == [min(k, int(a)) for a in allowed.sum(1)] and int(allowed.sum(1).min()) < k < n


@every_order
@pytest.mark.parametrize(("kind", "race"), [("float", False), ("double", False), ("brain", False), ("float", True)])
def test_gcl_memory_loss_is_that_of_the_cpu(kind: str, race: bool, order: str) -> None:
    f, bank, labels, positive = problem(5, 23, 40, kind)
    f_nv, index = 3 * f.roll(1, 0), positive[:, 0].contiguous()
    f_nv[2] = 0
    arrays = given(bank, kind, f=f.numpy(), f_nv=f_nv.numpy(), index=index.numpy())
    out = run("bank", "gcl", order, 3, race=race, **arrays, **options(labels, 9, 4, 2))
    loss, view_grad, photo_grad = torch.ops.gcl_fast.gcl_memory_loss(f, f_nv, bank, labels, index, 0.1, 9, torch.tensor(4), True)
    drawn = reference.draw_positives(labels, index, 4)
    assert out["positive"].tolist() == torch.cat([index[:, None], drawn], 1).tolist()
    tight = 1e-12 if kind == "double" else 4e-6
    for name, value in {"loss": loss, "view_grad": view_grad, "photo_grad": photo_grad}.items():
        np.testing.assert_allclose(out[name], value.numpy(), rtol=tight, atol=tight * float(value.abs().max()), err_msg=name)


@every_order
def test_positives_are_the_references(order: str) -> None:
    labels = torch.randint(-1, 4, (700,), generator=torch.Generator().manual_seed(0))
    index = torch.tensor([3, 699, int((labels < 0).nonzero()[0]), 3])
    out = run("bank", "draw", order, labels=labels.numpy(), index=index.numpy(), key=np.array(9))
    assert out["drawn"].tolist() == reference.draw_positives(labels, index, 9).tolist()


@every_order
@pytest.mark.parametrize(
    ("flags", "kind"), [("plain", "float"), ("hard", "float"), ("race", "float"), *(("normalise", kind) for kind in REAL)]
)
def test_update_is_that_of_the_cpu(flags: str, kind: str, order: str) -> None:
    feature, bank, _, _ = problem(9, 6, 40, kind)
    index = torch.tensor([4, 1, 4, 4, 0, 1, 5, 4, 0])
    unit, hard = int(flags != "plain"), int(flags in ("hard", "race"))
    arrays = given(bank, kind, feature=feature.numpy(), index=index.numpy(), momentum=np.array(0.3), unit=unit, hard=hard)
    out = run("bank", "update", order, 3, race=flags == "race", **arrays)["updated"]
    want = ops.bank_update_(bank.clone(), index, feature, 0.3, normalise=bool(unit), hard=bool(hard))
    work = torch.float64 if kind == "double" else torch.float32
    np.testing.assert_allclose(out, want.to(work).numpy(), rtol=0, atol=2 * torch.finfo(REAL[kind]).eps)


@every_order
def test_rows_that_are_not_there(order: str) -> None:
    query, bank, labels, positive = problem(3, 21, 8, "float")
    want = torch.ops.gcl_fast.bank_nce(query, bank, labels, positive, None, 0.1, 5, torch.tensor(1), True)[0]
    positive[1] = torch.tensor([21, 0])
    positive[2] = torch.tensor([int(positive[2, 0]), -1])
    arrays = given(bank, "float", query=query.numpy(), positive=positive.numpy(), own=0)
    loss = run("bank", "nce", order, **arrays, **options(labels, 5, 1, 2))["loss"]
    assert np.isnan(loss).tolist() == [[False, False], [True, True], [False, True]]
    np.testing.assert_allclose(loss[0], want[0].numpy(), rtol=2e-6)
    index = torch.tensor([2, 21, -1])
    arrays = given(bank, "float", feature=query.numpy(), index=index.numpy(), momentum=np.array(0.3), unit=0, hard=1)
    out = run("bank", "update", order, **arrays)["updated"]
    assert (out != bank.numpy()).any(1).nonzero()[0].tolist() == [2]
