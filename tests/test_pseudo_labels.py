"""Clusters from features, eps by rho, centroids."""

from __future__ import annotations

import inspect

import numpy as np
import pytest
import torch

from gcl_fast import ops, reference
from gcl_fast.config import ClusterConfig
from gcl_fast.pseudo_labels import centroids, cluster, eps_by_rho, labels_of_shares, remove_camera_bias


def people(num: int, images: int, d: int = 16, spread: float = 0.15, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    g = torch.Generator().manual_seed(seed)
    centers = torch.randn(num, d, generator=g)
    pid = torch.arange(num).repeat_interleave(images)[torch.randperm(num * images, generator=g)]
    return centers[pid] + spread * torch.randn(len(pid), d, generator=g), pid


def test_well_separated_people_are_found(device: torch.device) -> None:
    x, pid = people(8, 12)
    found = cluster(x.to(device), k1=10, k2=4, eps=0.55)
    assert found.num_clusters == 8 and found.num_outliers == 0 and found.largest == 12 and found.eps == 0.55
    labels = found.labels.cpu()
    assert found.labels.device.type == torch.device(device).type
    assert all(len(labels[pid == p].unique()) == 1 for p in range(8))
    assert labels[0] == 0  # numbered in the order of the images


def test_statistics_and_outliers() -> None:
    x, _ = people(5, 8)
    x = torch.cat([x, 5 * torch.randn(3, 16, generator=torch.Generator().manual_seed(9))])
    found = cluster(x, k1=6, k2=2, eps=0.5)
    sizes = torch.bincount(found.labels[found.labels >= 0])
    assert found.num_clusters == len(sizes) and found.largest == sizes.max() and (sizes > 0).all()
    assert found.num_outliers == (found.labels == -1).sum() > 0
    nothing = cluster(torch.eye(6), k1=1, k2=1, eps=0.5)
    assert (nothing.num_clusters, nothing.num_outliers, nothing.largest) == (0, 6, 0)
    assert cluster(torch.zeros(0, 4)).num_clusters == 0


def test_rho_gives_the_mean_of_the_smallest_distances() -> None:
    x, _ = people(6, 10, spread=0.8)
    x[5:60:4] = x[5]  # pairs at distance 0 do not count
    distance = ops.jaccard_distance(x, 10, 4)
    upper = distance.to_dense().double().numpy()[np.triu_indices(60, 1)]
    upper = np.sort(upper[upper != 0])
    for rho in (0.002, 0.01, 0.05):
        expected = upper[: int(np.around(rho * len(upper)))].mean()
        assert eps_by_rho(distance, rho) == pytest.approx(expected, abs=1e-9)
        found = cluster(x, k1=10, k2=4, eps=0.99, rho=rho)  # rho goes before eps
        assert found.eps == pytest.approx(expected, abs=1e-9)
        assert torch.equal(found.labels, reference.dbscan(distance, found.eps, 4))


@pytest.mark.parametrize("sample", [512, 3])  # all rows say how far the share reaches, or three
def test_rho_stores_little_more_than_its_share(sample: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ops.neighbors._jaccard, "SAMPLE", sample)
    x, _ = people(12, 30, spread=0.9)
    whole = ops.jaccard_distance(x, 20, 6)
    for rho in (0.001, 0.01, 0.03):
        some = ops.neighbors.jaccard_of_nearest(x, 20, 6, rho)
        assert eps_by_rho(some, rho) == eps_by_rho(whole, rho)
        wanted = 2 * rho * len(x) * (len(x) - 1) / 2 + len(x)
        assert wanted - 1 <= len(some.values) < min(1.2 * wanted + 8000, len(whole.values))
        assert torch.equal(cluster(x, k1=20, k2=6, rho=rho).labels, reference.dbscan(whole, eps_by_rho(whole, rho), 4))


def test_a_radius_of_equal_distances_is_not_beyond_what_is_stored() -> None:
    """In float64 a mean of equal numbers may round above them: then the pairs at that distance would be asked for in vain."""
    x = torch.zeros(200, 220, dtype=torch.float64)
    row = torch.arange(200)
    x[row, row] = x[row, 200 + row // 10] = 1  # ten images of each person, equally far from each other
    stored = ops.neighbors.jaccard_of_nearest(x, 10, 1, 0.005)
    assert eps_by_rho(stored, 0.005) > stored.max_distance  # or this is no example any more
    found = cluster(x, k1=10, k2=1, rho=0.005)
    assert found.labels.tolist() == (row // 10).tolist() and found.eps == stored.max_distance
    assert torch.equal(labels_of_shares(x, k1=10, k2=1, rho=0.005)[0], found.labels)


def test_the_program_s_default_device_is_not_looked_at(device: torch.device) -> None:
    """Once counts of pairs and the radius were put there to be read."""
    x = people(8, 12)[0].to(device)
    want, (labels, radius) = cluster(x, k1=10, rho=0.02), labels_of_shares(x, k1=10, rho=0.02)
    with torch.device("meta"):
        found, (of_shares, reach) = cluster(x, k1=10, rho=0.02), labels_of_shares(x, k1=10, rho=0.02)
    assert torch.equal(found.labels, want.labels) and torch.equal(of_shares, labels)
    assert found.eps == want.eps and reach == radius


@pytest.mark.parametrize("rho", [1e-9, 1.0])
def test_rho_that_asks_for_no_pair_or_for_pairs_1_apart_is_an_error(rho: float) -> None:
    distance = ops.jaccard_distance(people(8, 6)[0], 5, 2)
    assert (distance.to_dense() == 1).any()
    with pytest.raises(ValueError, match="rho must ask for 1 to .* pairs"):
        eps_by_rho(distance, rho)


def test_distances_of_1_that_are_stored_are_no_nearer_than_others() -> None:
    """A mixed distance may store them."""
    pairs = torch.tensor([0, 2, 4, 6]), torch.tensor([1, 2, 0, 2, 0, 1]), torch.tensor([0.2, 1.0, 0.2, 0.4, 1.0, 0.4])
    distance = ops.SparseDistance(*pairs, shape=(3, 3))
    assert eps_by_rho(distance, 0.6) == pytest.approx(0.3)
    with pytest.raises(ValueError, match="rho must ask for 1 to 2 of 3 pairs"):
        eps_by_rho(distance, 1.0)


def test_the_settings_of_a_clustering_are_the_published_ones_unless_told() -> None:
    rule = ClusterConfig()
    for function in (cluster, labels_of_shares):
        defaults = {name: parameter.default for name, parameter in inspect.signature(function).parameters.items()}
        assert (defaults["k1"], defaults["k2"], defaults["min_samples"]) == (rule.k1, rule.k2, rule.min_samples) == (30, 6, 4)
        assert defaults["eps"] == 0.55


@pytest.mark.parametrize("function", [cluster, labels_of_shares])
@pytest.mark.parametrize("eps", [0.0, -0.1, float("nan")])
def test_a_radius_is_above_0(function, eps: float) -> None:
    with pytest.raises(ValueError, match=f"{function.__name__}: eps must be above 0"):
        function(people(3, 5)[0], eps=eps)


def test_a_radius_is_not_looked_at_where_rho_is_given() -> None:
    x = people(8, 12)[0]
    want, (labels, radius) = cluster(x, k1=10, rho=0.02), labels_of_shares(x, k1=10, rho=0.02)
    for eps in (None, -1.0):
        found, (of_shares, reach) = cluster(x, k1=10, rho=0.02, eps=eps), labels_of_shares(x, k1=10, rho=0.02, eps=eps)
        assert torch.equal(found.labels, want.labels) and torch.equal(of_shares, labels)
        assert found.eps == want.eps and reach == radius


@pytest.mark.parametrize("rho", [0.0, -0.1, 1.5, float("nan")])
def test_rho_is_a_share(rho: float) -> None:
    with pytest.raises(ValueError, match="rho must be above 0"):
        cluster(people(3, 5)[0], rho=rho)


def test_centroids_are_plain_means(device: torch.device) -> None:
    g = torch.Generator().manual_seed(0)
    x, labels = torch.randn(50, 7, generator=g, requires_grad=True), torch.randint(-1, 4, (50,), generator=g)
    found = centroids(x.to(device), labels.to(device))
    expected = np.stack([x.detach().double().numpy()[labels.numpy() == c].mean(axis=0) for c in range(4)])
    assert found.shape == (4, 7) and not found.requires_grad
    assert np.abs(found.cpu().double().numpy() - expected).max() < 1e-6
    assert torch.equal(found, centroids(x.to(device), labels.to(device)))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_centroids_of_any_float(dtype: torch.dtype, device: torch.device) -> None:
    x, labels = torch.arange(8.0).view(4, 2), torch.tensor([1, 0, 1, -1])
    found = centroids(x.to(device, dtype), labels.int().to(device))
    assert found.dtype == dtype and found.tolist() == [[2, 3], [2, 3]]


def test_centroids_edges() -> None:
    assert centroids(torch.ones(3, 5), torch.full((3,), -1)).shape == (0, 5)
    assert centroids(torch.ones(0, 5), torch.zeros(0, dtype=torch.int64)).shape == (0, 5)
    with pytest.raises(ValueError, match="labels must use every number up to the largest, got none of 1"):
        centroids(torch.ones(3, 5), torch.tensor([0, 2, -1]))
    with pytest.raises(ValueError, match=r"labels must have shape \[N=3\]"):
        centroids(torch.ones(3, 5), torch.zeros(4, dtype=torch.int64))


def test_remove_camera_bias_is_standardising_within_each_camera(device, generator):
    features = torch.randn(30, 6, generator=generator, dtype=torch.float64)
    cameras = torch.arange(30) % 3
    shifted = features + 5.0 * torch.randn(3, 6, generator=generator, dtype=torch.float64)[cameras]
    got = remove_camera_bias(shifted.to(device), cameras.to(device)).cpu()
    for camera in range(3):
        rows = features[cameras == camera].numpy()  # what a camera adds to all its images must not matter
        expected = (rows - rows.mean(0)) / rows.std(0)
        expected /= np.linalg.norm(expected, axis=1, keepdims=True)
        np.testing.assert_allclose(got[cameras == camera].numpy(), expected, atol=1e-10)


def test_remove_camera_bias_of_images_that_are_all_the_same_is_zero_not_nan(device):
    got = remove_camera_bias(torch.ones(3, 4, device=device), torch.tensor([0, 1, 1], device=device))
    assert torch.equal(got.cpu(), torch.zeros(3, 4))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_features_that_are_not_finite_are_told_before_cameras_are_removed(value: float) -> None:
    """Once such a column counted as one that does not vary, and clusters were made of the rest without a word."""
    x, cameras = people(3, 5)[0], torch.arange(15) % 2
    x[4, 2] = value
    with pytest.raises(ValueError, match="remove_camera_bias: features must be finite, got NaN or infinity in 1 rows"):
        remove_camera_bias(x, cameras)
    with pytest.raises(ValueError, match="features must be finite"):
        cluster(x, debias_cameras=cameras)


def test_a_feature_that_is_the_same_in_all_images_of_a_camera_does_not_hide_the_others(device, generator):
    features, cameras = torch.randn(20, 6, generator=generator), torch.arange(20) % 2
    features[cameras == 1, 2] = 3.0
    rows = features[cameras == 1]
    others = [0, 1, 3, 4, 5]
    expected = ((rows - rows.mean(0)) / rows.std(0, unbiased=False))[:, others]
    got = remove_camera_bias(features.to(device), cameras.to(device)).cpu()[cameras == 1]
    assert not got[:, 2].any()
    torch.testing.assert_close(got[:, others], torch.nn.functional.normalize(expected, dim=1), rtol=0, atol=1e-5)


@pytest.mark.parametrize("copies", [1, 3])
def test_cameras_of_one_image_do_not_make_a_person(copies, device, generator):
    """Standardised by itself alone an image would become zero, as near to one as to another: one person for all such cameras."""
    people, strangers = torch.randn(20, 128, generator=generator), torch.randn(12, 128, generator=generator)
    features = torch.cat([people.repeat(6, 1) + 0.3 * torch.randn(120, 128, generator=generator), strangers.repeat(copies, 1)])
    cameras = torch.cat([torch.arange(120) // 20 % 3, 3 + torch.arange(12).repeat(copies)])
    alone = remove_camera_bias(features.to(device), cameras.to(device)).cpu()[120:]
    expected = (features - features.mean(0)) / features.std(0, unbiased=False)
    torch.testing.assert_close(alone, torch.nn.functional.normalize(expected, dim=1)[120:])
    found = cluster(features.to(device), k1=8, k2=2, eps=0.5, min_samples=3, debias_cameras=cameras.to(device)).labels.cpu()[120:]
    together = torch.bincount(found[found >= 0], minlength=1).max()
    assert together <= (2 if copies == 1 else copies)  # of twelve people


def test_cluster_across_cameras_needs_the_bias_removed(device, generator):
    people = torch.randn(6, 32, generator=generator)
    pid, camera = torch.arange(48) % 6, torch.arange(48) // 24
    offset = 4 * torch.randn(2, 32, generator=generator)
    features = people[pid] + offset[camera] + 0.05 * torch.randn(48, 32, generator=generator)
    told = cluster(features.to(device), k1=8, k2=2, eps=0.6, min_samples=2, debias_cameras=camera.to(device))
    found = told.labels.cpu()
    assert torch.equal(found[:, None] == found[None], pid[:, None] == pid[None])
    assert told.camera_agreement == pytest.approx(0, abs=0.2)  # every person is seen by both, as often
    plain = cluster(features.to(device), k1=8, k2=2, eps=0.6, min_samples=2).labels.cpu()
    assert not torch.equal(plain[:, None] == plain[None], pid[:, None] == pid[None])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_means_and_deviations_of_many_rows_in_half_precision(dtype: torch.dtype) -> None:
    """Sums in these types stop growing, or overflow."""
    one = torch.zeros(2000, dtype=torch.long)
    rows = (100 * torch.rand(2000, 6, generator=torch.Generator().manual_seed(0))).to(dtype)
    means = centroids(rows, one)
    assert means.dtype == dtype
    torch.testing.assert_close(means.float(), rows.float().mean(0, keepdim=True), rtol=0.01, atol=0)
    small = (rows / 100).to(dtype)
    torch.testing.assert_close(
        remove_camera_bias(small, one).float(), remove_camera_bias(small.float(), one), rtol=0.02, atol=0.01
    )
    same = remove_camera_bias(torch.tensor([[1.0, 2], [2, 3], [3, 4]], dtype=dtype), one[:3])
    assert torch.isfinite(same).all() and not same[1].any()


@pytest.mark.parametrize("constant", [1.1, 7.3, 70.3])
def test_rounding_of_a_constant_feature_says_nothing(constant: float) -> None:
    """Its mean is not quite itself in float32."""
    rows = torch.randn(64, 6, generator=torch.Generator().manual_seed(0))
    cameras = torch.zeros(64, dtype=torch.long)
    rows[:, 2] = constant
    assert not remove_camera_bias(rows, cameras)[:, 2].any()
    torch.testing.assert_close(remove_camera_bias(rows * 1e-7, cameras), remove_camera_bias(rows, cameras))
