"""Losses and label rules of MLC and JVTC against float64 definitions by hand, and by small sums."""

from __future__ import annotations

import math
from dataclasses import replace
from unittest import mock

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from gcl_fast.config import ClusterConfig
from gcl_fast.errors import StageError
from gcl_fast.ops._walk import mutual_walk
from gcl_fast.pseudo_labels import remove_camera_bias
from gcl_fast.records import Record
from gcl_fast.reference import warmup as plain
from gcl_fast.stages.losses import global_loss, local_loss, mmcl_loss, similarities, view_means
from gcl_fast.stages.warmup import multilabel
from gcl_fast.stages.warmup.cluster_contrast import cluster_means
from gcl_fast.stages.warmup.joint_labels import joint_labels, joint_neighbors, visual_labels
from gcl_fast.stages.warmup.temporal import IntervalModel, frames_of, interval_model, joint_similarity


def grouped_rows(n: int, width: int, groups: int, spread: float, seed: int) -> torch.Tensor:
    """Normalised float64 rows around a few centres."""
    rng = torch.Generator().manual_seed(seed)
    centres = torch.randn(groups, width, generator=rng, dtype=torch.float64)
    rows = centres[torch.arange(n) % groups] + spread * torch.randn(n, width, generator=rng, dtype=torch.float64)
    return F.normalize(rows, dim=1)


# multi-labels


def multi_labels(bank, index, *, threshold=0.6, min_neighbors=10, walk="mutual"):
    """By products, as on the CPU, and by `mutual_walk`, as on a GPU."""
    ways = []
    for by_products in (True, False):
        with mock.patch.object(multilabel, "_on_host", lambda _, way=by_products: way):
            ways.append(multilabel.multi_labels(bank, index, threshold, min_neighbors, walk))
    assert torch.equal(*ways)
    return ways[0]


@settings(max_examples=40, deadline=None)
@given(
    n=st.integers(2, 40),
    groups=st.integers(1, 6),
    spread=st.sampled_from([0.0, 0.2, 0.6, 1.5]),
    seed=st.integers(0, 999),
    threshold=st.sampled_from([-1.0, 0.3, 0.6, 0.95]),
    least=st.sampled_from([1, 3, 10]),
    walk=st.sampled_from(["mutual", "released"]),
)
def test_multi_labels_as_defined(n, groups, spread, seed, threshold, least, walk):
    bank = grouped_rows(n, 5, groups, spread, seed)
    # exact fractions, so that the order of equals does not hang on rounding
    bank = (bank * 8).round() / 8
    index = torch.randint(0, n, (7,), generator=torch.Generator().manual_seed(seed))
    found = multi_labels(bank, index, threshold=threshold, min_neighbors=least, walk=walk)
    assert torch.equal(found, plain.multi_labels(bank, index, threshold=threshold, min_neighbors=least, walk=walk))
    assert found[torch.arange(7), index].all()


def test_multi_labels_by_hand():
    """Rows on a circle. Query 0 at 0 degrees: 10 and 20 degrees are near and mutual; 30 has nearer ones on its other side."""
    angles = torch.tensor([0.0, 10, 20, 30, 33, 35, 36, 90], dtype=torch.float64).deg2rad()
    bank = torch.stack([angles.cos(), angles.sin()], 1)
    found = multi_labels(bank, torch.tensor([0, 7]), threshold=math.cos(math.radians(31)), min_neighbors=1)
    # above the threshold: 0, 10, 20, 30 -> t = 4. 30's four nearest: 30, 33, 35, 36: not 0. 20's: 20, 10, 30, 33: not 0.
    assert found[0].tolist() == [True, True, False, False, False, False, False, False]
    assert found[1].nonzero().flatten().tolist() == [7]


