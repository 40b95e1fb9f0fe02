"""bank_nce against the formula as plain Python loops over float64."""

from __future__ import annotations

import math
import pickle

import pytest
import torch
from hypothesis import given

from gcl_fast import ops, reference
from tests.bank_cases import BOTH, nce_by_hand, problems, small, some
from tests.instruction_sets import said_with
from tests.threads import threads


@BOTH
@small
@given(problem=problems())
def test_bank_nce_is_the_formula(module, problem):
    want = nce_by_hand(**{("k" if name == "num_negatives" else name): value for name, value in problem.items()})
    torch.testing.assert_close(module.bank_nce(**problem), want, rtol=1e-12, atol=1e-12)


@BOTH
@pytest.mark.parametrize("batch", [1, 4])
def test_one_positive_with_a_query_of_its_own(module, batch, device):
    query, bank, labels, positive = some(b=batch, device=device)
    own = torch.randn(query.shape, generator=torch.Generator().manual_seed(3), dtype=query.dtype).to(device)
    loss = module.bank_nce(query, bank, labels, positive, positive_query=own, temperature=0.5, num_negatives=7, seed=2)
    want = nce_by_hand(query, bank, labels, positive[:, None], own[:, None], 0.5, 7, 2)[:, 0]
    torch.testing.assert_close(loss.cpu(), want, rtol=1e-12, atol=1e-12)


@BOTH
@pytest.mark.parametrize("layout", ["one class", "all distinct", "no class", "no class by other numbers", "half no class"])
def test_extreme_labels(module, layout, device):
    query, bank, _, positive = some(device=device)
    n = len(bank)
    labels = {
        "one class": torch.zeros(n, dtype=torch.int64),
        "all distinct": torch.arange(n),
        "no class": torch.full((n,), -1),
        "no class by other numbers": torch.arange(n) % 4 - 4,
        "half no class": torch.arange(n) % 2 - 1,
    }[layout].to(device)
    query.requires_grad_()
    loss = module.bank_nce(query, bank, labels, positive, temperature=0.1)
    want = nce_by_hand(query.detach(), bank, labels, positive[:, None], None, 0.1, None, 0)[:, 0]
    torch.testing.assert_close(loss.cpu(), want, rtol=1e-12, atol=1e-12)
    (grad,) = torch.autograd.grad(loss.sum(), query)
    if layout == "one class":  # nothing to tell apart
        assert not loss.any() and not grad.any()
    if layout not in ("one class", "half no class"):  # every other row is a negative: plain softmax classification
        torch.testing.assert_close(loss, torch.nn.functional.cross_entropy(query @ bank.T / 0.1, positive, reduction="none"))


def test_float32_is_as_exact_as_the_reference(device):
    query, bank, labels, positive = some(b=16, n=400, d=64, device=device)
    args = {"temperature": 0.04, "num_negatives": 200, "seed": 1}
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
    args = {"temperature": 0.1, "num_negatives": 9, "seed": 2}
    loss = ops.bank_nce(query, bank, labels, positive, **args)
    assert loss.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    double = query.detach().double().requires_grad_()
    want = reference.bank_nce(double, bank.double(), labels, positive, **args)
    torch.testing.assert_close(loss.double(), want, rtol=1e-5, atol=1e-5)
    grads = [torch.autograd.grad(x.sum(), q)[0].double() for x, q in ((loss, query), (want, double))]
    torch.testing.assert_close(*grads, rtol=1e-5, atol=1e-5)


def test_far_logits_stay_finite(device):
    query, bank, labels, _ = some(dtype=torch.float32, device=device)
    best = (query @ bank.T).argmax(1)
    worst = (query @ bank.T).argmin(1)
    for positive in (best, worst):
        q = (1e3 * query).requires_grad_()
        loss = ops.bank_nce(q, bank, labels, positive, temperature=1e-3)
        (grad,) = torch.autograd.grad(loss.sum(), q)
        assert loss.isfinite().all() and grad.isfinite().all() and (loss >= 0).all()


@pytest.mark.parametrize("k", [None, 5])
@pytest.mark.parametrize("with_positive_query", [False, True])
def test_bank_nce_gradcheck(k, with_positive_query, device):
    query, bank, labels, first = some(device=device)
    positive = torch.stack([first, first.roll(1), first], 1)
    positive_query = (
        torch.randn(4, 3, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(1)).to(device).requires_grad_()
    )

    def loss(q, o):
        pq = o if with_positive_query else None
        return ops.bank_nce(q, bank, labels, positive, positive_query=pq, temperature=0.5, num_negatives=k, seed=6)

    assert torch.autograd.gradcheck(loss, (query.requires_grad_(), positive_query))


