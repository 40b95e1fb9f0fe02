"""bank_update_ against the loop over the batch."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gcl_fast import ops, reference
from tests.bank_cases import BOTH, small, some, unit
from tests.threads import threads


@BOTH
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_update_is_the_formula(module, dtype, device):
    _, bank, _, _ = some(n=6, d=5, dtype=dtype, device=device)
    feature = some(b=9, d=5, device=device)[0].to(dtype)
    index = torch.tensor([4, 1, 4, 4, 0, 1, 5, 4, 0], device=device)
    rows = bank.double().tolist()
    for i, new in zip(index.tolist(), feature.double().tolist(), strict=True):
        row = unit([0.3 * a + 0.7 * b for a, b in zip(rows[i], new, strict=True)])
        rows[i] = torch.tensor(row, dtype=torch.float64).to(dtype).double().tolist()  # stored in the bank's dtype
    assert module.bank_update_(bank, index, feature, 0.3) is bank
    tight = {torch.float64: 1e-14, torch.float32: 1e-6}.get(dtype, 2 * torch.finfo(dtype).eps)
    torch.testing.assert_close(bank.double().cpu(), torch.tensor(rows, dtype=torch.float64), rtol=0, atol=tight)


@small
@given(
    index=st.lists(st.integers(0, 4), max_size=12),
    d=st.sampled_from([1, 3, 16, 130]),
    momentum=st.sampled_from([0.0, 0.2, 1.0]),
    flags=st.sampled_from([{}, {"normalise": True}, {"hard": True}, {"normalise": True, "hard": True}]),
)
def test_repeats_are_the_loop(index, d, momentum, flags):
    for dtype in (torch.float64, torch.float32, torch.bfloat16):
        _, bank, _, _ = some(n=5, d=d, dtype=dtype)
        feature = some(b=max(len(index), 1), d=d, seed=len(index))[0][: len(index)]
        feature = feature if dtype == torch.float64 else feature.float()
        index_ = torch.tensor(index, dtype=torch.int64)
        want = reference.bank_update_(bank.clone(), index_, feature, momentum, **flags)
        tight = {torch.float64: 1e-14, torch.float32: 1e-6}.get(dtype, 2 * torch.finfo(dtype).eps)
        torch.testing.assert_close(ops.bank_update_(bank, index_, feature, momentum, **flags), want, rtol=0, atol=tight)


@BOTH
def test_the_feature_least_like_the_row_moves_it_and_of_equals_the_first(module, device):
    row = torch.tensor([[1.0, 0.0]], device=device)
    for features, normalise, moved in (
        ([[0.5, 1.0], [0.5, -1.0], [0.8, 0.0]], False, [0.5, 1.0]),
        ([[0.5, -1.0], [0.5, 1.0], [0.8, 0.0]], False, [0.5, -1.0]),
        ([[0.8, 0.1], [8.0, 6.0]], False, [0.8, 0.1]),
        ([[0.8, 0.1], [8.0, 6.0]], True, [0.8, 0.6]),  # by the angle, then
        ([[1.0, 0.5], [0.0, 0.0]], True, [0.0, 0.0]),
    ):
        index = torch.zeros(len(features), dtype=torch.int64, device=device)
        got = module.bank_update_(row.clone(), index, torch.tensor(features, device=device), 0.5, normalise=normalise, hard=True)
        want = torch.nn.functional.normalize(row + torch.tensor([moved], device=device))
        torch.testing.assert_close(got, want, rtol=0, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("hard", [False, True])
def test_one_result_for_any_number_of_threads(dtype, hard):
    feature, bank, _, _ = some(b=64, n=70, d=20_000, dtype=torch.float32)  # so long that threads do run side by side
    index = torch.randint(0, 20, (64,), generator=torch.Generator().manual_seed(3))
    results = []
    for count in (1, 2, 5):
        with threads(count):
            results.append(ops.bank_update_(bank.to(dtype, copy=True), index, feature, 0.2, normalise=True, hard=hard))
    assert torch.equal(results[0], results[1]) and torch.equal(results[0], results[2])
    assert not torch.equal(results[0], bank.to(dtype))


@BOTH
@pytest.mark.parametrize("normalise", [True, False])
def test_features_may_be_rows_of_the_bank(module, normalise, device):
    """They are read as they were, whichever rows have moved meanwhile."""
    _, bank, labels, _ = some(n=40, d=9, device=device)
    index = torch.arange(39, -1, -1, device=device)
    for width in (9, 5):  # the bank's rows, and a part of each
        kept = bank[:, :width].clone()
        want, moved = (module.bank_update_(kept.clone(), index, kept, 0.3, normalise=normalise) for _ in range(2))
        view = bank.clone()[:, :width]
        torch.testing.assert_close(module.bank_update_(view, index, view, 0.3, normalise=normalise), want, rtol=0, atol=0)
        assert torch.equal(want, moved)
    moved = bank.clone()
    module.gcl_memory_step_(moved, bank, moved, labels, index, num_negatives=4, seed=0, momentum=0.3)
    want = module.bank_update_(bank.clone(), index, bank, 0.3, normalise=True)
    torch.testing.assert_close(moved, want, rtol=0, atol=0)


def test_half_precision_is_rounded_as_pytorch_rounds_it():
    values = torch.tensor([0.0, 3e-8, 1e-7, 6.1e-5, 0.33325195, 1.0, 65519.0, 65520.0, 1e5, float("inf"), float("nan"), -2.5e-8])
    for dtype in (torch.float16, torch.bfloat16):
        for value in torch.cat([values, torch.randn(200, generator=torch.Generator().manual_seed(1)).double().exp().float()]):
            bank, feature = torch.zeros(1, 2, dtype=dtype), torch.stack([value, torch.tensor(1e-4)])[None]
            ops.bank_update_(bank, torch.tensor([0]), feature, 0.0)
            norm = feature.double().norm().float()
            want = (feature / (norm if norm > 0 else 1)).to(dtype)
            torch.testing.assert_close(bank, want, rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize(("dtype", "digits"), [(torch.bfloat16, 8), (torch.float16, 11)])
def test_numbers_half_way_between_two_become_the_even_one(dtype, digits, device):
    halfway = (torch.arange(2 ** (digits - 1), 2**digits) + 0.5) / 2**digits
    feature = torch.stack([halfway, (1 - halfway.double() ** 2).sqrt().float()], 1)
    unit = feature / feature.double().norm(dim=1).float()[:, None]
    assert (unit[:, 0] == halfway).double().mean() > 0.5  # of the others the length is not 1 to the last bit
    bank = torch.zeros(len(halfway), 2, dtype=dtype, device=device)
    ops.bank_update_(bank, torch.arange(len(halfway), device=device), feature.to(device), 0.0)
    assert torch.equal(bank.cpu(), unit.to(dtype))


def test_the_graph_of_a_loss_that_kept_the_bank_finds_out():
    _, bank, _, index = some()
    weight = torch.ones_like(bank).requires_grad_()
    loss = (weight * bank).sum()
    ops.bank_update_(bank, index, torch.ones(4, 8, dtype=torch.float64), 0.5)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_the_op_is_well_formed(device):
    feature, bank, _, index = some(device=device)
    for dtype in (torch.float64, torch.float32):
        args = (bank.to(dtype), index, feature.to(dtype), 0.5, True, True)
        torch.library.opcheck(torch.ops.gcl_fast.bank_update_.default, args)


def test_update_leaves_other_rows_and_handles_zero_and_strides(device):
    _, bank, _, _ = some(n=6, d=5, dtype=torch.float32, device=device)
    wide = torch.zeros(5, 12, device=device)
    view = wide[:, ::2].T  # [6, 5], neither rows nor columns contiguous
    view.copy_(bank)
    feature = torch.stack([-bank[2], torch.ones(5, device=device)])
    ops.bank_update_(view, torch.tensor([2, 3], dtype=torch.int32, device=device), feature, 0.5)
    assert not view[2].any()  # the sum has length zero
    torch.testing.assert_close(view[3].norm(), torch.ones((), device=device))
    assert torch.equal(view[[0, 1, 4, 5]], bank[[0, 1, 4, 5]]) and not wide[:, 1::2].any()


def test_update_has_no_gradient(device):
    query, bank, _, index = some(device=device)
    ops.bank_update_(bank.requires_grad_(), index, query.requires_grad_(), 0.2)
    assert bank.is_leaf and bank.grad_fn is None


def test_update_names_bad_arguments():
    feature, bank, _, index = some()
    with pytest.raises(ValueError, match="feature"):
        ops.bank_update_(bank, index, feature[:3], 0.2)
    with pytest.raises(ValueError, match="index.*-2"):
        ops.bank_update_(bank, index * 0 - 2, feature, 0.2)
    with pytest.raises(ValueError, match="momentum"):
        ops.bank_update_(bank, index, feature, 1.5)
    with pytest.raises(TypeError, match="index"):
        ops.bank_update_(bank, index.double(), feature, 0.2)
