"""Neighbours by half-precision candidates: those of float32, and its own search where the bound is not enough."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gcl_fast import _native, ops
from gcl_fast.ops import _knn, _knn_halves
from gcl_fast.ops._rows import unit
from gcl_fast.ops._share import Share
from tests.test_neighbors import crowd, signs

nearest_by_halves = _knn_halves.nearest_by_halves
HALVES = (torch.float16, torch.bfloat16)


def halved_of(x: torch.Tensor, half: torch.dtype) -> _knn_halves.Halved:
    return _knn_halves.Halved.of(x, half, Share(x, alone=True))


def searched_again(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many rows each float32 search looked at, filled while it runs."""
    counts: list[int] = []

    def counting(x, k, share, which=None):
        counts.append(len(x) if which is None else len(which))
        return _knn.nearest(x, k, which=which)

    monkeypatch.setattr(_knn_halves, "nearest", counting)
    return counts


@pytest.mark.parametrize("half", HALVES)
@settings(deadline=None, max_examples=30, derandomize=True)
@given(n=st.integers(2, 150), d=st.sampled_from([1, 4, 16, 33]), seed=st.integers(0, 999), data=st.data())
def test_neighbours_are_float32_s(half: torch.dtype, n: int, d: int, seed: int, data: st.DataObject) -> None:
    k = data.draw(st.integers(2, n))
    for x in (signs(n, 16, seed), unit(crowd(n, d, seed))):  # exact ties; rows that equal others
        want, got = _knn.nearest(x, k), nearest_by_halves(x, k, half)
        assert (got.value - want.value).abs().max() < 1e-6
        exact = (x.double()[:, None] * x.double()[got.index]).sum(2)  # rounding may swap what float32 cannot tell apart
        assert (exact - want.value).abs().max() < 1e-6
        assert all(len(set(row)) == k for row in got.index.tolist())
    assert torch.equal(nearest_by_halves(signs(n, 16, seed), k, half).index, _knn.nearest(signs(n, 16, seed), k).index)


def test_most_rows_need_no_second_search_and_the_rest_get_one(monkeypatch: pytest.MonkeyPatch, device: torch.device) -> None:
    generator = torch.Generator().manual_seed(3)
    x = unit(torch.randn(600, 32, generator=generator))
    x[500:560] = unit(x[:1] + 1e-4 * torch.randn(60, 32, generator=generator))  # nearer to each other than half precision sees
    counts = searched_again(monkeypatch)
    x = x.to(device)
    got, want = nearest_by_halves(x, 12, torch.float16), _knn.nearest(x, 12)
    assert counts and 60 <= counts[0] < 200
    assert (got.value - want.value).abs().max() < 1e-6
    far = [0, *range(500, 560)]
    plain = torch.ones(600, dtype=torch.bool)
    plain[far] = False
    assert torch.equal(got.index.cpu()[plain], want.index.cpu()[plain])


def lifted(x: torch.Tensor) -> torch.Tensor:
    """Rows that have much in common."""
    return unit(x + 3 * unit(torch.ones_like(x[:1])))


@pytest.mark.parametrize("half", HALVES)
@pytest.mark.parametrize("move", [unit, lifted])
def test_the_bound_holds_and_is_not_idle(half: torch.dtype, move, device: torch.device) -> None:
    x = move(unit(crowd(200, 64, seed=1))).to(device)
    halved = halved_of(x, half)
    found = _knn.Lists.empty(200, 200, x)
    _knn_halves.HalfProducts(halved).within(halved.rows, 0, found)
    score = found.value.double() + halved.offset[:, None]
    off = (score - (x.double() @ x.double().T).gather(1, found.index)).abs()
    assert (off <= halved.bound[:, None]).all() and off.max() > 0.01 * halved.bound.min()
    centred = x.double() - x.double().mean(0)
    lost, length, half_length = (rows.norm(dim=1) for rows in (centred - halved.rows, centred, halved.rows.double()))
    assert (halved.bound > length * lost.max() + lost * half_length.max()).all()  # Cauchy and Schwarz, in float64


