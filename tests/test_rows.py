"""Rows of length 1, also where squares of their entries are no numbers."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from gcl_fast import ops, reference
from gcl_fast.evaluation import top_matches
from gcl_fast.ops import _shared_neighbors
from gcl_fast.ops._rows import moderate, normalised, with_scales
from gcl_fast.ops._rows import unit as unit_with_gradient

SCALES = [1e-44, 1e-30, 1e-20, 1e-16, 1e-14, 1.0, 1e17, 1e19, 3e37]


def rows(n: int = 30, d: int = 24, seed: int = 0) -> Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed))


def unit(x: Tensor) -> Tensor:
    return x.double() / x.double().norm(dim=1, keepdim=True)


@pytest.mark.parametrize("scale", SCALES)
def test_any_finite_row_gets_length_one(scale: float, device: torch.device) -> None:
    x = rows()
    x[::2] *= scale
    want, x = unit(x), x.to(device)
    by_factor, factor = with_scales("op", "x", x)
    shared = _shared_neighbors.unit_rows(x)
    for got in (normalised("op", "x", x), by_factor * factor[:, None], shared):
        assert (got.cpu() - want).abs().max() < 1e-6


@pytest.mark.parametrize("scale", [1e-300, 1e-200, 1e-30, 1e30, 1e200, 1e300])
def test_rows_of_float64_too(scale: float, device: torch.device) -> None:
    x = rows().double()
    want = unit(x)
    x[::2] *= scale
    for got in (normalised("op", "x", x.to(device)), _shared_neighbors.unit_rows(x.to(device))):
        assert (got.cpu() - want).abs().max() < 1e-14


def test_wide_rows_are_extreme_sooner(device: torch.device) -> None:
    x = torch.full((2, 4096), 9e17)  # their squares' sum is no number
    assert (normalised("op", "x", x.to(device)).cpu() - 1 / 64).abs().max() < 1e-7


def test_rows_of_usual_length_keep_their_bits_beside_extreme_ones() -> None:
    x = rows()
    want = normalised("op", "x", x)
    beside = torch.cat([x, 1e-30 * x[:2], 1e30 * x[:2], torch.zeros(1, 24)])
    assert torch.equal(normalised("op", "x", beside)[:30], want) and torch.equal(moderate(x), x)
    assert torch.equal(normalised("op", "x", beside)[-1], torch.zeros(24))
    assert torch.equal(normalised("op", "x", x * 2.0**-100), want)  # a power of two changes no bit


def test_rows_are_contiguous_and_outside_autograd() -> None:
    x = rows().T.contiguous().T.requires_grad_()
    got = normalised("op", "x", x)
    assert not x.is_contiguous() and got.is_contiguous() and not got.requires_grad
    assert not any(part.requires_grad for part in with_scales("op", "x", x))


@pytest.mark.parametrize("scale", [1e-15, 1.0, 1e15])
def test_rows_with_a_gradient_get_length_one_or_stay_zero(scale: float) -> None:
    x = (scale * rows()).index_fill(0, torch.tensor([3]), 0.0).requires_grad_()
    got = unit_with_gradient(x)
    assert torch.equal(got[3], torch.zeros(24))
    torch.testing.assert_close(got.norm(dim=1), torch.ones(30).index_fill(0, torch.tensor([3]), 0.0))
    (gradient,) = torch.autograd.grad((got * rows(seed=1)).sum(), x)
    assert bool(torch.isfinite(gradient).all())


@pytest.mark.parametrize("shape", [(0, 4), (3, 0), (0, 0)])
def test_there_may_be_nothing(shape: tuple[int, int]) -> None:
    assert normalised("op", "x", torch.zeros(shape)).shape == shape


@pytest.mark.parametrize("wrong", [torch.nan, torch.inf, -torch.inf])
def test_what_is_not_finite_is_told(wrong: float, device: torch.device) -> None:
    x = rows().to(device)
    x[3, 2] = wrong
    for call in (normalised, with_scales):
        with pytest.raises(ValueError, match="op: x must be finite, got NaN or infinity in 1 rows"):
            call("op", "x", x)


@pytest.mark.parametrize("scale", [1e-20, 1e19])
def test_ops_do_not_see_how_long_rows_are(scale: float, device: torch.device) -> None:
    x = rows(40, 16).to(device)
    names, cameras = torch.arange(40, device=device) % 5, torch.arange(40, device=device) % 3
    assert torch.equal(ops.knn(x * scale, 5).index, ops.knn(x, 5).index)
    want, got = ops.jaccard_distance(x, 6, 2), ops.jaccard_distance(x * scale, 6, 2)
    assert (want.to_dense() - got.to_dense()).abs().max() < 1e-5
    found = [top_matches(s * x[:9], s * x[9:], names[:9], names[9:], cameras[:9], cameras[9:], top=4) for s in (1.0, scale)]
    assert torch.equal(found[0].index, found[1].index)
    for known in (ops.rank_metrics, reference.rank_metrics):
        scores = [known(s * x[:9], x[9:] * s, names[:9], names[9:], cameras[:9], cameras[9:]).mAP for s in (1.0, scale)]
        assert scores[0] == pytest.approx(scores[1], abs=1e-12)
