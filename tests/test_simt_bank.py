"""The bank ops' CUDA source on emulated threads: the same samples as the CPU bit for bit, values to rounding, no race."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from gcl_fast import ops, reference
from gcl_fast.reference.bank import negative_rows, sampling_keys
from tests.simt.harness import KERNEL_ORDERS, run

every_order = pytest.mark.parametrize("order", KERNEL_ORDERS)
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


def options(
    labels: torch.Tensor, k: int | None, seed: int, chunks: int, *, sweep: int = 0, splits: int = 1, with_grad: int = 1
) -> dict[str, np.ndarray | int]:
    return {
        "sweep": sweep,
        "splits": splits,
        "with_grad": with_grad,
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
RUNS = [("float", name, order) for name in CASES for order in KERNEL_ORDERS]
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
@pytest.mark.parametrize("splits", [1, 3])
def test_the_sample_is_the_references(splits: int, order: str) -> None:
    b, n, k, seed = 4, 900, 700, -5
    _, _, labels, positive = problem(b, n, 4, "float")
    labels[300:], positive[:, 0] = 2, torch.tensor([500, 7, int((labels < 0).nonzero()[0]), 299])  # fewer than K for the first
    labels[[7, 299]] = 1
    arrays = {"labels": labels.numpy(), "positive": positive.numpy(), "key": np.array(seed), "count": k, "splits": splits}
    last = torch.from_numpy(run("bank", "select", order, 3, **arrays)["last"].astype(np.int64))
    allowed = negative_rows(labels, positive[:, 0], None, seed)
    chosen = allowed & (sampling_keys(seed, 0, b, n, torch.device("cpu")) <= last[:, None])
    assert torch.equal(chosen, negative_rows(labels, positive[:, 0], k, seed))
    assert chosen.sum(1).tolist() == [min(k, int(a)) for a in allowed.sum(1)] and int(allowed.sum(1).min()) < k < n


@pytest.mark.parametrize("count", [1, 2, 40, 8000, 8970, 8971])
def test_the_last_key_of_many_rows_is_exact(count: int) -> None:
    """Enough rows for every digit of the key to decide, and for the threads' masks to hold several rows each."""
    labels = torch.arange(9000) // 30  # 8,970 negatives of row 77
    keys = sampling_keys(6, 0, 1, 9000, torch.device("cpu"))[0][labels != labels[77]].sort().values
    want = int(keys[count - 1]) if count <= 8970 else 2**32 - 1
    for splits in (1, 2):
        arrays = {"labels": labels.numpy(), "positive": np.array([[77]]), "key": np.array(6), "count": count, "splits": splits}
        assert run("bank", "select", "random", 5, **arrays)["last"].tolist() == [want]


STEPS = [("float", False, None), ("double", False, 0.3), ("brain", False, 0.3), ("float", True, 0.3)]


@every_order
@pytest.mark.parametrize(("kind", "race", "momentum"), STEPS)
def test_a_memory_step_is_that_of_the_cpu(kind: str, race: bool, momentum: float | None, order: str) -> None:
    f, bank, labels, positive = problem(5, 23, 40, kind)
    f_nv, index = 3 * f.roll(1, 0), positive[:, 0].contiguous()
    f_nv[2], index[3] = 0, index[1]
    arrays = given(bank, kind, f=f.numpy(), f_nv=f_nv.numpy(), index=index.numpy(), momentum=np.array(momentum or -1.0))
    out = run("bank", "gcl", order, 3, race=race, **arrays, **options(labels, 9, 4, 2, splits=1 if momentum else 2))
    drawn = reference.draw_positives(labels, index, 4)
    assert out["positive"].tolist() == torch.cat([index[:, None], drawn], 1).tolist()
    step = torch.ops.gcl_fast.gcl_memory_step_
    terms, view_grad, photo_grad = step(f, f_nv, bank, labels, index, 0.1, 9, torch.tensor(4), 0, True, momentum)
    tight = 1e-12 if kind == "double" else 4e-6
    for name, value in {"terms": terms, "view_grad": view_grad, "photo_grad": photo_grad}.items():
        np.testing.assert_allclose(out[name], value.numpy(), rtol=tight, atol=tight * float(value.abs().max()), err_msg=name)
    work = torch.float64 if kind == "double" else torch.float32
    np.testing.assert_allclose(out["updated"], bank.to(work).numpy(), rtol=0, atol=2 * torch.finfo(REAL[kind]).eps)