def test_a_row_just_at_the_threshold_is_not_near():
    bank = torch.tensor([[1.0, 0, 0, 0], [0.5, 0.5, 0.5, 0.5], [0, 1.0, 0, 0]])
    for walk in ("mutual", "released"):
        for threshold, near in ((0.5, [True, False, False]), (0.49, [True, True, False])):
            found = multi_labels(bank, torch.tensor([0]), threshold=threshold, min_neighbors=3, walk=walk)
            assert found[0].tolist() == near


def test_the_released_walk_takes_the_nearest_always():
    """Row 0's nearest, row 1, has nearer ones than row 0: no positive by the paper, one by the code."""
    angles = torch.tensor([0.0, 30, 31, 32, 33], dtype=torch.float64).deg2rad()
    bank, query = torch.stack([angles.cos(), angles.sin()], 1), torch.tensor([0])
    near = {"threshold": math.cos(math.radians(30.5)), "min_neighbors": 1}
    assert multi_labels(bank, query, **near, walk="mutual")[0].tolist() == [True, False, False, False, False]
    assert multi_labels(bank, query, **near, walk="released")[0].tolist() == [True, True, False, False, False]
    assert multi_labels(bank, query, threshold=0.9, min_neighbors=1, walk="released")[0].tolist() == [True] + 4 * [False]


def test_multi_labels_in_small_blocks(monkeypatch):
    bank = grouped_rows(60, 6, 3, 0.3, 0).float()
    index = torch.arange(0, 60, 4)
    whole = multi_labels(bank, index)
    assert (whole.sum(1) > 1).any()
    monkeypatch.setattr(multilabel, "BLOCK", 120)
    monkeypatch.setattr(multilabel, "FIRST_STEPS", 1)
    assert torch.equal(multi_labels(bank, index), whole)
    assert multi_labels(bank, index[:0]).shape == (0, 60)


@pytest.mark.parametrize("reach", [1, 4, 12, 30])
def test_the_walk_of_both_forms_is_the_same(reach):
    """Also of rows not yet seen, and of copies."""
    bank = (grouped_rows(30, 5, 4, 0.3, 2) * 8).round() / 8
    bank[7], bank[8] = 0, bank[3]
    index = torch.arange(30)
    similarity = (bank @ bank.T).fill_diagonal_(torch.inf)
    order = similarity.sort(dim=1, descending=True, stable=True).indices
    given = bank, index, order, torch.arange(30), torch.full((30,), reach)
    steps = mutual_walk(*given)
    assert torch.equal(steps, multilabel._walk_by_products(*given))
    assert (steps <= torch.arange(30).sub(1).clamp(min=0)).all() and bool(steps.any()) == (reach > 1)
    if reach == 30:
        assert steps[1:].tolist() == list(range(29))


def test_rows_not_yet_seen_have_only_themselves():
    bank = torch.cat([torch.zeros(3, 4), F.normalize(torch.ones(4, 4), dim=1)])
    found = multi_labels(bank, torch.tensor([1, 4]))
    assert found[0].nonzero().flatten().tolist() == [1] and found[1].nonzero().flatten().tolist() == [3, 4, 5, 6]


# MMCL's loss


@pytest.mark.parametrize("columns", [1, 7, 100, 101, 350])
@pytest.mark.parametrize("share", [0.01, 0.3, 1.0])
def test_mmcl_loss_as_defined(columns, share):
    rng = torch.Generator().manual_seed(columns)
    similarity = torch.rand(6, columns, generator=rng, dtype=torch.float64) * 2 - 1
    positive = torch.rand(6, columns, generator=rng) < 0.2
    positive[:, 0] = True
    positive[0] = True  # a row without negatives
    similarity.requires_grad_()
    pulled, pushed = mmcl_loss(similarity, positive, positive_weight=5.0, hard_share=share)
    expected = plain.mmcl_loss(similarity, positive, positive_weight=5.0, hard_share=share)
    torch.testing.assert_close(pulled + pushed, expected, rtol=1e-13, atol=1e-13)
    ours, theirs = (torch.autograd.grad(loss, similarity, retain_graph=True)[0] for loss in (pulled + pushed, expected))
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-13)


