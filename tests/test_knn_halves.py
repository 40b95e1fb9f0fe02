"""Neighbours by half-precision candidates: those of float32, and its own search where the bound is not enough."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gcl_fast import ops
from gcl_fast.ops import _knn, _knn_halves
from gcl_fast.ops._rows import unit
from tests.test_neighbors import crowd, signs

nearest_by_halves = _knn_halves.nearest_by_halves


def searched_again(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many rows each float32 search looked at, filled while it runs."""
    counts: list[int] = []

    def counting(x, k, penalty=None, which=None):
        counts.append(len(x) if which is None else len(which))
        return _knn.nearest(x, k, penalty, which)

    monkeypatch.setattr(_knn_halves, "nearest", counting)
    return counts


@settings(deadline=None, max_examples=30, derandomize=True)
@given(n=st.integers(2, 150), d=st.sampled_from([1, 4, 16, 33]), seed=st.integers(0, 999), data=st.data())
def test_neighbours_are_float32_s(n: int, d: int, seed: int, data: st.DataObject) -> None:
    k = data.draw(st.integers(2, n))
    for x in (signs(n, 16, seed), unit(crowd(n, d, seed))):  # exact ties; rows that equal others
        want, got = _knn.nearest(x, k), nearest_by_halves(x, k)
        assert (got.value - want.value).abs().max() < 1e-6
        exact = (x.double()[:, None] * x.double()[got.index]).sum(2)  # rounding may swap what float32 cannot tell apart
        assert (exact - want.value).abs().max() < 1e-6
        assert all(len(set(row)) == k for row in got.index.tolist())
    assert torch.equal(nearest_by_halves(signs(n, 16, seed), k).index, _knn.nearest(signs(n, 16, seed), k).index)


def test_most_rows_need_no_second_search_and_the_rest_get_one(monkeypatch: pytest.MonkeyPatch, device: torch.device) -> None:
    generator = torch.Generator().manual_seed(3)
    x = unit(torch.randn(600, 32, generator=generator))
    x[500:560] = unit(x[:1] + 1e-4 * torch.randn(60, 32, generator=generator))  # nearer to each other than half precision sees
    counts = searched_again(monkeypatch)
    x = x.to(device)
    got, want = nearest_by_halves(x, 12), _knn.nearest(x, 12)
    assert counts and 60 <= counts[0] < 200
    assert (got.value - want.value).abs().max() < 1e-6
    far = [0, *range(500, 560)]
    plain = torch.ones(600, dtype=torch.bool)
    plain[far] = False
    assert torch.equal(got.index.cpu()[plain], want.index.cpu()[plain])


def test_the_bound_holds_and_is_not_idle(device: torch.device) -> None:
    x = unit(crowd(200, 64, seed=1)).to(device)
    halves = x.half()
    found = _knn.Lists.empty(200, 200, x)
    _knn_halves.HalfProducts(x).within(halves, 0, found)
    off = (found.value.double() - (x.double() @ x.double().T).gather(1, found.index)).abs()
    bound = _knn_halves._bound(x, halves.float()).double()
    assert (off <= bound[:, None]).all() and off.max() > 0.01 * bound.min()


def test_products_beyond_the_bound_have_their_rows_searched_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """A product that is wrong in one block, as no arithmetic that was reckoned with would be."""
    x = unit(crowd(64, 32, seed=2, spread=1.0))

    class Wrong(_knn_halves.HalfProducts):
        def _block(self, left, right):
            block = super()._block(left, right)
            block[3] += 0.1
            return block

    monkeypatch.setattr(_knn_halves, "HalfProducts", Wrong)
    counts = searched_again(monkeypatch)
    got = nearest_by_halves(x, 5)
    assert counts and torch.equal(got.index, _knn.nearest(x, 5).index)


def test_equal_rows_tie_by_index_in_either_way() -> None:
    x = unit(torch.randn(1, 37, generator=torch.Generator().manual_seed(0))).repeat(50, 1)
    assert nearest_by_halves(x, 4).index[7].tolist() == [7, 0, 1, 2]


def test_auto_takes_halves_on_cuda_alone(monkeypatch: pytest.MonkeyPatch, device: torch.device) -> None:
    monkeypatch.setattr(_knn_halves, "FROM_ROWS", 20)
    taken = []
    monkeypatch.setattr(_knn_halves, "nearest_by_halves", lambda x, k: taken.append(len(x)) or _knn.nearest(x, k))
    x = crowd(30, 8, seed=3).to(device)
    for rows, k in ((x, 5), (x[:19], 5), (x.double(), 5), (x, 1)):
        ops.knn(rows, k)
    ops.knn(x, 5, backend="torch")
    assert taken == ([30] if torch.device(device).type == "cuda" else [])
