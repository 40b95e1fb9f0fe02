"""Cross-entropy over centroids, by a product and by the bank's kernels, against cross_entropy in float64."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from gcl_fast import reference
from gcl_fast.ops.centroids import FEW, LARGE_BATCH, centroid_cross_entropy

SIZES = [(1, 1, 8), (5, 40, 16), (3, FEW + 1, 9), (LARGE_BATCH, FEW + 1, 24)]


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
        given = some(b, c, d, torch.float64, device)
        for got, want in zip(
            loss_and_gradient(centroid_cross_entropy, *given, 0.05), loss_and_gradient(plain, *given, 0.05), strict=True
        ):
            torch.testing.assert_close(got, want, rtol=1e-10, atol=1e-10)
    given = some(b, c, d, torch.float32, device)
    exact = loss_and_gradient(plain, *(t.double() if t.is_floating_point() else t for t in given), 0.05)
    got, own = loss_and_gradient(centroid_cross_entropy, *given, 0.05), loss_and_gradient(plain, *given, 0.05)
    for ours, theirs, want in zip(got, own, exact, strict=True):
        rounding = 4 * torch.finfo(torch.float32).eps * want.abs().max().clamp_min(1.0)  # theirs may be exact by luck
        assert (ours - want).abs().max() <= 2 * (theirs - want).abs().max() + rounding


@pytest.mark.parametrize(("b", "c", "d"), SIZES[:3])
def test_equal_to_its_definition(b, c, d, device):
    given = some(b, c, d, torch.float32, device)
    exact = [t.cpu().double() if t.is_floating_point() else t.cpu() for t in given]
    want = loss_and_gradient(reference.centroid_cross_entropy, *exact, 0.05)
    for double, other in zip(want, loss_and_gradient(plain, *exact, 0.05), strict=True):
        torch.testing.assert_close(double, other, rtol=1e-10, atol=1e-10)
    own = loss_and_gradient(reference.centroid_cross_entropy, *(t.cpu() for t in given), 0.05)
    for ours, theirs, value in zip(loss_and_gradient(centroid_cross_entropy, *given, 0.05), own, want, strict=True):
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
    given = some(9, 30, 16, torch.float32, device)
    want = loss_and_gradient(centroid_cross_entropy, *given, 0.05)
    with torch.autocast(device.type, torch.bfloat16):
        got = loss_and_gradient(centroid_cross_entropy, *given, 0.05)
    for a, b in zip(got, want, strict=True):
        assert a.dtype == torch.float32 and torch.equal(a, b)


def test_compiled_is_the_same(device):
    given = some(9, 30, 16, torch.float32, device)
    got = loss_and_gradient(torch.compile(centroid_cross_entropy, fullgraph=True, backend="aot_eager"), *given, 0.05)
    for a, b in zip(got, loss_and_gradient(centroid_cross_entropy, *given, 0.05), strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize(("b", "c", "d"), SIZES)
@pytest.mark.parametrize("bad", [-100, -1, "C"])
def test_a_target_that_is_no_centroid_is_named(b, c, d, bad):
    query, centroids, targets = some(b, c, d, torch.float32, torch.device("cpu"))
    targets[-1] = bad = c if bad == "C" else bad
    with pytest.raises(ValueError, match=f"centroid_cross_entropy: targets must be rows of the bank, 0 to {c - 1}, got {bad}"):
        centroid_cross_entropy(query, centroids, targets, 0.05)