def test_mmcl_loss_in_numbers():
    similarity = torch.tensor([[0.9, 0.5, -0.2, 0.1]])
    pulled, pushed = mmcl_loss(similarity, torch.tensor([[True, True, False, False]]), hard_share=0.01)
    assert pulled.item() == pytest.approx(5 * (0.01 + 0.25) / 2) and pushed.item() == pytest.approx(1.1**2)


def test_hard_share_of_a_hundred_negatives_is_one():
    similarity = torch.linspace(-1, 1, 101, dtype=torch.float64)[None]
    positive = torch.zeros(1, 101, dtype=torch.bool)
    positive[0, 0] = True  # 100 negatives: the hardest alone, similarity 1
    assert mmcl_loss(similarity, positive, hard_share=0.01)[1].item() == pytest.approx(4.0)
    assert mmcl_loss(similarity, positive)[1].item() == pytest.approx(4.0)  # the published share
    assert mmcl_loss(similarity, positive, hard_share=0.02)[1].item() == pytest.approx((4 + 1.98**2) / 2)
    hardest = sum((2 - k / 50) ** 2 for k in range(29)) / 29  # 100 * 0.29 is a little less than 29 in float64
    assert mmcl_loss(similarity, positive, hard_share=0.29)[1].item() == pytest.approx(hardest)


def test_similarities_are_cosines_with_gradient_to_the_features_alone():
    feature, bank = torch.randn(3, 4, requires_grad=True), F.normalize(torch.randn(5, 4), dim=1).requires_grad_()
    found = similarities(feature, bank)
    torch.testing.assert_close(found, F.cosine_similarity(feature[:, None], bank[None], dim=2))
    found.sum().backward()
    assert feature.grad is not None and bank.grad is None


# JVTC's losses


@pytest.mark.parametrize(("n", "views"), [(1, 4), (3, 4), (5, 1), (4, 2)])
def test_local_loss_as_defined(n, views):
    rng = torch.Generator().manual_seed(n)
    feature = torch.randn(n * views, 6, generator=rng, dtype=torch.float64, requires_grad=True)
    ours, expected = local_loss(feature, views, 0.1), plain.local_loss(feature, views, 0.1)
    torch.testing.assert_close(ours, expected, rtol=1e-12, atol=1e-14)
    gradients = [torch.autograd.grad(loss, feature, retain_graph=True)[0] for loss in (ours, expected)]
    torch.testing.assert_close(*gradients, rtol=1e-9, atol=1e-12)
    assert torch.autograd.gradcheck(lambda f: local_loss(f, views, 0.1), feature)


def test_view_means_are_of_the_views_of_one_image():
    feature = torch.tensor([[2.0, 0], [0, 2], [3, 0], [5, 0]])
    torch.testing.assert_close(view_means(feature, 2), torch.tensor([[0.5**0.5, 0.5**0.5], [1.0, 0.0]]))


@pytest.mark.parametrize("target_norm", ["l1", "l2"])
@pytest.mark.parametrize("labels", [[0, 1, 2, 3, 4, 5, 6], [0, 0, 0, 0, 0, 0, 0], [3, 1, 3, 0, 1, 3, 2]])
def test_global_loss_as_defined(labels, target_norm):
    rng = torch.Generator().manual_seed(4)
    bank = F.normalize(torch.randn(7, 5, generator=rng, dtype=torch.float64), dim=1)
    feature = torch.randn(6, 5, generator=rng, dtype=torch.float64, requires_grad=True)
    labels, index = torch.tensor(labels), torch.tensor([2, 0, 5])
    ours, expected = (loss(feature, bank, labels, index, 0.05, target_norm) for loss in (global_loss, plain.global_loss))
    torch.testing.assert_close(ours, expected, rtol=1e-10, atol=1e-12)
    gradients = [torch.autograd.grad(loss, feature, retain_graph=True)[0] for loss in (ours, expected)]
    torch.testing.assert_close(*gradients, rtol=1e-9, atol=1e-10)
    if target_norm == "l2":  # unless told
        assert torch.equal(ours, global_loss(feature, bank, labels, index, 0.05))


