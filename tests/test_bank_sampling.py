"""Draws of the bank ops: exact counts, uniform, a function of seed and row alone."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from scipy import stats

from gcl_fast import ops, reference
from gcl_fast.reference.bank import sampling_keys
from tests.bank_cases import key, problems, small, some


@pytest.mark.parametrize("seed", [0, 1, -1, 2**40 + 3, 2**63 - 1, -(2**63)])
@pytest.mark.parametrize("stream", [0, 1, 2])
def test_keys_are_the_documented_integers(seed, stream, device):
    keys = sampling_keys(seed, stream, 3, 50, torch.device(device))
    assert keys.tolist() == [[key(seed, stream, r, c) for c in range(50)] for r in range(3)]


def test_keys_of_a_row_are_distinct(device):
    for row in sampling_keys(7, 0, 2, 100_000, torch.device(device)):
        assert len(row.unique()) == 100_000 and int(row.min()) >= 0 and int(row.max()) < 2**32


def drawn(labels, positive, k, seed, device="cpu"):
    """The columns that bank_nce really uses, seen from outside: with a unit-matrix bank and a zero query every negative, and
    nothing but the negatives and the positive, gets a gradient."""
    n = len(labels)
    bank = torch.eye(n, dtype=torch.float64, device=device)
    query = torch.zeros(len(positive), n, dtype=torch.float64, device=device, requires_grad=True)
    sets = []
    for p in range(positive.shape[1]):
        loss = ops.bank_nce(query, bank, labels, positive, temperature=1.0, num_negatives=k, seed=seed)
        (grad,) = torch.autograd.grad(loss[:, p].sum(), query)
        sets.append([set(row.nonzero()[:, 0].tolist()) for row in grad > 0])
    return sets


@small
@given(problems())
def test_the_sample_has_the_right_size_and_rows_and_is_shared_by_the_positives(problem):
    labels, k = problem["labels"], problem["num_negatives"]
    positive = problem["positive"][:, :1].repeat(1, 3)
    first, *rest = drawn(labels, positive, k, problem["seed"])
    assert all(other == first for other in rest)
    for i, chosen in enumerate(first):
        first = int(positive[i, 0])
        allowed = {n for n in range(len(labels)) if (n != first if labels[first] < 0 else labels[n] != labels[first])}
        assert chosen <= allowed and len(chosen) == (len(allowed) if k is None else min(k, len(allowed)))


@pytest.mark.parametrize(("rows", "seeds"), [(1, range(3000)), (3000, [5]), (50, range(-30, 30))], ids=["seeds", "rows", "both"])
def test_negatives_are_uniform_singly_and_in_pairs(rows, seeds):
    n, k = 20, 6
    labels = torch.tensor([0, 0] + list(range(1, n - 1)))  # n - 2 allowed
    first = torch.zeros(rows, dtype=torch.int64)
    chosen = torch.cat([reference.bank.negative_rows(labels, first, k, seed) for seed in seeds])[:, 2:].double()
    trials, m = chosen.shape
    assert (chosen.sum(1) == k).all()

    share = k / m  # counts of a draw without replacement: covariance share (1 - share) m / (m - 1) (I - 1/m)
    excess = chosen.sum(0) - trials * share
    single = float((excess**2).sum() / (trials * share * (1 - share) * m / (m - 1)))
    assert stats.chi2.sf(single, m - 1) > 1e-3

    together = (chosen.T @ chosen)[torch.triu_indices(m, m, 1).unbind()]  # how often each pair came
    expected = trials * k * (k - 1) / (m * (m - 1))
    worst = float(((together - expected).abs() / expected**0.5).max())
    assert worst < stats.norm.isf(1e-3 / len(together))  # Bonferroni over all pairs; the true variance is smaller


def test_random_positives_are_uniform_and_independent(device):
    labels = torch.tensor([3, 1, 3, 3, -1, 1, 3, -1], device=device)
    index = torch.tensor([0, 1, 4], device=device).repeat(50)
    draws = torch.stack([ops.draw_positives(labels, index, seed=s) for s in range(60)]).cpu()  # [60, 150, 2]
    assert set(draws[:, 0::3].unique().tolist()) == {0, 2, 3, 6} and set(draws[:, 1::3].unique().tolist()) == {1, 5}
    assert (draws[:, 2::3] == 4).all()  # no class: itself only
    pairs = draws[:, 0::3].reshape(-1, 2)
    table = torch.tensor([[((pairs[:, 0] == a) & (pairs[:, 1] == b)).sum() for b in (0, 2, 3, 6)] for a in (0, 2, 3, 6)])
    assert stats.chisquare(table.flatten().numpy()).pvalue > 1e-3  # all 16 pairs alike: uniform and independent at once


def test_the_sample_depends_on_seed_and_row_alone(device):
    query, bank, labels, positive = some(device=device)
    state = torch.get_rng_state()
    full = ops.bank_nce(query, bank, labels, positive, temperature=0.1, num_negatives=5, seed=3)
    again = ops.bank_nce(query[:2], bank, labels, positive[:2], temperature=0.1, num_negatives=5, seed=torch.tensor(3))
    assert torch.equal(full[:2], again)
    wrapped = ops.bank_nce(query, bank, labels, positive, temperature=0.1, num_negatives=5, seed=3 + 2**64)
    other = ops.bank_nce(query, bank, labels, positive, temperature=0.1, num_negatives=5, seed=4)
    assert torch.equal(full, wrapped) and not torch.equal(full, other)
    assert torch.equal(state, torch.get_rng_state())
