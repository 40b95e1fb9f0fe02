"""Clusters watched: their agreement with cameras, and the warnings of clusters that cannot be people."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import adjusted_mutual_info_score

from gcl_fast.cluster_health import adjusted_mutual_information, camera_agreement, cluster_warnings
from gcl_fast.config import ClusterConfig, TrainConfig, load_shipped
from gcl_fast.errors import StageError
from gcl_fast.pseudo_labels import cluster, described
from gcl_fast.report.page import render_page
from gcl_fast.report.run_data import read_run
from gcl_fast.stages.labels import ClusterWatch, epoch_labels
from gcl_fast.stages.log import RunLog

labellings = st.integers(1, 60).flatmap(
    lambda n: st.tuples(*[st.lists(st.integers(0, 6), min_size=n, max_size=n) for _ in range(2)])
)


@settings(max_examples=150, deadline=None)
@given(labellings)
def test_agreement_is_scikit_learns(pair):
    first, second = pair
    ours, theirs = adjusted_mutual_information(first, second), adjusted_mutual_info_score(first, second)
    if abs(theirs) < 10:  # where nothing is left to chance theirs divides by a rounding error
        assert ours == pytest.approx(theirs, abs=1e-9)


@pytest.mark.parametrize(("size", "clusters", "cameras"), [(3000, 250, 6), (4000, 4000, 8), (50, 3, 2), (9, 1, 3)])
def test_agreement_of_large_labellings(size, clusters, cameras):
    rng = np.random.default_rng(size)
    first, second = rng.integers(0, clusters, size), rng.integers(0, cameras, size)
    mixed = np.where(rng.random(size) < 0.5, second, first + cameras)
    for labels in (first, mixed):
        expected = adjusted_mutual_info_score(labels, second)
        assert adjusted_mutual_information(labels, second) == pytest.approx(expected, abs=1e-9)


def test_agreement_knows_its_ends():
    same = np.repeat(np.arange(5), 7)
    assert adjusted_mutual_information(same, same) == pytest.approx(1)
    assert adjusted_mutual_information([], []) == adjusted_mutual_information([3, 3], [1, 1]) == 1
    assert adjusted_mutual_information([0, 1, 2], [2, 0, 1]) == 1
    assert camera_agreement(np.array([-1, -1]), np.array([0, 1])) is None
    assert camera_agreement(same, np.zeros(35, dtype=int)) is None
    outlier = np.concatenate([same, [-1] * 9])  # is no cluster
    assert camera_agreement(outlier, np.concatenate([same, np.arange(9)])) == pytest.approx(1)
    assert camera_agreement(outlier, np.repeat([0, 1], [35, 9])) is None  # the clustered images are of one camera
    with pytest.raises(ValueError, match="both must be"):
        adjusted_mutual_information([1], [1, 2])


def test_pseudo_labels_say_what_is_wrong_with_them():
    rng = torch.Generator().manual_seed(0)
    centre = torch.eye(8)[torch.arange(80) // 20]  # four places, one a camera
    features = centre + 0.05 * torch.randn(80, 8, generator=rng)
    cameras = torch.arange(80) // 20
    found = cluster(features, k1=15, k2=4, eps=0.6, cameras=cameras)
    assert found.num_clusters == 4 and found.camera_agreement == pytest.approx(1)
    large, follows = found.warnings()
    assert "20 of 80 images (25%)" in large and "lower eps, or lower k1" in large
    assert "follow cameras (agreement 1.00" in follows and "set debias_cameras" in follows
    assert (
        "agreement with cameras 1.00" in found.line()
        and "4 clusters · 0 outliers · largest 20 of 80 images (25%)" in found.line()
    )
    single = described(torch.tensor([0, 0, -1]), 0.6)
    assert single.line() == "1 cluster · 1 outlier · largest 2 of 3 images (67%)"
    assert "1 cluster where there were 20:" in " ".join(single.warnings(20))
    (fallen,) = [w for w in found.warnings(41) if "where there were 41" in w]
    assert "lower the learning rate" in fallen
    assert not any("where there were" in w for w in found.warnings(40))
    assert cluster(features, k1=15, k2=4, eps=0.6).camera_agreement is None
    both = cluster(features, k1=15, k2=4, eps=0.6, debias_cameras=torch.arange(80) % 4, cameras=cameras)
    assert both.camera_agreement == pytest.approx(1)  # with the cameras told, not with those of the bias
    with pytest.raises(ValueError, match="cameras"):
        cluster(features, cameras=cameras[:5])


def test_outliers_count_for_no_agreement_with_the_cameras_told():
    labels, cameras = torch.tensor([0, 0, 0, 1, 1, 1, -1, -1, -1]), torch.tensor([0, 0, 1, 1, 1, 0, 0, 1, 1])
    expected = adjusted_mutual_information(labels[:6], cameras[:6])
    assert described(labels, 0.6, cameras).camera_agreement == pytest.approx(expected)


def test_a_fifth_and_a_half_are_no_warning_yet():
    fine = {"images": 100, "clusters": 12, "largest": 20, "agreement": 0.5, "most_clusters": 120}
    assert cluster_warnings(**fine) == []
    for worse in ({"largest": 21}, {"agreement": 0.51}, {"most_clusters": 121}):
        assert len(cluster_warnings(**{**fine, **worse})) == 1
    assert cluster_warnings(images=5, clusters=0, largest=0, most_clusters=0) == []


def test_a_stage_remembers_its_most_clusters_and_names_its_flags():
    watch = ClusterWatch("stage1.cluster", ClusterConfig(eps=0.6))
    many = described(torch.arange(200) // 2, 0.6, torch.arange(200) % 2)
    figures = watch.look(many)
    assert figures["clusters"] == 100 and figures["largest_cluster"] == 2
    assert watch.take_notes() == (many.line(), [])
    assert figures["camera_agreement"] == pytest.approx(many.camera_agreement)
    few = described(torch.arange(200) // 50, 0.6)
    assert "camera_agreement" not in watch.look(few)
    text = " ".join(watch.take_notes()[1])
    assert watch.most_clusters == 100 and "4 clusters where there were 100" in text
    for words in (
        "--stage1.cluster.eps (now 0.6)",
        "--stage1.cluster.k1 (now 30)",
        "--stage1.cluster.debias-cameras",
        "imagenet",
    ):
        assert words in text
    by_rho = ClusterWatch("stage3.cluster", ClusterConfig(rho=0.002, debias_cameras=True))
    by_rho.look(few)
    text = " ".join(by_rho.take_notes()[1])
    assert "--stage3.cluster.rho (now 0.002)" in text and "debias" not in text and "stage 1" in text
    assert watch.take_notes() == ("", [])


def test_warnings_reach_history_and_report(tmp_path: Path) -> None:
    pytest.importorskip("jinja2", reason="the report needs jinja2")
    log = RunLog(tmp_path, tensorboard=False)
    for epoch in range(3):
        figures, words = {"clusters": 3.0, "camera_agreement": 0.7}, [f"one cluster holds {90 + epoch} of 100 images"]
        log.scalars("stage1", epoch, epoch, 1.0, figures, words)
    row = json.loads((tmp_path / "history.jsonl").read_text().splitlines()[1])
    assert row["warnings"] == ["one cluster holds 91 of 100 images"]
    page = render_page(read_run(tmp_path))
    assert page.count("one cluster holds") == 1 and "one cluster holds 92 of 100 images" in page
    assert "Stage 1, epochs 1 to 3 (figures of epoch 3)" in page and "Agreement of clusters with cameras" in page
    log.rewind("stage1", 1, 1)
    assert "holds 91" not in (tmp_path / "history.jsonl").read_text()


def test_a_clustering_without_clusters_names_its_flags() -> None:
    torch.manual_seed(0)
    features = torch.nn.functional.normalize(torch.randn(9, 16) * 0.01 + 1, dim=1)
    with pytest.raises(
        StageError,
        match=r"found 1 cluster and .*: lower --stage1.cluster.eps \(now 1\), or lower --stage1.cluster.k1 \(now 30\)\. "
        r"A run keeps its settings .* under another --name, or with --overwrite$",
    ):
        epoch_labels("stage1", 0, features, torch.zeros(9, dtype=torch.int64), ClusterConfig(eps=1.0))
    rule = ClusterConfig(eps=1e-6, min_samples=9)
    with pytest.raises(
        StageError,
        match=r"raise --stage3.cluster.eps \(now 1e-06\), or lower --stage3.cluster.min-samples \(now 9\), or warm.*"
        r" a new one of --stage 3 under another --name, with --init RUN/stage2$",
    ):
        epoch_labels("stage3", 0, features, torch.zeros(9, dtype=torch.int64), rule)


def test_one_cluster_among_more_outliers_asks_for_a_larger_radius() -> None:
    """Three images of one person are found, six are not: a smaller one would find nobody."""
    features = torch.eye(9)
    features[1:3] = features[0] + 0.1 * features[1:3]
    advice = (
        r"1 cluster and 6 outliers .*: raise --stage1.cluster.eps \(now 0.5\), or lower --stage1.cluster.min-samples \(now 2\)\."
    )
    with pytest.raises(StageError, match=advice):
        epoch_labels("stage1", 0, features, torch.zeros(9, dtype=torch.int64), ClusterConfig(k1=3, k2=1, eps=0.5, min_samples=2))


@pytest.mark.parametrize("stage", ["stage1", "stage3"])
def test_a_share_that_gives_no_radius_is_named(stage: str) -> None:
    features = torch.nn.functional.normalize(torch.randn(9, 16, generator=torch.Generator().manual_seed(0)), dim=1)
    words = rf"{stage}, epoch 4: clustering found no radius .*: change --{stage}.cluster.rho, or .* A run keeps its settings"
    with pytest.raises(StageError, match=words):
        epoch_labels(stage, 3, features, torch.zeros(9, dtype=torch.int64), ClusterConfig(k1=3, rho=1.0))


def advised(config: TrainConfig, cameras: list[int]) -> str:
    watch = ClusterWatch("stage1.cluster", config.stage1.cluster, config=config, cameras=torch.tensor(cameras))
    watch.look(described(torch.arange(200) // 100, 0.6))
    return " ".join(watch.take_notes()[1])


def test_what_is_so_already_is_not_advised() -> None:
    config = load_shipped("folder")
    assert config.model.weights == "imagenet"
    words = advised(config, [0, 0])
    assert "--model.weights imagenet" not in words and "debias" not in words and "--init FILE" in words and "k1" in words
    assert "--stage1.cluster.debias-cameras" in advised(config, [0, 1])
    random = replace(config, model=replace(config.model, weights="none"))
    assert "--model.weights imagenet" in advised(random, [0])
    given = advised(replace(config, init="mine.pth"), [0])
    assert "--init" not in given and "imagenet" not in given and "k1" in given