def test_global_loss_does_not_see_later_updates_of_the_memory():
    bank, labels = F.normalize(torch.randn(6, 4), dim=1), torch.tensor([0, 0, 1, 1, 2, 2])
    feature, index = torch.randn(4, 4, requires_grad=True), torch.tensor([0, 3])
    global_loss(feature, bank, labels, index, 0.05).backward()
    expected, feature.grad = feature.grad, None
    loss = global_loss(feature, bank, labels, index, 0.05)
    assert torch.isfinite(loss)
    loss.backward()
    assert torch.equal(feature.grad, expected)


# time


@settings(max_examples=25, deadline=None)
@given(
    n=st.integers(1, 30),
    cameras=st.integers(1, 4),
    seed=st.integers(0, 999),
    smooth=st.sampled_from([0.5, 2.0, 50.0]),
    within=st.sampled_from(["once", "released"]),
)
def test_interval_model_as_defined(n, cameras, seed, smooth, within):
    rng = np.random.default_rng(seed)
    camera, frame, label = rng.integers(0, cameras, n), rng.integers(0, 3000, n), rng.integers(-1, 6, n)
    label[0] = 0
    model = interval_model(camera, frame, label, bin_frames=100, smooth_bins=smooth, within_camera=within)
    keep = label >= 0
    expected = plain.interval_probability(camera[keep], frame[keep], label[keep], 100, smooth, within)
    np.testing.assert_allclose(model.probability.numpy(), expected, rtol=1e-5, atol=1e-7)
    total = model.probability.sum(2)
    assert bool((((total - 1).abs() < 1e-4) | (total == 0)).all())


def test_interval_model_knows_the_direction():
    """Everyone walks from camera 0 to camera 1 in 500 frames."""
    camera, frame = np.array([0, 1] * 4), np.array([0, 500, 1000, 1500, 4000, 4500, 90, 590])
    model = interval_model(camera, frame, np.repeat(np.arange(4), 2), bin_frames=100, smooth_bins=0.5)
    at = lambda *pair: float(model(*(torch.tensor(x) for x in pair)))  # noqa: E731
    assert at(1, 700, 0, 200) == at(0, 200, 1, 700) > 0.7  # symmetric in the images
    assert at(0, 700, 1, 200) == 0  # camera 1 first: never seen
    assert at(1, 10**6, 0, 0) == 0  # beyond the last bin


def test_intervals_beyond_the_last_bin_have_no_probability():
    model = IntervalModel(torch.tensor([[[0.5, 0.3, 0.2]]]), 100)
    camera, frames = torch.zeros(4, dtype=torch.int64), torch.tensor([0, 299, 300, 10**6])
    assert model(camera, frames, camera, torch.zeros_like(frames)).tolist() == pytest.approx([0.5, 0.2, 0, 0])


def test_interval_model_is_symmetric_where_two_cameras_see_one_frame():
    """Everyone is in both cameras at once: either image of a pair says so."""
    camera, frame = torch.tensor([0, 1] * 4), torch.tensor([0, 0, 1000, 1000, 4000, 4000, 90, 90])
    model = interval_model(camera, frame, torch.arange(4).repeat_interleave(2), bin_frames=100, smooth_bins=0.5)
    pairs = model(camera[:, None], frame[:, None], camera, frame)
    assert torch.equal(pairs, pairs.T)
    assert bool((pairs[0::2, 1::2].diagonal() > 0.7).all())


