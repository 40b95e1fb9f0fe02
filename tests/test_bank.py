"""bank_nce, gcl_memory_loss, bank_update_ against METHOD's formulas as plain Python loops over float64."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from gcl_fast import ops, reference
from gcl_fast.ops import bank as ops_bank
from gcl_fast.reference.bank import sampling_keys

small = settings(max_examples=25, deadline=None, derandomize=True)
BOTH = pytest.mark.parametrize("module", [ops, reference], ids=["ops", "reference"])


# --- the oracle: integers and floats of Python, one row at a time ---


def mix(x):
    x ^= x >> 16
    x = x * 0x7FEB352D % 2**32
    x ^= x >> 15
    x = x * 0x846CA68B % 2**32
    return x ^ x >> 16


def key(seed, stream, row, column):
    def word(t):
        return mix(mix(mix(mix(t * 0x9E3779B9 % 2**32) ^ seed % 2**32) ^ (seed >> 32) % 2**32) ^ row)

    return mix(mix(column ^ word(2 * stream + 1)) ^ word(2 * stream + 2))


def smallest(seed, stream, row, columns, k):
    return sorted(columns, key=lambda column: key(seed, stream, row, column))[:k]


def negatives(labels, first, row, k, seed):
    if labels[first] < 0:
        allowed = [n for n in range(len(labels)) if n != first]
    else:
        allowed = [n for n in range(len(labels)) if labels[n] != labels[first]]
    return allowed if k is None else smallest(seed, 0, row, allowed, k)


def dot(a, b):
    return math.fsum(x * y for x, y in zip(a, b, strict=True))


def cross_entropy(positive, others):
    top = max([positive, *others])
    return top + math.log(math.fsum(math.exp(x - top) for x in [positive, *others])) - positive


def unit(a):
    length = math.sqrt(dot(a, a))
    return [x / length for x in a] if length else a


def nce_by_hand(query, bank, labels, positive, positive_query, temperature, k, seed):
    query, bank, labels, positive = query.tolist(), bank.tolist(), labels.tolist(), positive.tolist()
    own = None if positive_query is None else positive_query.tolist()
    losses = []
    for i, q in enumerate(query):
        others = [dot(q, bank[n]) / temperature for n in negatives(labels, positive[i][0], i, k, seed)]
        pairs = [(q if own is None else own[i][p], bank[n]) for p, n in enumerate(positive[i])]
        losses.append([cross_entropy(dot(a, b) / temperature, others) for a, b in pairs])
    return torch.tensor(losses, dtype=torch.float64).reshape(len(query), -1)


def gcl_by_hand(f, f_nv, bank, labels, index, temperature, k, seed):
    bank, labels, totals = bank.tolist(), labels.tolist(), [0.0, 0.0, 0.0]
    for i, n in enumerate(index.tolist()):
        photo, view = unit(f[i].tolist()), unit(f_nv[i].tolist())
        same = [n] if labels[n] < 0 else [m for m in range(len(labels)) if labels[m] == labels[n]]
        (p,), (q,) = smallest(seed, 1, i, same, 1), smallest(seed, 2, i, same, 1)
        others = [dot(view, bank[m]) / temperature for m in negatives(labels, n, i, k, seed)]
        for t, (a, b) in enumerate([(view, bank[n]), (view, bank[p]), (photo, bank[q])]):
            totals[t] += cross_entropy(dot(a, b) / temperature, others) / len(index)
    return torch.tensor(totals, dtype=torch.float64)


@st.composite
def problems(draw):
    gen = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    b, n, d, p = (draw(st.integers(low, high)) for low, high in ((1, 4), (1, 17), (1, 5), (1, 3)))
    labels = torch.randint(-1, draw(st.integers(0, 6)), (n,), generator=gen)
    return {
        "query": torch.randn(b, d, generator=gen, dtype=torch.float64),
        "bank": torch.randn(n, d, generator=gen, dtype=torch.float64),
        "labels": labels,
        "positive": torch.randint(0, n, (b, p), generator=gen),
        "positive_query": torch.randn(b, p, d, generator=gen, dtype=torch.float64) if draw(st.booleans()) else None,
        "temperature": draw(st.sampled_from([0.04, 0.5, 2.0])),
        "num_negatives": draw(st.sampled_from([None, 1, 3, n, n + 5])),
        "seed": draw(st.integers(-(2**63), 2**63 - 1)),
    }


def some(b=4, n=30, d=8, classes=5, dtype=torch.float64, device="cpu", seed=0):
    """query, bank (unit rows), labels with some -1, positive."""
    gen = torch.Generator().manual_seed(seed)
    query, bank = torch.randn(b, d, generator=gen), torch.nn.functional.normalize(torch.randn(n, d, generator=gen))
    labels = torch.randint(-1, classes, (n,), generator=gen)
    positive = torch.randperm(n, generator=gen)[:b]
    return query.to(device, dtype), bank.to(device, dtype), labels.to(device), positive.to(device)


# --- sampling ---


@pytest.mark.parametrize("seed", [0, 1, -1, 2**40 + 3, 2**63 - 1, -(2**63)])
@pytest.mark.parametrize("stream", [0, 1, 2])
def test_keys_are_the_documented_integers(seed, stream, device):
    keys = sampling_keys(seed, stream, 3, 50, torch.device(device))
    assert keys.tolist() == [[key(seed, stream, r, c) for c in range(50)] for r in range(3)]


def test_keys_of_a_row_are_distinct(device):
    for row in sampling_keys(7, 0, 2, 100_000, torch.device(device)):
        assert len(row.unique()) == 100_000 and 0 <= int(row.min()) and int(row.max()) < 2**32


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
        own = int(positive[i, 0])
        allowed = {n for n in range(len(labels)) if (n != own if labels[own] < 0 else labels[n] != labels[own])}
        assert chosen <= allowed and len(chosen) == (len(allowed) if k is None else min(k, len(allowed)))


@pytest.mark.parametrize("rows, seeds", [(1, range(3000)), (3000, [5]), (50, range(-30, 30))], ids=["seeds", "rows", "both"])
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


# --- values ---


@BOTH
@small
@given(problem=problems())
def test_bank_nce_is_the_formula(module, problem):
    want = nce_by_hand(**{("k" if name == "num_negatives" else name): value for name, value in problem.items()})
    torch.testing.assert_close(module.bank_nce(**problem), want, rtol=1e-12, atol=1e-12)


@BOTH
@small
@given(problem=problems())
def test_gcl_memory_loss_is_the_formula(module, problem):
    f, bank, labels, k, seed = (problem[name] for name in ("query", "bank", "labels", "num_negatives", "seed"))
    f_nv, index = f.flip(1) + 0.3, problem["positive"][:, 0]
    got = module.gcl_memory_loss(f, f_nv, bank, labels, index, temperature=0.1, num_negatives=k, seed=seed)
    torch.testing.assert_close(got, gcl_by_hand(f, f_nv, bank, labels, index, 0.1, k, seed), rtol=1e-12, atol=1e-12)


@BOTH
@pytest.mark.parametrize("layout", ["one class", "all distinct", "no class", "half no class"])
def test_extreme_labels(module, layout, device):
    query, bank, _, positive = some(device=device)
    n = len(bank)
    labels = {
        "one class": torch.zeros(n, dtype=torch.int64),
        "all distinct": torch.arange(n),
        "no class": torch.full((n,), -1),
        "half no class": torch.arange(n) % 2 - 1,
    }[layout].to(device)
    query.requires_grad_()
    loss = module.bank_nce(query, bank, labels, positive, temperature=0.1)
    want = nce_by_hand(query.detach(), bank, labels, positive[:, None], None, 0.1, None, 0)[:, 0]
    torch.testing.assert_close(loss.cpu(), want, rtol=1e-12, atol=1e-12)
    (grad,) = torch.autograd.grad(loss.sum(), query)
    if layout == "one class":  # nothing to tell apart
        assert not loss.any() and not grad.any()
    if layout in ("all distinct", "no class"):  # every other row is a negative: plain softmax classification
        torch.testing.assert_close(loss, torch.nn.functional.cross_entropy(query @ bank.T / 0.1, positive, reduction="none"))


def test_float32_is_as_exact_as_the_reference(device):
    query, bank, labels, positive = some(b=16, n=400, d=64, device=device)
    args = dict(temperature=0.04, num_negatives=200, seed=1)
    exact = reference.bank_nce(query, bank, labels, positive, **args)
    single = [t.float() for t in (query, bank)]
    error = (ops.bank_nce(*single, labels, positive, **args) - exact).abs().max()
    allowed = (reference.bank_nce(*single, labels, positive, **args) - exact).abs().max()
    assert error <= 2 * allowed


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_a_bank_of_another_dtype_is_read_as_it_is(dtype, device):
    query, bank, labels, positive = some(dtype=torch.float32, device=device)
    bank = bank.to(dtype)
    query.requires_grad_()
    args = dict(temperature=0.1, num_negatives=9, seed=2)
    loss = ops.bank_nce(query, bank, labels, positive, **args)
    assert loss.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    double = query.detach().double().requires_grad_()
    want = reference.bank_nce(double, bank.double(), labels, positive, **args)
    torch.testing.assert_close(loss.double(), want, rtol=1e-5, atol=1e-5)
    grads = [torch.autograd.grad(x.sum(), q)[0].double() for x, q in ((loss, query), (want, double))]
    torch.testing.assert_close(*grads, rtol=1e-5, atol=1e-5)


def test_autocast_does_not_lower_the_precision(device):
    query, bank, labels, positive = some(dtype=torch.float32, device=device)
    grads = []
    for enabled in (False, True):
        q = query.clone().requires_grad_()
        with torch.autocast(torch.device(device).type, torch.bfloat16, enabled=enabled):
            loss = ops.gcl_memory_loss(q, q + 1, bank, labels, positive, num_negatives=9, seed=1)
        grads.append((loss.detach(), *torch.autograd.grad(loss.sum(), q)))
    assert torch.equal(grads[0][0], grads[1][0]) and torch.equal(grads[0][1], grads[1][1])


def test_far_logits_stay_finite(device):
    query, bank, labels, _ = some(dtype=torch.float32, device=device)
    best = (query @ bank.T).argmax(1)
    worst = (query @ bank.T).argmin(1)
    for positive in (best, worst):
        q = (1e3 * query).requires_grad_()
        loss = ops.bank_nce(q, bank, labels, positive, temperature=1e-3)
        (grad,) = torch.autograd.grad(loss.sum(), q)
        assert loss.isfinite().all() and grad.isfinite().all() and (loss >= 0).all()


# --- gradients ---


@pytest.mark.parametrize("k", [None, 5])
@pytest.mark.parametrize("with_positive_query", [False, True])
def test_bank_nce_gradcheck(k, with_positive_query, device):
    query, bank, labels, first = some(device=device)
    positive = torch.stack([first, first.roll(1), first], 1)
    own = torch.randn(4, 3, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(1)).to(device).requires_grad_()

    def loss(q, o):
        pq = o if with_positive_query else None
        return ops.bank_nce(q, bank, labels, positive, positive_query=pq, temperature=0.5, num_negatives=k, seed=6)

    assert torch.autograd.gradcheck(loss, (query.requires_grad_(), own))


def test_gcl_memory_loss_gradcheck(device):
    f, bank, labels, index = some(device=device)
    f_nv = f.roll(1, 0) + 0.5

    def loss(a, b):
        return ops.gcl_memory_loss(a, b, bank, labels, index, temperature=0.5, num_negatives=7, seed=2)

    assert torch.autograd.gradcheck(loss, (f.requires_grad_(), f_nv.requires_grad_()))


def test_f_enters_the_third_positive_only(device):
    f, bank, labels, index = some(device=device)
    f.requires_grad_()
    terms = ops.gcl_memory_loss(f, f.detach() + 1, bank, labels, index, seed=2)
    for term, reaches in zip(terms, (False, False, True), strict=True):
        assert bool(torch.autograd.grad(term, f, retain_graph=True)[0].any()) == reaches


def test_zero_features_have_a_finite_gradient(device):
    f, bank, labels, index = some(dtype=torch.float32, device=device)
    f, f_nv = torch.zeros_like(f).requires_grad_(), torch.zeros_like(f).requires_grad_()
    terms = ops.gcl_memory_loss(f, f_nv, bank, labels, index, num_negatives=6, seed=0)
    torch.testing.assert_close(terms, torch.full_like(terms, math.log(7)))  # all seven logits are 0
    grads = torch.autograd.grad(terms.sum(), (f, f_nv))
    assert all(g.isfinite().all() and g.abs().max() < 1e3 for g in grads)


def test_the_bank_may_be_updated_before_the_backward(device):
    query, bank, labels, positive = some(device=device)
    query.requires_grad_()
    args = dict(temperature=0.1, num_negatives=9, seed=2)
    (want,) = torch.autograd.grad(reference.bank_nce(query, bank, labels, positive, **args).sum(), query)
    loss = ops.bank_nce(query, bank, labels, positive, **args)
    ops.bank_update_(bank, positive, query, 0.2)
    (got,) = torch.autograd.grad(loss.sum(), query)
    torch.testing.assert_close(got, want, rtol=1e-12, atol=1e-12)


def test_nothing_as_large_as_the_bank_is_kept_for_the_backward(device):
    f, bank, labels, index = some(b=3, n=500, d=8, device=device)
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t.numel()) or t, lambda t: t):
        ops.gcl_memory_loss(f.requires_grad_(), f + 1, bank, labels, index, seed=2)
    assert kept and max(kept) <= 3 * 3 * 8


def test_a_second_derivative_is_refused(device):
    query, bank, labels, positive = some(device=device)
    loss = ops.bank_nce(query.requires_grad_(), bank, labels, positive, temperature=0.1)
    with pytest.raises(RuntimeError, match="second derivatives"):
        torch.autograd.grad(loss.sum(), query, create_graph=True)


# --- update ---


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
    index=st.lists(st.integers(0, 4), max_size=12), d=st.sampled_from([1, 3, 16, 130]), momentum=st.sampled_from([0.0, 0.2, 1.0])
)
def test_repeats_equal_the_loop_bit_for_bit(index, d, momentum):
    for dtype in (torch.float32, torch.bfloat16):
        _, bank, _, _ = some(n=5, d=d, dtype=dtype)
        feature = some(b=max(len(index), 1), d=d, seed=len(index))[0].float()[: len(index)]
        index_ = torch.tensor(index, dtype=torch.int64)
        want = reference.bank_update_(bank.clone(), index_, feature, momentum)
        assert torch.equal(ops.bank_update_(bank, index_, feature, momentum), want)


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


# --- the edges of the contract ---


def test_empty_batches(device):
    query, bank, labels, positive = some(device=device)
    none, nobody = query[:0].requires_grad_(), positive[:0]
    assert ops.bank_nce(none, bank, labels, nobody, temperature=0.1).shape == (0,)
    assert ops.bank_nce(none, bank, labels, nobody[:, None].expand(0, 3), temperature=0.1, num_negatives=2).shape == (0, 3)
    terms = ops.gcl_memory_loss(none, none, bank, labels, nobody, seed=0)
    assert terms.tolist() == [0, 0, 0] and torch.autograd.grad(terms.sum(), none)[0].shape == none.shape
    assert torch.equal(ops.bank_update_(bank.clone(), nobody, none, 0.2), bank)
    assert ops.bank_nce(none, bank[:0], labels[:0], nobody, temperature=0.1).shape == (0,)


def test_strides_do_not_matter(device):
    query, bank, labels, positive = some(device=device)

    def spread(t):
        return torch.stack([t, t], -1)[..., 0]  # the same values, every second number

    def transposed(t):
        return t.T.contiguous().T

    want = ops.bank_nce(query, bank, labels, positive, temperature=0.1, num_negatives=9, seed=2)
    got = ops.bank_nce(
        transposed(query), transposed(bank), spread(labels), spread(positive.int()), temperature=0.1, num_negatives=9, seed=2
    )
    torch.testing.assert_close(got, want, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    "change, error, words",
    [
        ({"query": torch.zeros(4)}, ValueError, "query"),
        ({"query": [[1.0]]}, TypeError, "query"),
        ({"query": torch.zeros(4, 8, dtype=torch.int64)}, TypeError, "query"),
        ({"bank": torch.zeros(30, 9, dtype=torch.float64)}, ValueError, "bank"),
        ({"labels": torch.zeros(29, dtype=torch.int64)}, ValueError, "labels"),
        ({"labels": torch.zeros(30)}, TypeError, "labels"),
        ({"positive": torch.zeros(5, dtype=torch.int64)}, ValueError, "positive"),
        ({"positive": torch.zeros(4, 0, dtype=torch.int64)}, ValueError, "positive"),
        ({"positive": torch.tensor([0, 1, 2, 30])}, ValueError, "positive.*30"),
        ({"positive": torch.tensor([0, 1, -1, 3])}, ValueError, "positive.*-1"),
        ({"positive_query": torch.zeros(4, 3, 8, dtype=torch.float64)}, ValueError, "positive_query"),
        ({"temperature": 0.0}, ValueError, "temperature"),
        ({"temperature": "warm"}, TypeError, "temperature"),
        ({"num_negatives": 0}, ValueError, "num_negatives"),
        ({"num_negatives": 2.5}, TypeError, "num_negatives"),
        ({"seed": 0.5}, TypeError, "seed"),
        ({"seed": torch.zeros(2, dtype=torch.int64)}, ValueError, "seed"),
        ({"seed": torch.zeros(())}, TypeError, "seed"),
    ],
)
def test_bad_arguments_are_named(change, error, words):
    query, bank, labels, positive = some()
    good = {"query": query, "bank": bank, "labels": labels, "positive": positive, "temperature": 0.1}
    with pytest.raises(error, match=words):
        ops.bank_nce(**{**good, **change})


@pytest.mark.parametrize("name", ["f", "f_nv", "bank", "labels", "index"])
def test_gcl_memory_loss_names_bad_arguments(name):
    f, bank, labels, index = some()
    good = {"f": f, "f_nv": f, "bank": bank, "labels": labels, "index": index}
    with pytest.raises(ValueError, match=rf"gcl_memory_loss: {name} must have shape"):
        ops.gcl_memory_loss(**{**good, name: good[name][None]}, seed=0)
    with pytest.raises(ValueError, match="index.*30"):
        ops.gcl_memory_loss(**{**good, "index": index * 0 + 30}, seed=0)


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


# --- torch.compile and torch.library ---


def test_compiles_into_one_graph_that_serves_every_seed(device):
    from torch._dynamo.testing import CompileCounterWithBackend

    f, bank, labels, index = some(device=device)
    f.requires_grad_()

    def step(f, bank, seed):
        loss = ops.gcl_memory_loss(f, f + 1, bank, labels, index, num_negatives=7, seed=seed)
        ops.bank_update_(bank, index, f, 0.2)
        return loss.sum()

    counter = CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(step, backend=counter, fullgraph=True)
    banks = [bank.clone(), bank.clone()]
    for seed in range(3):
        tensor = torch.tensor(seed, device=device)
        losses = step(f, banks[0], tensor), compiled(f, banks[1], tensor)
        grads = [torch.autograd.grad(loss, f)[0] for loss in losses]
        torch.testing.assert_close(*losses)
        torch.testing.assert_close(*grads)
        torch.testing.assert_close(*banks)
    assert counter.frame_count == 1


def test_ops_are_well_formed(device):
    query, bank, labels, positive = some(device=device)
    seed = torch.tensor(1, device=device)
    for q in (query.clone().requires_grad_(), query):
        args = (q, bank, labels, positive[:, None], 0.5, 3, seed, q.requires_grad)
        torch.library.opcheck(torch.ops.gcl_fast.bank_negative_lse.default, args)
    torch.library.opcheck(torch.ops.gcl_fast.bank_draw_positives.default, (labels, positive, seed))
    torch.library.opcheck(torch.ops.gcl_fast.bank_update_.default, (bank, positive, query, 0.5))
