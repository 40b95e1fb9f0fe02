"""Epoch plans: coverage, composition of batches, cycling, determinism, errors."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gcl_fast.data.plans import Plan, camera_aware_batches, identity_batches, multiple_gallery_batches, sequential, shuffled

few = settings(max_examples=40, deadline=None, derandomize=True)
labels_strategy = st.lists(st.integers(-1, 6), min_size=1, max_size=60).filter(lambda x: max(x) >= 0)


def same(a: Plan, b: Plan) -> bool:
    return len(a) == len(b) and all(np.array_equal(x, y) for x, y in zip(a, b, strict=True))


def joined(plan: Plan) -> np.ndarray:
    return np.concatenate([np.empty(0, dtype=np.int64), *plan.batches])


@few
@given(st.integers(0, 50), st.integers(1, 20))
def test_sequential(n, size):
    plan = sequential(n, size)
    assert joined(plan).tolist() == list(range(n)) and plan.num_samples == n
    assert all(b.size == size for b in plan.batches[:-1])


@few
@given(st.sets(st.integers(0, 1000), min_size=1, max_size=50), st.integers(1, 20), st.booleans(), st.integers(0, 2**70))
def test_shuffled_reads_each_once(indices, size, drop_last, seed):
    size = min(size, len(indices))
    plan = shuffled(sorted(indices), size, seed=seed, drop_last=drop_last)
    rows = joined(plan).tolist()
    assert len(rows) == len(set(rows)) and set(rows) <= indices
    assert len(rows) == (len(indices) // size * size if drop_last else len(indices))
    assert all(b.size == size and b.dtype == np.int64 for b in plan.batches[: -1 if not drop_last else None])
    assert same(plan, shuffled(np.array(sorted(indices)), size, seed=seed, drop_last=drop_last))


def test_shuffled_cycles_through_reshuffles():
    plan = shuffled(range(100, 110), 4, seed=3, num_batches=7)  # passes of two batches
    assert len(plan) == 7
    passes = [np.concatenate(plan.batches[i : i + 2]).tolist() for i in (0, 2, 4)]
    assert all(len(set(p)) == 8 for p in passes) and passes[0] != passes[1] != passes[2]
    assert same(Plan(plan.batches[:2]), shuffled(range(100, 110), 4, seed=3))
    assert len(shuffled(range(100), 4, seed=3, num_batches=5)) == 5


def test_seeds_differ_and_may_be_several():
    plans = [joined(shuffled(range(50), 5, seed=s)).tolist() for s in (0, 1, (0, 0), (0, 1), [1, 0], 2**32)]
    assert len({tuple(p) for p in plans}) == 6
    large = [joined(shuffled(range(50), 5, seed=s)).tolist() for s in ((2**32, 5), (0, 1 + 5 * 2**32))]
    assert large[0] != large[1]  # the same words, were they not counted


def test_plans_leave_the_global_generator_alone():
    np.random.seed(0)
    before = np.random.get_state()[1].tolist()
    camera_aware_batches([0, 0, 1, 1], [0, 1, 0, 1], 2, 2, seed=0)
    assert np.random.get_state()[1].tolist() == before


@few
@given(labels_strategy, st.integers(1, 9), st.integers(1, 6), st.integers(0, 99), st.none() | st.integers(1, 12), st.booleans())
def test_identity_batches(labels, P, K, seed, num_batches, aware):
    labels = np.array(labels)
    identities = set(labels.tolist()) - {-1}
    cameras = np.arange(labels.size) % 3

    def make():
        if aware:
            return camera_aware_batches(labels, cameras, P, K, seed=seed, num_batches=num_batches)
        return identity_batches(labels, P, K, seed=seed, num_batches=num_batches)

    plan = make()
    take = min(P, len(identities))
    assert len(plan) == (num_batches or -(-len(identities) // take))
    for batch in plan:
        rows = batch.reshape(take, K)
        people = labels[rows]
        assert (people == people[:, :1]).all() and len(set(people[:, 0].tolist())) == take and people.min() >= 0
        for row in rows:  # each image as often as any other of its person, give or take one; no repeats if there are K
            counts = Counter(row.tolist())
            own = np.flatnonzero(labels == labels[row[0]])
            assert max(counts.values()) == -(-K // own.size)
            assert len(counts) == min(K, own.size)
    if num_batches is None:
        assert set(labels[joined(plan)].tolist()) == identities
    drawn = Counter(labels[b.reshape(take, K)[:, 0]][j] for b in plan for j in range(take))
    assert max(drawn.values()) - min(drawn.get(i, 0) for i in identities) <= 2  # identities come round evenly
    assert same(plan, make())


def test_the_last_batch_of_a_pass_is_filled_up():
    labels = np.repeat(np.arange(5), 2)
    plan = identity_batches(labels, 2, 2, seed=0)
    people = [sorted(set(labels[batch].tolist())) for batch in plan]
    assert [len(p) for p in people] == [2, 2, 2] and set().union(*people) == set(range(5))


@few
@given(labels_strategy, st.integers(1, 8), st.integers(0, 99), st.data())
def test_camera_aware_spreads_over_cameras(labels, K, seed, data):
    labels = np.array(labels)
    cameras = np.array(data.draw(st.lists(st.integers(0, 4), min_size=labels.size, max_size=labels.size)))
    for batch in camera_aware_batches(labels, cameras, 3, K, seed=seed):
        for row in batch.reshape(-1, K):
            own = np.flatnonzero(labels == labels[row[0]])
            has = Counter(cameras[own].tolist())
            drawn = Counter(cameras[np.unique(row)].tolist())
            assert len(drawn) == min(len(has), K)
            for camera, n in has.items():  # none gives two more than another that has images left
                assert drawn[camera] == n or drawn[camera] >= max(drawn.values()) - 1


@few
@given(labels_strategy, st.integers(1, 8), st.integers(0, 99), st.data())
def test_multiple_gallery_takes_one_and_what_other_cameras_saw(labels, K, seed, data):
    labels = np.array(labels)
    cameras = np.array(data.draw(st.lists(st.integers(0, 3), min_size=labels.size, max_size=labels.size)))
    plan = multiple_gallery_batches(labels, cameras, 3, K, seed=seed)
    assert same(plan, multiple_gallery_batches(labels, cameras, 3, K, seed=seed))
    for batch in plan:
        for first, *rest in batch.reshape(-1, K).tolist():
            own = np.flatnonzero(labels == labels[first])
            elsewhere = own[cameras[own] != cameras[first]]
            from_there = elsewhere if elsewhere.size else own[own != first]
            if not from_there.size:
                assert set(rest) <= {first}
                continue
            assert set(rest) <= set(from_there.tolist())
            assert from_there.size < K or len(set(rest)) == K - 1  # no repetition where there are enough


def test_a_camera_of_many_images_leaves_room_for_the_others():
    cameras = [0] * 20 + [1, 2]
    for seed in range(5):
        (batch,) = camera_aware_batches([7] * 22, cameras, 1, 3, seed=seed)
        assert sorted(cameras[i] for i in batch) == [0, 1, 2]


def test_multiple_gallery_repeats_where_there_are_fewer_than_k():
    """K - 1 others would be enough for no repetition; the published sampler asks for K."""
    for others, repeats in ((3, True), (4, False)):
        drawn = [multiple_gallery_batches([0] * (1 + others), [0] * (1 + others), 1, 4, seed=s).batches[0] for s in range(40)]
        assert any(len(set(batch.tolist())) < 4 for batch in drawn) == repeats


def test_every_image_comes_up_in_time():
    labels = np.repeat(np.arange(4), 10)
    for plan in (
        identity_batches(labels, 2, 4, seed=0, num_batches=80),
        camera_aware_batches(labels, np.arange(40) % 7, 2, 4, seed=0, num_batches=80),
        multiple_gallery_batches(labels, np.arange(40) % 7, 2, 4, seed=0, num_batches=80),
    ):
        assert set(joined(plan).tolist()) == set(range(40))


def test_errors_name_the_argument():
    with pytest.raises(ValueError, match="at least one identity, got 3 labels, all -1"):
        identity_batches([-1, -1, -1], 2, 2, seed=0)
    with pytest.raises(ValueError, match="at least one identity, got 0 labels"):
        identity_batches([], 2, 2, seed=0)
    with pytest.raises(ValueError, match=r"cameras must have shape \[N=3\].*got \[2\]"):
        camera_aware_batches([0, 1, 2], [0, 1], 2, 2, seed=0)
    with pytest.raises(ValueError, match=r"multiple_gallery_batches: cameras must have shape \[N=3\].*got \[2\]"):
        multiple_gallery_batches([0, 1, 2], [0, 1], 2, 2, seed=0)
    with pytest.raises(ValueError, match=r"labels must be integers \[N\], got float64"):
        identity_batches([0.5], 2, 2, seed=0)
    with pytest.raises(ValueError, match="labels must be at least -1, got -2"):
        identity_batches([0, -2], 2, 2, seed=0)
    with pytest.raises(ValueError, match="K must be an integer of at least 1, got 0"):
        identity_batches([0, 1], 2, 0, seed=0)
    with pytest.raises(ValueError, match="batch_size=4, got 3"):
        shuffled([1, 2, 3], 4, seed=0)
    with pytest.raises(ValueError, match="num_batches must be an integer of at least 1"):
        shuffled([1, 2, 3], 2, seed=0, num_batches=0)
    with pytest.raises(ValueError, match="seed must be an integer of at least 0"):
        shuffled([1, 2, 3], 2, seed=-1)
    with pytest.raises(ValueError, match="seed must be an integer of at least 0, or several, got True"):
        shuffled([1, 2, 3], 2, seed=True)
    with pytest.raises(ValueError, match="batch_size must be an integer of at least 1, got 0"):
        sequential(3, 0)
    with pytest.raises(ValueError, match=r"batches\[1\].*int64"):
        Plan((np.array([0]), np.array([0.5])))
    with pytest.raises(ValueError, match=r"batches\[1\] must hold positions of at least 0, got -1"):
        Plan((np.array([0]), np.array([2, -1])))
    with pytest.raises(ValueError, match=r"batches\[0\].*non-empty"):
        Plan((np.array([], dtype=np.int64),))