def test_candidates_that_may_be_among_the_nearest_are_multiplied(device: torch.device) -> None:
    """The second's score may be a bound too high, and a candidate's a bound too low: within two nobody is passed over."""
    x = torch.randn(7, 8, generator=torch.Generator().manual_seed(0)).to(device)
    index = torch.arange(6, device=device).expand(7, -1)
    bound = torch.full((7,), 0.1, device=device)
    score = torch.tensor([1.0, 0.9, 0.8, 0.71, 0.64, 0.3], device=device).expand(7, -1)
    product = torch.ops.gcl_fast.candidate_products(x, index.new_zeros(0), index, score, bound, 2)
    torch.testing.assert_close(product[:, :4], x @ x[:4].T)
    assert (product[:, 5] == -torch.inf).all()


@pytest.mark.parametrize("off", [-1.0, 1.0])
def test_a_product_farther_from_its_score_than_the_bound_makes_a_row_unsure(off: float, device: torch.device) -> None:
    index = torch.arange(4, device=device).expand(3, -1)
    score = torch.tensor([0.9, 0.6, 0.3, 0.0], device=device).expand(3, -1)
    offset, bound = torch.full((3,), 0.25, device=device), torch.full((3,), 0.1, device=device)
    product = score + 0.25
    product[1, 2] += 0.09 * off
    product[2, 2] += 0.11 * off
    value, neighbour, unsure = torch.ops.gcl_fast.best_candidates(index, product, score, offset, bound, False, 2)
    assert unsure.tolist() == [False, False, True]
    assert torch.equal(value, product[:, :2]) and torch.equal(neighbour, index[:, :2])


def between_bfloat16s() -> torch.Tensor:
    """Products that bfloat16 rounds by nearly half a step."""
    sign = torch.randint(0, 2, (60, 2), generator=torch.Generator().manual_seed(0)) * 2.0 - 1
    return unit(sign * (1 + 2**-8 + 0.99 * 2**-9))


def nearly_equal() -> torch.Tensor:
    """Rows that differ by float32's rounding: nothing is left of the bound but that."""
    generator = torch.Generator().manual_seed(0)
    row = unit(torch.randn(1, 2, generator=generator))
    return unit(row + 1e-7 * unit(torch.randn(60, 2, generator=generator)))


@pytest.mark.parametrize("half", HALVES)
@pytest.mark.parametrize("rows", [between_bfloat16s, nearly_equal])
def test_the_bound_holds_where_rounding_is_all(half: torch.dtype, rows) -> None:
    x = rows()
    halved = halved_of(x, half)
    found = _knn.Lists.empty(60, 60, x)
    _knn_halves.HalfProducts(halved).within(halved.rows, 0, found)
    score = (found.value + halved.offset[:, None]).double()
    off = (score - (x.double() @ x.double().T).gather(1, found.index)).abs()
    assert (off <= halved.bound[:, None]).all() and off.max() > 0


@pytest.mark.parametrize("half", HALVES)
def test_some_rows_get_what_all_give_them(half: torch.dtype) -> None:
    x = lifted(unit(crowd(90, 33, seed=1)))
    whole, share = halved_of(x, half), Share(x, alone=True)
    lists, unsure = _knn_halves._search(x, 7, whole, share)
    which = torch.tensor([80, 3, 41])
    some, doubt = _knn_halves._search(x, 7, whole, share, which)  # rows of a sample have their own offset and bound
    assert torch.equal(some.index, lists.index[which]) and torch.equal(some.value, lists.value[which])
    assert torch.equal(doubt, unsure[which])


@pytest.mark.parametrize("count", [1, 2, 100, 16_777_220])
def test_a_sample_reaches_from_the_first_row_to_the_last(count: int) -> None:
    rows = _knn_halves._spread(Share(torch.empty(count, 0), alone=True), torch.device("cpu"))
    assert rows[0] == 0 and rows[-1] == count - 1 and len(rows.unique()) == min(count, _knn_halves.SAMPLE)


