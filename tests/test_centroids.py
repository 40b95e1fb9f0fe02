"""Cross-entropy over centroids, by a product and by the bank's kernels, against cross_entropy in float64."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from gcl_fast import _native, ops, reference
from gcl_fast.ops import centroids as centroids_module
from gcl_fast.ops.centroids import FEW, LARGE_BATCH, centroid_cross_entropy
from tests.instruction_sets import ALL_SETS, said_with

SIZES = [(1, 1, 8), (5, 40, 16), (3, FEW + 1, 9), (4, 1000, 2000), (LARGE_BATCH, FEW + 1, 24)]


def some(b, c, d, dtype, device):
    rng = torch.Generator().manual_seed(b + c)
    query, centroids = (F.normalize(torch.randn(n, d, generator=rng, dtype=torch.float64), dim=1) for n in (b, c))
    return query.to(device, dtype), centroids.to(device, dtype), torch.randint(c, (b,), generator=rng).to(device)


def loss_and_gradient(function, query, *rest):
    query = query.clone().requires_grad_()
    loss = function(query, *rest)
    return loss.detach(), torch.autograd.grad(loss * 3, query)[0]


def plain(query, centroids, targets, temperature):
    return F.cross_entropy(query @ centroids.T / temperature, targets)


@pytest.mark.parametrize(("b", "c", "d"), SIZES)
def test_equal_to_cross_entropy(b, c, d, device):
    if device.type == "cpu":
        inputs = some(b, c, d, torch.float64, device)
        for got, want in zip(
            loss_and_gradient(centroid_cross_entropy, *inputs, 0.05), loss_and_gradient(plain, *inputs, 0.05), strict=True
        ):
            torch.testing.assert_close(got, want, rtol=1e-10, atol=1e-10)
    inputs = some(b, c, d, torch.float32, device)
    exact = loss_and_gradient(plain, *(t.double() if t.is_floating_point() else t for t in inputs), 0.05)
    got, own = loss_and_gradient(centroid_cross_entropy, *inputs, 0.05), loss_and_gradient(plain, *inputs, 0.05)
    for ours, theirs, want in zip(got, own, exact, strict=True):
        rounding = 4 * torch.finfo(torch.float32).eps * want.abs().max().clamp_min(1.0)  # theirs may be exact by luck
        assert (ours - want).abs().max() <= 2 * (theirs - want).abs().max() + rounding


@pytest.mark.parametrize(("b", "c", "d"), SIZES[:4])
def test_equal_to_its_definition(b, c, d, device):
    inputs = some(b, c, d, torch.float32, device)
    exact = [t.cpu().double() if t.is_floating_point() else t.cpu() for t in inputs]
    want = loss_and_gradient(reference.centroid_cross_entropy, *exact, 0.05)
    for double, other in zip(want, loss_and_gradient(plain, *exact, 0.05), strict=True):
        torch.testing.assert_close(double, other, rtol=1e-10, atol=1e-10)
    own = loss_and_gradient(reference.centroid_cross_entropy, *(t.cpu() for t in inputs), 0.05)
    for ours, theirs, value in zip(loss_and_gradient(centroid_cross_entropy, *inputs, 0.05), own, want, strict=True):
        rounding = 4 * torch.finfo(torch.float32).eps * value.abs().max().clamp_min(1.0)  # theirs may be exact by luck
        assert (ours.cpu() - value).abs().max() <= 2 * (theirs - value).abs().max() + rounding


@pytest.mark.parametrize(("b", "c", "d"), SIZES)
def test_centroids_may_move_before_the_backward(b, c, d, device):
    query, centroids, targets = some(b, c, d, torch.float32, device)
    want = loss_and_gradient(centroid_cross_entropy, query, centroids, targets, 0.05)[1]
    query.requires_grad_()
    loss = centroid_cross_entropy(query, centroids, targets, 0.05)
    centroids.fill_(float("nan"))
    assert torch.equal(torch.autograd.grad(loss * 3, query)[0], want)


def test_gradient_and_no_second_one(device):
    query, centroids, targets = some(4, 6, 5, torch.float64, device)
    query.requires_grad_()
    assert torch.autograd.gradcheck(lambda q: centroid_cross_entropy(q, centroids, targets, 0.3), (query,))
    with pytest.raises(RuntimeError, match="second derivatives are not available"):
        torch.autograd.grad(centroid_cross_entropy(query, centroids, targets, 0.3), query, create_graph=True)


def test_an_empty_batch_has_loss_zero(device):
    query, centroids, targets = some(0, 6, 5, torch.float32, device)
    loss, grad = loss_and_gradient(centroid_cross_entropy, query, centroids, targets, 0.3)
    assert loss == 0 and grad.shape == (0, 5)


def test_autocast_does_not_round(device):
    inputs = some(9, 30, 16, torch.float32, device)
    want = loss_and_gradient(centroid_cross_entropy, *inputs, 0.05)
    with torch.autocast(device.type, torch.bfloat16):
        got = loss_and_gradient(centroid_cross_entropy, *inputs, 0.05)
    for a, b in zip(got, want, strict=True):
        assert a.dtype == torch.float32 and torch.equal(a, b)


def test_compiled_is_the_same(device):
    """Also where sizes change: an epoch's last batch, another number of clusters."""
    compiled = torch.compile(centroid_cross_entropy, fullgraph=True, backend="aot_eager")
    for b, c in ((9, 30), (5, 30), (7, 41)):
        inputs = some(b, c, 16, torch.float32, device)
        got = loss_and_gradient(compiled, *inputs, 0.05)
        for mine, plain_one in zip(got, loss_and_gradient(centroid_cross_entropy, *inputs, 0.05), strict=True):
            torch.testing.assert_close(mine, plain_one)