def test_joint_similarity_in_numbers():
    found = joint_similarity(torch.tensor([1.0, 0.0, 0.5]), torch.tensor([0.0, 1.0, 0.2]))
    expected = [1 / (1 + math.exp(-5)) / 3, 0.5 / (1 + 2 * math.exp(-5)), 1 / (1 + math.exp(-2.5)) / (1 + 2 * math.exp(-1))]
    torch.testing.assert_close(found, torch.tensor(expected))


@pytest.mark.parametrize("candidates", [10, 200])
def test_joint_neighbors_are_the_best_of_the_candidates(candidates):
    rng = np.random.default_rng(0)
    features = grouped_rows(40, 6, 8, 0.5, 1)
    camera, frame = rng.integers(0, 3, 40), rng.integers(0, 2000, 40)
    model = interval_model(camera, frame, np.arange(40) % 8, bin_frames=100, smooth_bins=1.0)
    model = IntervalModel(model.probability.double() * 3, 100)  # so that time has a say
    tensors = torch.from_numpy(camera), torch.from_numpy(frame)
    found = joint_neighbors(features, *tensors, model, 6, candidates).numpy()
    joint = plain.joint_similarity(features, camera, frame, model.probability.numpy(), 100)
    visual = (features @ features.T).numpy()
    for i in range(40):
        allowed = np.argsort(-visual[i])[:candidates]
        best = sorted(set(allowed) - {i}, key=lambda j: -joint[i, j])[:5]
        assert found[i, 0] == i and set(found[i, 1:]) == set(best), i
    assert (found[:, 1:] != np.argsort(-visual, 1)[:, 1:6]).any()