@every_order
def test_gradients_of_the_features_are_those_of_the_cpu(order: str) -> None:
    gen = torch.Generator().manual_seed(1)
    grad, view_grad, photo_grad = (torch.randn(*shape, generator=gen) for shape in ((3,), (5, 3, 40), (5, 40)))
    out = run("bank", "backward", order, grad=grad.numpy(), view_grad=view_grad.numpy(), photo_grad=photo_grad.numpy())
    photo, view = torch.ops.gcl_fast.gcl_memory_backward(grad, view_grad, photo_grad)
    assert (out["photo"] == photo.numpy()).all() and (out["view"] == view.numpy()).all()


TENSOR_CORES, CACHED = 1, 2
MMA = [  # kind, way, B, N, D, K, parts: tiles and groups that are not full, columns past the end, one warp and several
    ("float", TENSOR_CORES, 3, 21, 8, 5, 2),
    ("float", TENSOR_CORES, 18, 19, 264, None, 1),
    ("float", CACHED, 5, 30, 260, 9, 2),
    ("brain", TENSOR_CORES, 17, 40, 264, 20, 2),
    ("brain", CACHED, 2, 19, 48, None, 3),
]


@pytest.mark.parametrize(("case", "order"), [(case, order) for case in MMA for order in KERNEL_ORDERS])
def test_tensor_cores_are_the_cpu(case: tuple[str, int, int, int, int, int | None, int], order: str) -> None:
    kind, way, b, n, d, k, chunks = case
    query, bank, labels, positive = problem(b, n, d, kind)
    arrays = given(bank, kind, query=query.numpy(), positive=positive.numpy(), own=0)
    out = run("bank", "nce", order, 3, **arrays, **options(labels, k, 11, chunks, sweep=way))
    want = torch.ops.gcl_fast.bank_nce(query, bank, labels, positive, None, 0.1, -1 if k is None else k, torch.tensor(11), True)
    for name, value in zip(("loss", "mean", "weight", "rows"), want, strict=True):
        np.testing.assert_allclose(out[name], value.numpy(), rtol=2e-6, atol=2e-6, err_msg=name)


@pytest.mark.parametrize("way", [TENSOR_CORES, CACHED])
def test_tensor_cores_have_no_race(way: int) -> None:
    query, bank, labels, positive = problem(3, 21, 300, "float")
    arrays = given(bank, "float", query=query.numpy(), positive=positive.numpy(), own=0)
    run("bank", "nce", "random", 3, race=True, **arrays, **options(labels, 9, 11, 1, sweep=way))


@pytest.mark.parametrize("kind", ["float", "brain"])
def test_tensor_cores_err_at_most_twice_as_pytorch(kind: str) -> None:
    """Cores that cut their operands and their sums, as the emulated ones do; the bounds of `test_bank_nce.py`."""
    query, bank, labels, positive = problem(16, 96, 1024, kind, classes=40)
    arrays = given(bank, kind, query=query.numpy(), positive=positive.numpy(), own=0)
    out = run("bank", "nce", "forward", **arrays, **options(labels, 60, 11, 2, sweep=TENSOR_CORES))

    def nce(dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
        wide, q = bank.to(dtype), query.to(dtype).requires_grad_()
        loss = reference.bank_nce(q, wide, labels, positive, temperature=0.1, num_negatives=60, seed=11)
        return loss.detach(), torch.autograd.grad(loss.sum(), q)[0]

    scale = torch.tensor(out["weight"]) / 0.1  # as the backward of the op
    got = torch.tensor(out["loss"]), scale.sum(1)[:, None] * torch.tensor(out["mean"])
    got = got[0], got[1] - (scale[:, :, None] * torch.tensor(out["rows"])).sum(1)
    for name, value, plain, exact in zip(("loss", "gradient"), got, nce(torch.float32), nce(torch.float64), strict=True):
        floor = torch.finfo(torch.float32).eps * exact.abs().max()
        assert (value - exact).abs().max() <= 2 * (plain - exact).abs().max() + floor, name


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