def test_centroids_may_move_in_a_compiled_step(device):
    """A partitioner that chooses what the backward computes, as inductor's does, must not compute it of moved centroids."""

    def step(query, centroids, targets, temperature):
        loss = centroid_cross_entropy(query, centroids, targets, temperature)
        ops.bank_update_(centroids, targets, query, 0.2)
        return loss

    inputs = some(9, 5, 16, torch.float32, device)  # logits are fewer numbers than the gradient
    want = loss_and_gradient(centroid_cross_entropy, *inputs, 0.05)
    compiled = torch.compile(step, fullgraph=True, backend="aot_eager_decomp_partition")
    before = inputs[1].clone()
    for mine, plain_one in zip(loss_and_gradient(compiled, *inputs, 0.05), want, strict=True):
        torch.testing.assert_close(mine, plain_one)
    assert not torch.equal(inputs[1], before)


def test_the_op_of_graphs_keeps_its_word(device):
    query, centroids, targets = some(4, 9, 8, torch.float32, device)
    for needs in (True, False):
        arguments = query.detach().requires_grad_(needs), centroids, targets, 0.05, needs
        torch.library.opcheck(torch.ops.gcl_fast.centroid_cross_entropy.default, arguments)


@pytest.mark.parametrize(("b", "c", "d"), SIZES)
@pytest.mark.parametrize("bad", [-100, -1, "C"])
def test_a_target_that_is_no_centroid_is_named(b, c, d, bad):
    query, centroids, targets = some(b, c, d, torch.float32, torch.device("cpu"))
    targets[-1] = bad = c if bad == "C" else bad
    with pytest.raises(ValueError, match=f"centroid_cross_entropy: targets must be rows of the bank, 0 to {c - 1}, got {bad}"):
        centroid_cross_entropy(query, centroids, targets, 0.05)


def test_a_target_of_minus_100_is_no_exception_without_native_code(monkeypatch):
    """torch's cross_entropy leaves it out unless told."""
    monkeypatch.setattr(_native, "loaded", False)
    query, centroids, _ = some(3, 4, 5, torch.float32, torch.device("cpu"))
    with pytest.raises(ValueError, match="targets must be rows of the bank, 0 to 3, got -100"), torch.no_grad():
        centroid_cross_entropy(query, centroids, torch.tensor([1, -100, 2]), 0.05)


def rows_of(logits, targets, temperature, with_grad=True):
    """The loss and the logits that the op leaves."""
    left = logits.clone()
    return torch.ops.gcl_fast.cross_entropy_rows_(left, targets, temperature, with_grad), left


@settings(max_examples=60, deadline=None)
@given(
    b=st.integers(1, 5),
    c=st.integers(1, 70),
    scale=st.sampled_from([0.0, 1.0, 30.0]),
    double=st.booleans(),
    seed=st.integers(0, 99),
)
def test_rows_of_logits_against_torch(b, c, scale, double, seed):
    rng = torch.Generator().manual_seed(seed)
    logits = (scale * torch.randn(b, c, generator=rng, dtype=torch.float64)).to(torch.float64 if double else torch.float32)
    targets = torch.randint(c, (b,), generator=rng)
    exact = logits.double().requires_grad_()
    want = F.cross_entropy(exact / 0.7, targets)
    loss, left = rows_of(logits, targets, 0.7)
    gradient = torch.autograd.grad(want, exact)[0]
    close = {"rtol": 1e-12, "atol": 1e-12} if double else {"rtol": 4e-6, "atol": 2e-6}
    torch.testing.assert_close(loss.double(), want.detach(), **close)
    torch.testing.assert_close(left.double(), gradient, **close)
    assert torch.equal(rows_of(logits, targets, 0.7, False)[0], loss)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("far", [-2000, 2000])
@pytest.mark.parametrize("c", [3, 16, 37])
def test_only_how_far_apart_logits_are_counts(c, far, dtype):
    logits = torch.randint(-4, 5, (3, c), generator=torch.Generator().manual_seed(c)).to(dtype)  # whole: nothing is rounded
    targets = torch.tensor([0, 1, 2])
    for got, want in zip(rows_of(logits + far, targets, 0.5), rows_of(logits, targets, 0.5), strict=True):
        assert torch.equal(got, want) and got.isfinite().all()