def test_joint_neighbors_are_as_many_as_asked_for_and_ties_go_to_the_visually_nearer():
    features = grouped_rows(40, 6, 8, 0.5, 1)
    cameras, frames = torch.zeros(40, dtype=torch.int64), torch.arange(40) * 100
    nothing = IntervalModel(torch.zeros(1, 1, 1, dtype=torch.float64), 100)  # time says the same of all
    nearest = (features @ features.T).fill_diagonal_(2).argsort(dim=1, descending=True)[:, :6]
    assert torch.equal(joint_neighbors(features, cameras, frames, nothing, 6, 2), nearest)
    alike = features[torch.arange(40) // 5 * 5]  # five copies of each: joint similarities tie, too
    tied = joint_neighbors(alike, cameras, frames, nothing, 5, 40)
    expected = torch.arange(40).view(8, 1, 5).expand(8, 5, 5).reshape(40, 5)
    expected = torch.stack([torch.cat([row[row == i], row[row != i]]) for i, row in enumerate(expected)])
    assert torch.equal(tied, expected)


@pytest.mark.parametrize("share", [0.0, 0.3])
def test_labels_without_the_bias_of_cameras_are_those_of_features_without_it(share):
    features, cameras = grouped_rows(60, 8, 6, 0.4, 2), torch.arange(60) // 6 % 2
    features, frames = features + 2.0 * torch.eye(8, dtype=torch.float64)[cameras], torch.arange(60) * 70
    rule = ClusterConfig(k1=8, k2=2, eps=0.6, min_samples=2)
    removed, plain_features = remove_camera_bias(features, cameras), F.normalize(features, dim=1)
    options = {"bin_frames": 100, "smooth_bins": 1.0, "candidates": 40, "euclidean_share": share, "joint_share": share}
    without, with_it = replace(rule, debias_cameras=True), replace(rule, debias_cameras=False)
    for found, expected, biased in (
        (
            [visual_labels(features, cameras, without, 1.0, share)],
            [visual_labels(removed, cameras, with_it, 1.0, share)],
            [visual_labels(plain_features, cameras, with_it, 1.0, share)],
        ),
        (
            joint_labels(features, cameras, frames, without, 1.0, **options),
            joint_labels(removed, cameras, frames, with_it, 1.0, **options),
            joint_labels(plain_features, cameras, frames, with_it, 1.0, **options),
        ),
    ):
        for one, same, other in zip(found, expected, biased, strict=True):
            assert torch.equal(one.labels, same.labels) and not torch.equal(one.labels, other.labels)


def test_a_camera_of_outliers_alone_has_no_intervals_and_stops_nothing():
    people = grouped_rows(40, 8, 4, 0.1, 5)
    strangers = F.normalize(torch.randn(2, 8, generator=torch.Generator().manual_seed(6), dtype=torch.float64), dim=1)
    features, cameras = torch.cat([people, strangers]), torch.cat([torch.arange(40) % 2, torch.tensor([2, 2])])
    rule = ClusterConfig(k1=8, k2=2, eps=0.5, min_samples=4)
    options = {"bin_frames": 100, "smooth_bins": 1.0, "candidates": 40}
    _, visual = joint_labels(features, cameras, torch.arange(42) * 50, rule, 1.0, **options)
    assert visual.labels[40:].tolist() == [-1, -1] and visual.num_clusters == 4


def test_time_parts_people_who_look_alike():
    """Two look-alikes, each seen by two cameras 300 frames apart; the second person two hours later."""
    looks = F.normalize(torch.randn(8, 16, generator=torch.Generator().manual_seed(0)), dim=1)
    who = np.repeat(np.arange(8), 10)
    pair = torch.from_numpy(who // 2 * 2)  # persons 2k and 2k + 1 wear the same
    features = F.normalize(looks[pair] + 0.02 * torch.randn(80, 16, generator=torch.Generator().manual_seed(1)), dim=1)
    camera = torch.arange(80) % 2
    frame = torch.from_numpy(who % 2 * 100_000 + who // 2 * 31) + 300 * camera
    rule = ClusterConfig(k1=10, k2=2, eps=0.6, min_samples=1)
    visual = visual_labels(features, camera, rule, 1.0)
    options = {"bin_frames": 100, "smooth_bins": 1.0, "candidates": 40}
    joint, again = joint_labels(features, camera, frame, rule, 1.0, **options)
    assert torch.equal(visual.labels, again.labels)

    def mixed(labels):
        return sum(len(set(who[labels.numpy() == label])) > 1 for label in labels.unique().tolist())

    assert mixed(visual.labels) >= 3 and mixed(joint.labels) < mixed(visual.labels)


def test_labels_scale_the_radius_of_rho():
    features = grouped_rows(60, 8, 6, 0.4, 2).float()
    camera = torch.zeros(60, dtype=torch.int64)
    rule = ClusterConfig(k1=10, k2=3, rho=0.05, min_samples=1)
    wide, narrow = (visual_labels(features, camera, rule, scale) for scale in (1.0, 0.8))
    assert narrow.eps == pytest.approx(0.8 * wide.eps) and narrow.num_clusters >= wide.num_clusters
    assert wide.num_outliers == 0
    fixed = visual_labels(features, camera, ClusterConfig(k1=10, k2=3, eps=0.4, min_samples=1), 0.8)
    assert fixed.eps == 0.4


def test_missing_frames_are_explained(tmp_path):
    records = [Record(tmp_path / "a.jpg", 0, 0, 5), Record(tmp_path / "b.jpg", 0, 0, -1)]
    with pytest.raises(StageError, match="1 of 2 training images.*b.jpg.*column frame.*temporal_from"):
        frames_of(records)
    assert frames_of([records[0], replace(records[0], frame=0)]).tolist() == [5, 0]


def test_cluster_means_of_a_batch():
    means, there = cluster_means(torch.tensor([[2.0, 0], [0, 3], [0, 5], [4, 0]]), torch.tensor([7, 3, 7, 7]))
    assert there.tolist() == [3, 7]
    torch.testing.assert_close(means, torch.tensor([[0.0, 1.0], [2 / 3, 1 / 3]]))