def test_bfloat16_settles_rows_that_lie_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = torch.Generator().manual_seed(3)
    x = unit(torch.randn(600, 32, generator=generator))
    counts = searched_again(monkeypatch)
    nearest_by_halves(x, 12, torch.bfloat16)
    assert sum(counts) < 150


@pytest.mark.parametrize("half", HALVES)
def test_what_rows_have_in_common_costs_no_digits(half: torch.dtype) -> None:
    x = unit(crowd(200, 64, seed=1))
    assert halved_of(lifted(x), half).bound.max() < 0.5 * halved_of(x, half).bound.min()


def test_rows_that_bfloat16_cannot_tell_apart_are_searched_in_float32_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = torch.Generator().manual_seed(3)
    x = unit(torch.randn(300, 4096, generator=generator))  # alike in nothing: all products lie close together
    monkeypatch.setattr(_knn_halves, "SAMPLE", 16)
    counts, searched = searched_again(monkeypatch), []
    search = _knn_halves._search
    monkeypatch.setattr(
        _knn_halves,
        "_search",
        lambda x, k, halved, share, which=None: searched.append(which) or search(x, k, halved, share, which),
    )
    got = nearest_by_halves(x, 30, torch.bfloat16)
    assert counts == [300] and [len(which) for which in searched] == [16]
    want = _knn.nearest(x, 30)
    assert torch.equal(got.index, want.index) and torch.equal(got.value, want.value)


@pytest.mark.parametrize("half", HALVES)
def test_products_beyond_the_bound_have_their_rows_searched_again(half: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    """A product that is wrong in one block, as no arithmetic that was reckoned with would be."""
    x = unit(crowd(64, 32, seed=2, spread=1.0))

    class Wrong(_knn_halves.HalfProducts):
        def _block(self, left, right):
            block = super()._block(left, right)
            block[3] += 0.1
            return block

    monkeypatch.setattr(_knn_halves, "HalfProducts", Wrong)
    counts = searched_again(monkeypatch)
    got = nearest_by_halves(x, 5, half)
    assert counts and torch.equal(got.index, _knn.nearest(x, 5).index)


@pytest.mark.parametrize("half", HALVES)
def test_equal_rows_tie_by_index_in_either_way(half: torch.dtype) -> None:
    x = unit(torch.randn(1, 37, generator=torch.Generator().manual_seed(0))).repeat(50, 1)
    assert nearest_by_halves(x, 4, half).index[7].tolist() == [7, 0, 1, 2]


@pytest.mark.parametrize("units", [False, True])
def test_auto_takes_halves_where_they_are_quick(units: bool, monkeypatch: pytest.MonkeyPatch, device: torch.device) -> None:
    """On CUDA float16; on processors that multiply bfloat16, that, if there is enough to multiply."""
    monkeypatch.setattr(_knn_halves, "FROM_ROWS", 20)
    monkeypatch.setattr(_knn_halves, "FROM_NUMBERS", {"cpu": 200, "cuda": 0})
    monkeypatch.setattr(_knn_halves, "LONGEST", 9)
    monkeypatch.setattr(_native, "has_bfloat16_units", lambda: units)
    taken = []
    monkeypatch.setattr(
        _knn_halves, "nearest_by_halves", lambda x, k, half, share: taken.append((x.shape, half)) or _knn.nearest(x, k)
    )
    x = crowd(30, 8, seed=3).to(device)
    for rows, k in ((x, 5), (x[:, :6], 5), (x[:19], 5), (x.double(), 5), (x, 1), (x, 10)):
        ops.knn(rows, k)
    ops.knn(x, 5, backend="torch")
    quick = {"cuda": [((30, 8), torch.float16), ((30, 6), torch.float16)], "cpu": [((30, 8), torch.bfloat16)] if units else []}
    assert taken == quick[torch.device(device).type]