def test_the_bank_may_be_updated_before_the_backward(device):
    query, bank, labels, positive = some(device=device)
    query.requires_grad_()
    args = {"temperature": 0.1, "num_negatives": 9, "seed": 2}
    (want,) = torch.autograd.grad(reference.bank_nce(query, bank, labels, positive, **args).sum(), query)
    loss = ops.bank_nce(query, bank, labels, positive, **args)
    ops.bank_update_(bank, positive, query, 0.2)
    (got,) = torch.autograd.grad(loss.sum(), query)
    torch.testing.assert_close(got, want, rtol=1e-12, atol=1e-12)


def test_a_second_derivative_is_refused(device):
    query, bank, labels, positive = some(device=device)
    loss = ops.bank_nce(query.requires_grad_(), bank, labels, positive, temperature=0.1)
    with pytest.raises(RuntimeError, match="second derivatives"):
        torch.autograd.grad(loss.sum(), query, create_graph=True)


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
    ("change", "error", "words"),
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


def test_the_op_is_well_formed(device):
    query, bank, labels, positive = some(device=device)
    rows, seed = torch.stack([positive, positive.flip(0)], 1), torch.tensor(1, device=device)
    positive_query = torch.stack([query + 1, query - 1], 1)
    for dtype in (torch.float64, torch.float32):
        for q, o in ((query.to(dtype).requires_grad_(), positive_query.to(dtype).requires_grad_()), (query.to(dtype), None)):
            args = (q, bank.to(dtype), labels, rows, o, 0.5, 3, seed, q.requires_grad)
            torch.library.opcheck(torch.ops.gcl_fast.bank_nce.default, args)


# --- the float32 sweep: blocks, groups of queries, parts of the bank ---

SHAPES = [  # B, N, D, classes, K: odd widths, more than one group, fewer negatives than K, several blocks and parts
    (1, 50, 8, 3, 20),
    (3, 700, 33, 40, 500),
    (9, 1300, 64, 1000, None),
    (17, 1500, 130, 30, 900),
    (20, 300, 515, 2, 290),
    (33, 2100, 16, 5, 7),
    (16, 120, 2048, 9, 64),
    (2, 64, 4096, 1, 10),
]


def loss_and_gradient(module, query, bank, labels, positive, k, **more):
    query = query.clone().requires_grad_()
    loss = module.bank_nce(query, bank, labels, positive, temperature=0.04, num_negatives=k, seed=8, **more)
    return loss.detach(), torch.autograd.grad(loss.sum(), query)[0]


def within_twice_pytorchs_error(query, bank, labels, positive, k):
    """Against float64, of loss and gradient; query in float32. The bank as PyTorch reads it lies apart and is float32."""
    wide = bank.float().contiguous()
    exact = loss_and_gradient(reference, query.double(), wide.double(), labels, positive, k)
    plain = loss_and_gradient(reference, query, wide, labels, positive, k)
    got = loss_and_gradient(ops, query, bank, labels, positive, k)
    for name, a, p, e in zip(("loss", "gradient"), got, plain, exact, strict=True):
        floor = torch.finfo(torch.float32).eps * e.abs().max()  # one rounding: where PyTorch happens to be exact
        assert (a - e).abs().max() <= 2 * (p - e).abs().max() + floor, name


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: "x".join(map(str, shape)))
def test_errors_are_at_most_twice_those_of_pytorch(shape, device):
    b, n, d, classes, k = shape
    query, bank, labels, positive = some(b, n, d, classes, device=device)
    query = torch.nn.functional.normalize(query)
    positive = torch.stack([positive, positive.flip(0)], 1)
    within_twice_pytorchs_error(query.float(), bank.float(), labels, positive, k)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_one_result_for_any_number_of_threads(dtype):
    query, bank, labels, positive = some(18, 40_000, 70, 30, dtype=torch.float32)  # so long that threads do run side by side
    results = []
    for count in (1, 2, 5):
        with threads(count):
            results.append(loss_and_gradient(ops, query, bank.to(dtype), labels, positive, 300))
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("batch", [18, 40])  # by so many as 40 a CPU reads a copy of the bank
@pytest.mark.parametrize("d", [27, 32])  # whole registers, and some more
def test_rows_inside_a_wider_array_are_read_where_they_lie(d, batch, dtype, device):
    query, bank, labels, positive = some(batch, 300, d, 30, dtype=torch.float32, device=device)
    wide = torch.full((300, 61), float("nan"), dtype=dtype, device=device)
    view = wide[:, 7 : 7 + d]  # neither aligned nor adjacent
    view.copy_(bank)
    query = torch.nn.functional.normalize(query)
    within_twice_pytorchs_error(query, view, labels, positive, 50)  # on a GPU not by the same kernel as rows that lie even