@pytest.mark.parametrize("c", [3, 16, 37])
def test_logits_that_are_not_numbers_stay_so(c):
    logits, targets = torch.randn(3, c), torch.tensor([0, 1, 2])
    logits[1, -1] = float("nan")
    loss, left = rows_of(logits, targets, 0.5)
    assert loss.isnan() and left[1].isnan().all() and left[[0, 2]].isfinite().all()
    logits[1, -1] = float("-inf")  # a class that cannot be
    loss, left = rows_of(logits, targets, 0.5)
    torch.testing.assert_close(loss, F.cross_entropy(logits / 0.5, targets))
    assert left.isfinite().all() and left[1, -1] < 1e-30


def test_rows_of_logits_on_every_instruction_set():
    code = (
        "import torch, gcl_fast.ops, sys\n"
        "torch.manual_seed(0)\n"
        "x, t = 9 * torch.randn(40, 101), torch.randint(101, (40,))\n"
        "loss = torch.ops.gcl_fast.cross_entropy_rows_(x, t, 0.3, True)\n"
        "sys.stdout.buffer.write(torch.cat([loss.view(1), x.flatten()]).numpy().tobytes())\n"
    )
    found = [torch.frombuffer(bytearray(said_with(isa, code)), dtype=torch.float32) for isa in ALL_SETS]
    for other in found[1:]:  # fma rounds once where there is one
        torch.testing.assert_close(other, found[0], rtol=4e-6, atol=1e-7)


def test_rows_of_logits_check_their_arguments():
    logits, targets = torch.randn(4, 6), torch.tensor([0, 1, 2, 5])
    torch.library.opcheck(torch.ops.gcl_fast.cross_entropy_rows_.default, (logits, targets, 0.5, True))
    op = torch.ops.gcl_fast.cross_entropy_rows_
    for bad, words in (
        ((logits.T, targets, 0.5, True), r"logits must be \[B, C\], contiguous"),
        ((logits[0], targets, 0.5, True), r"logits must be \[B, C\], contiguous"),
        ((logits.half(), targets, 0.5, True), "logits must be float32 or float64"),
        ((logits, targets[:3], 0.5, True), r"targets must be int64 \[B=4\]"),
        ((logits, targets.int(), 0.5, True), r"targets must be int64 \[B=4\]"),
        ((logits, targets + 1, 0.5, True), "targets must be rows of the bank, 0 to 5, got 6"),
    ):
        with pytest.raises(RuntimeError, match=f"cross_entropy_rows_: {words}"):
            op(*bad)


@pytest.mark.parametrize("temperature", [0.0, -1.0, float("nan")])
def test_a_temperature_that_is_none_is_named(temperature):
    query, centroids, targets = some(4, 6, 5, torch.float32, torch.device("cpu"))
    with pytest.raises(ValueError, match=f"centroid_cross_entropy: temperature must be above 0, got {temperature}"):
        centroid_cross_entropy(query, centroids, targets, temperature)


def test_half_precision_is_torchs():
    query, centroids, targets = some(4, 6, 5, torch.bfloat16, torch.device("cpu"))
    loss, gradient = loss_and_gradient(centroid_cross_entropy, query, centroids, targets, 0.3)
    assert loss.dtype == gradient.dtype == torch.bfloat16
    torch.testing.assert_close(loss.float(), plain(query.float(), centroids.float(), targets, 0.3), rtol=0.02, atol=0.02)


@pytest.mark.parametrize(
    ("change", "bank_is_asked"),
    [
        ("nothing", True),
        ("three queries", False),
        ("33 queries", False),
        ("fewer centroids", False),
        ("float64", False),
        ("float64 centroids", False),
        ("uint8 targets", False),
        ("no native code", False),
    ],
)
def test_few_queries_over_many_wide_centroids_go_to_the_banks_kernels(change, bank_is_asked, monkeypatch):
    """On the CPU, where the product is slow, and with arguments that they take as they are; the loss is the same."""
    asked = []
    monkeypatch.setattr(centroids_module, "bank_nce", lambda *a, **k: asked.append(a) or ops.bank_nce(*a, **k))
    batch = {"three queries": 3, "33 queries": 33}.get(change, 8)
    dtype = torch.float64 if change == "float64" else torch.float32
    query, centroids, targets = some(batch, 999 if change == "fewer centroids" else 1000, 2005, dtype, torch.device("cpu"))
    if change == "float64 centroids":
        centroids = centroids.double()
    if change == "uint8 targets":
        targets = (targets % 200).to(torch.uint8)
    if change == "no native code":
        monkeypatch.setattr(_native, "loaded", False)
    loss, gradient = loss_and_gradient(centroid_cross_entropy, query, centroids, targets, 0.05)
    want = loss_and_gradient(plain, query.double(), centroids.double(), targets.long(), 0.05)
    assert len(asked) == bank_is_asked and loss.dtype == gradient.dtype == dtype
    for got, exact in zip((loss, gradient), want, strict=True):
        assert (got - exact).abs().max() <= 1e-5 * exact.abs().max()