def test_labels_that_differ_in_their_upper_halves_alone_are_classes_apart(device):
    query, bank, labels, positive = some(9, 60, 8, 3, device=device)
    labels = torch.where(labels < 0, labels, labels + (torch.arange(60, device=device) % 2 << 32))
    within_twice_pytorchs_error(query.float(), bank.float(), labels, positive, None)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_every_number_of_half_precision_is_read_as_it_is(dtype, device):
    """The gradient of a query of zeros with one negative, zeros too, is its positive row over minus twice the temperature."""
    numbers = torch.arange(-(2**15), 2**15, dtype=torch.int16).view(dtype)
    numbers = torch.where(numbers.isfinite(), numbers, 0).view(-1, 64).to(device)
    rows = len(numbers)
    bank, labels = torch.cat([numbers, torch.zeros_like(numbers[:1])]), (torch.arange(rows + 1, device=device) == rows).long()
    query = torch.zeros(rows, 64, device=device, requires_grad=True)
    loss = ops.bank_nce(query, bank, labels, torch.arange(rows, device=device), temperature=0.5)
    (grad,) = torch.autograd.grad(loss.sum(), query)
    assert torch.equal(-grad, numbers.float())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_a_positive_infinitely_far_has_an_infinite_loss(dtype, device):
    query, bank, labels, positive = some(1, 30, 8, 4, dtype=torch.float32, device=device)
    query, bank = query.abs(), bank.to(dtype)
    bank[positive[0]] = -torch.inf
    assert ops.bank_nce(query, bank, labels, positive, temperature=0.1).tolist() == [torch.inf]


def test_many_small_weights_beside_a_large_one_add_up(device):
    """Each block of them is less than half a unit in the last place of the largest, in float32."""
    bank = torch.full((400_000, 1), -22.0, device=device)
    bank[0] = 0
    labels = (torch.arange(400_000, device=device) == 1).long()
    query, positive = torch.ones(1, 1, device=device), torch.ones(1, dtype=torch.int64, device=device)
    loss = ops.bank_nce(query, bank, labels, positive, temperature=1.0)
    want = 22 + math.log(1 + 400_000 * math.exp(-22))  # the positive is one of the small ones
    assert abs(loss.item() - want) < 3e-6


def test_a_nan_is_not_hidden(device):
    query, bank, labels, positive = some(3, 60, 8, 4, dtype=torch.float32, device=device)
    bank[int((labels != labels[positive[0]]).nonzero()[0])] = float("nan")
    assert ops.bank_nce(query, bank, labels, positive, temperature=0.1)[0].isnan()


@pytest.mark.parametrize("isa", ["baseline", "avx2"])
def test_lesser_instruction_sets_agree(isa):
    query, bank, labels, positive = some(18, 900, 70, 30, dtype=torch.float32)
    code = (
        "import pickle, sys, torch; from gcl_fast import ops; from tests.test_bank_nce import loss_and_gradient, some\n"
        "query, bank, labels, positive = some(18, 900, 70, 30, dtype=torch.float32)\n"
        "out = loss_and_gradient(ops, query / 9, bank, labels, positive, 300)\n"
        "sys.stdout.buffer.write(pickle.dumps([t.numpy() for t in out]))\n"
    )
    exact = loss_and_gradient(reference, query.double() / 9, bank.double(), labels, positive, 300)
    plain = loss_and_gradient(reference, query / 9, bank, labels, positive, 300)
    for got, want, eager in zip(pickle.loads(said_with(isa, code)), exact, plain, strict=True):
        assert (torch.from_numpy(got) - want).abs().max() <= 2 * (eager - want).abs().max()
