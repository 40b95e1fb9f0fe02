"""Options that the recipes brought: augmentation, mixed distances, recordings, MLC's counting and test feature, schedules."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

pytest.importorskip("torchvision", reason="the backbones need torchvision")

from gcl_fast.config import AugmentConfig, JVTCConfig, TrainConfig, from_dict, recipe
from gcl_fast.data.augment import Augment, Change
from gcl_fast.data.datasets.camstyle import with_camstyle
from gcl_fast.data.datasets.load import load_dataset
from gcl_fast.data.loaders.finish import finish_batch, finish_images
from gcl_fast.data.resample import cropped, turned
from gcl_fast.errors import NoRadiusError
from gcl_fast.models import Discriminator, Generator, IdentityEncoder
from gcl_fast.models.three_networks import Networks
from gcl_fast.ops import jaccard_distance
from gcl_fast.records import Record
from gcl_fast.stages.joint import JointStage
from gcl_fast.stages.warmup import mixed_distance as mixed
from gcl_fast.stages.warmup import recordings
from gcl_fast.stages.warmup.mixed_distance import mixed_distance, squared_distances
from gcl_fast.stages.warmup.mlc import MLCStage
from gcl_fast.stages.warmup.recordings import labels_by_rule, recordings_of
from gcl_fast.stages.warmup.warmup_stage import augmentation
from tests.stage_data import StageData
from tests.test_published_steps import grouped
from tests.toy_world import write_toy_world

OFF = {"flip": 0.0, "pad": 0, "erase": 0.0, "color_jitter": 0.0}


def picture(height: int = 64, width: int = 32, seed: int = 0) -> np.ndarray:
    smooth = Image.fromarray(np.random.default_rng(seed).integers(0, 256, (8, 4, 3), dtype=np.uint8))
    return np.asarray(smooth.resize((width, height), Image.BICUBIC))


def planar(image: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(image.copy()).movedim(-1, 0)


# Augmentation


@pytest.mark.parametrize("box", [(0, 0, 64, 32), (5, 3, 50, 20), (13, 0, 51, 32), (1, 1, 40, 31)])
def test_a_crop_is_pillows(box):
    image = picture()
    top, left, height, width = box
    found = cropped(planar(image)[None], torch.tensor([box], dtype=torch.float32))[0].movedim(0, -1).numpy()
    theirs = np.asarray(Image.fromarray(image[top : top + height, left : left + width]).resize((32, 64), Image.BILINEAR))
    assert np.abs(found.astype(int) - theirs.astype(int)).max() <= 1
    if box == (0, 0, 64, 32):
        assert np.array_equal(found, image)


def test_a_crop_is_rounded_to_the_nearest_level():
    picture = torch.tensor([0, 3, 200, 200], dtype=torch.uint8).expand(1, 3, 1, 4)
    found = cropped(picture, torch.tensor([[0.0, 0.0, 1.0, 2.0]]))
    assert found[0, 0, 0].tolist() == [0, 1, 2, 3]  # of 0, 0.75, 2.25, 3


@pytest.mark.parametrize("degrees", [0.0, 7.3, -10.0, 90.0])
def test_a_turn_is_pillows(degrees):
    image = picture(48, 48)
    found = turned(planar(image)[None], torch.tensor([degrees]))[0].movedim(0, -1).numpy()
    theirs = np.asarray(Image.fromarray(image).rotate(degrees))  # nearest, black outside, counter-clockwise
    assert (found != theirs).any(axis=2).mean() < 0.02  # a pixel between two may go to either
    if degrees == 0:
        assert np.array_equal(found, image)


def test_crops_and_turns_are_drawn_as_asked():
    augment = Augment(**OFF, crop_smallest=0.64, rotation=10)
    changes = [augment.choose((256, 128), np.random.default_rng(s)) for s in range(300)]
    crops, angles = [c.crop for c in changes if c.crop is not None], np.array([c.angle for c in changes])
    assert len(crops) > 250  # of ten draws one nearly always fits
    shares = np.array([h * w for _, _, h, w in crops]) / (256 * 128)
    aspects = np.array([h / w for _, _, h, w in crops])
    assert shares.min() > 0.63 and shares.max() <= 1 and shares.std() > 0.05
    assert aspects.min() > 1.95 and aspects.max() < 3.05
    assert all(top + h <= 256 and left + w <= 128 for top, left, h, w in crops)
    assert -10 <= angles.min() < -8 and 8 < angles.max() <= 10
    aspects = [{"crop_aspect": pair} for pair in ((0.0, 3.0), (3.0, 2.0), (-2.0, -1.0), (2.0, math.inf), (math.nan, 3.0), (2.0,))]
    for bad in (*aspects, {"crop_smallest": 0}, {"crop_smallest": 1.5}, {"rotation": 200}, {"rotation": -1}):
        with pytest.raises(ValueError, match=f"Augment: {next(iter(bad))} must be"):
            Augment(**bad)


def test_what_is_not_asked_for_draws_nothing():
    """Old seeds give the old changes; a change without crop and turn is the old one."""
    options = {"flip": 0.5, "pad": 4, "erase": 0.5, "color_jitter": 0.2}
    for seed in range(20):
        old = Augment(**options).choose((64, 32), np.random.default_rng(seed))
        new = Augment(**options, crop_smallest=0.64, rotation=10).choose((64, 32), np.random.default_rng(seed))
        assert old.crop is None and old.angle == 0 and old[:5] == new[:5]


def test_a_batch_is_changed_like_its_pictures():
    changes = [
        Change(True, 0, 0, (1.1, 0.9, 1.05), (4, 4, 9, 9), (3, 2, 40, 25), 8.0),
        Change(False, 0, 0, (1.0, 1.0, 1.0), None, None, -5.0),
        Change(True, 0, 0, (1.0, 1.0, 1.0), None, (10, 4, 50, 20), 0.0),
        Change(False, 0, 0, (1.0, 1.0, 1.0), None),
    ]
    pictures = torch.stack([planar(picture(seed=s)) for s in range(4)])
    one_by_one, together = finish_images(pictures, changes, 0), finish_batch(pictures, changes, 0)
    grey = 1 / 255 / 0.225
    torch.testing.assert_close(together, one_by_one, rtol=0, atol=2.1 * grey)  # colours to a grey level
    torch.testing.assert_close(together[1:], one_by_one[1:], rtol=0, atol=1e-5)


@pytest.mark.parametrize("method", ["cluster-contrast", "mlc", "jvtc"])
def test_what_is_erased_is_the_mean_after_normalisation(method):
    """The public code erases what is normalised already: a network reads 0.485, 0.456, 0.406 there, to half a grey level."""
    augment = augmentation(recipe(method).stage1.augment)
    change = augment.choose((64, 32), np.random.default_rng(0))._replace(
        flip=False, top=augment.pad, left=augment.pad, jitter=None, box=(8, 4, 20, 10), crop=None, angle=0.0
    )
    old = change._replace(fill=dataclasses.replace(augment, erase_fill="mean").choose((64, 32), np.random.default_rng(0)).fill)
    for finish in (finish_images, finish_batch):
        for made, wanted in ((change, torch.tensor([0.485, 0.456, 0.406])), (old, torch.zeros(3))):
            image = finish(planar(picture())[None], [made], augment.pad)[0]
            erased = image[:, 8:28, 4:14]
            torch.testing.assert_close(erased, wanted[:, None, None].expand_as(erased), rtol=0, atol=0.51 / 255 / 0.224)
    with pytest.raises(ValueError, match="Augment: erase_fill must be"):
        dataclasses.replace(augment, erase_fill="grey")


def test_augmentation_of_the_settings():
    mlc = augmentation(recipe("mlc").stage1.augment)
    assert (mlc.crop_smallest, mlc.rotation, mlc.erase_area, mlc.pad) == (0.64, 10.0, (0.02, 0.2), 0)
    assert augmentation(AugmentConfig()) == Augment()


# JVTC


@pytest.mark.parametrize("length", [1.0, 1e-3])
def test_a_mixed_distance_is_its_parts(length):
    bank = length * grouped(6)
    jaccard = jaccard_distance(bank, 8, 3)
    assert mixed_distance(jaccard, squared_distances(bank), 0.0) is jaccard
    mixed = mixed_distance(jaccard, squared_distances(bank), 0.3)
    squared = torch.cdist(bank, bank).square()
    scaled = (squared / squared.amax(1, keepdim=True) + squared / squared.amax(0, keepdim=True)) / 2
    expected = 0.7 * jaccard.to_dense() + 0.3 * scaled
    stored = torch.zeros_like(expected, dtype=torch.bool)
    stored[jaccard.rows(), jaccard.indices] = True
    dense = mixed.to_dense()
    torch.testing.assert_close(dense[stored], expected[stored], rtol=1e-6, atol=1e-9)
    assert (dense[~stored] == 1).all() and torch.equal(dense, dense.T) and (dense.diagonal() == 0).all()
    near = mixed_distance(jaccard, lambda rows: -squared_distances(bank)(rows), 0.3)  # whatever stands there for an image itself
    assert (near.to_dense().diagonal() == 0).all()


def test_squared_distances_of_rows_of_any_length(monkeypatch):
    rows = torch.randn(30, 6, generator=torch.Generator().manual_seed(0)).double() * torch.arange(1, 31)[:, None]
    rows[7] = rows[3]
    found = squared_distances(rows)(torch.tensor([7, 3, 29]))
    torch.testing.assert_close(found, torch.cdist(rows[[7, 3, 29]], rows).square(), rtol=1e-9, atol=1e-9)
    assert (found >= 0).all()
    jaccard = jaccard_distance(rows, 8, 3)
    whole = mixed_distance(jaccard, squared_distances(rows), 0.3)
    monkeypatch.setattr(mixed, "ROWS", 7)  # in blocks
    torch.testing.assert_close(mixed_distance(jaccard, squared_distances(rows), 0.3).values, whole.values, rtol=1e-9, atol=1e-9)


def test_each_recording_has_clusters_of_its_own():
    """The same people in two recordings whose clocks both begin at 0."""
    bank, cameras = grouped(8, spread=0.1), torch.arange(48) % 3
    recording = (torch.arange(48) // 24).long()
    frames = torch.arange(48) % 24 * 50
    cluster = {"k1": 6, "k2": 2, "rho": 0.1, "min_samples": 1}
    rule = from_dict(JVTCConfig, {"cluster": cluster, "recording_rho": 0.12, "smooth_bins": 2.0})
    joint, visual = labels_by_rule(bank, cameras, frames, rule, recording)
    for found in (joint, visual):
        first, second = found.labels[:24], found.labels[24:]
        assert not set(first.tolist()) & set(second.tolist()) and found.num_outliers == 0
        assert sorted(set(found.labels.tolist())) == list(range(found.num_clusters))
    here = dataclasses.replace(rule, cluster=dataclasses.replace(rule.cluster, rho=0.12), eps_scale=1.0)
    alone, _ = labels_by_rule(bank[24:], cameras[24:], frames[24:], here)
    second = joint.labels[24:]
    assert torch.equal(second - second.min(), alone.labels)
    other, _ = labels_by_rule(bank[:24], cameras[:24], frames[:24], here)
    assert other.eps != alone.eps and joint.eps == pytest.approx((other.eps + alone.eps) / 2)


def test_a_recording_too_small_for_a_radius_ends_nothing():
    """Its images are alone; where each is too small, the setting is named."""
    bank, cameras, frames = grouped(8, spread=0.1), torch.arange(48) % 3, torch.arange(48) * 50
    recording = torch.zeros(48, dtype=torch.int64)
    recording[[5, 11, 30]] = 1
    cluster = {"k1": 6, "k2": 2, "rho": 0.1, "min_samples": 1}
    rule = from_dict(JVTCConfig, {"cluster": cluster, "recording_rho": 0.12, "smooth_bins": 2.0})
    large = recording == 0
    here = dataclasses.replace(rule, cluster=dataclasses.replace(rule.cluster, rho=0.12), eps_scale=1.0)
    for found, alone in zip(
        labels_by_rule(bank, cameras, frames, rule, recording),
        labels_by_rule(bank[large], cameras[large], frames[large], here),
        strict=True,
    ):
        assert torch.equal(found.labels[large], alone.labels) and found.labels[~large].eq(-1).all() and found.eps == alone.eps
    with pytest.raises(NoRadiusError, match="in each recording, by stage1.jvtc.recording_rho 0.0001, .*rho must ask for"):
        labels_by_rule(bank, cameras, frames, dataclasses.replace(rule, recording_rho=1e-4), recording)


def test_the_settings_of_jvtc_reach_its_labels(monkeypatch):
    names = ("bin_frames", "smooth_bins", "candidates", "within_camera", "euclidean_share", "joint_share")
    numbers = dict(zip(names, (70, 3.0, 33, "once", 0.21, 0.43), strict=True))
    rule, asked = from_dict(JVTCConfig, {**numbers, "eps_scale": 0.7}), []
    monkeypatch.setattr(recordings, "joint_labels", lambda *given, **rest: asked.append((given, rest)))
    bank, cameras, frames = grouped(6), torch.arange(48) % 3, torch.arange(48)
    labels_by_rule(bank, cameras, frames, rule)
    assert asked == [((bank, cameras, frames, rule.cluster, 0.7), numbers)]


def test_msmt17_tells_its_recordings(tmp_path: Path):
    root = write_toy_world(tmp_path, "msmt17")
    data = load_dataset("msmt17", root)
    assert {r.recording for r in data.train} == {"0303noon"} and recordings_of(data.train).max() == 0
    several = [Record(Path("a"), 0, 0, 1, name) for name in ("0302noon", "0113morning", "0302noon")]
    assert recordings_of(several).tolist() == [1, 0, 1]
    assert recordings_of([Record(Path("a"), 0, 0)]).tolist() == [0]


def test_market1501_has_one_clock_a_camera(tmp_path: Path):
    """Sequences follow one another: c1s2 begins at c1s1's last frame; other cameras have their own."""
    from gcl_fast.data.datasets.market import on_one_clock, parse

    names = ("0001_c1s1_000100_00.jpg", "0001_c1s1_000700_00.jpg", "0002_c1s2_000050_00.jpg", "0002_c1s3_000005_00.jpg")
    records = [parse("market1501", Path(n)) for n in (*names, "0003_c2s2_000009_00.jpg")]
    assert [r.frame for r in on_one_clock(records)] == [100, 700, 750, 755, 9]
    late_first = [parse("market1501", Path(names[k])) for k in (1, 0, 2)]
    assert [r.frame for r in on_one_clock(late_first)] == [700, 100, 750]  # the last by time, not in the list
    duke = [parse("dukemtmc", Path("0001_c7_f0106449.jpg"))]
    assert on_one_clock(duke) == duke


# MLC


def mlc_stage(**changes) -> MLCStage:
    config = from_dict(TrainConfig, {"device": "cpu", "stage1": {"mlc": {"batch_size": 4, **changes}}}, base=recipe("mlc"))
    encoder = IdentityEncoder("mlc", "resnet18", width=4)
    records = [Record(Path(f"{i}.jpg"), -1, 0) for i in range(8)]
    seen = []

    class Scored(StageData):
        def score(self, encoder):
            seen.append(encoder)
            return {"score": 1.0}

    data = Scored(torch.zeros(8, dtype=torch.int64), styled_records=with_camstyle(records, ".", use=False))
    stage = MLCStage(config, encoder, data)
    stage.seen = seen
    return stage


def test_mlc_counts_its_epochs_from_0_or_1():
    for first, single, last_momentum in ((0, 6, 59 / 120), (1, 5, 0.5)):
        stage = mlc_stage(first_epoch=first)
        alone = 0
        for epoch in range(60):
            stage.enter_epoch(epoch)
            alone += stage.single_label
        assert alone == single and stage.momentum == pytest.approx(last_momentum)


def test_mlc_is_tested_before_its_norm():
    image = torch.randn(2, 3, 64, 40)
    before, after = mlc_stage(), mlc_stage(test_feature="after-norm")
    for stage in (before, after):
        stage.score()
    network = before.seen[0].eval()
    assert torch.equal(network(image)[1], before.encoder.pooled(image)[1]) and network.feature_dim == 32
    assert after.seen == [after.encoder]


def test_mlc_keeps_its_norms_bias_at_0_where_asked():
    assert mlc_stage().encoder.bn.bias.requires_grad
    assert not mlc_stage(freeze_norm_bias=True).encoder.bn.bias.requires_grad


# Stage 3


@pytest.mark.parametrize(("own", "rates"), [(None, (1e-2, 1e-3, 1e-4)), ([3], (1e-2, 1e-2, 1e-3)), ([], (1e-2, 1e-2, 1e-2))])
def test_the_encoders_rate_may_fall_at_epochs_of_its_own(own, rates):
    stage3 = {"lr": 0.1, "lr_encoder": 1e-2, "lr_steps": [1, 2], "lr_steps_encoder": own}
    config = from_dict(TrainConfig, {"device": "cpu", "stage3": stage3})
    encoder = IdentityEncoder("jvtc", "resnet18", width=4, feature_width=6)
    networks = Networks(encoder, Generator(encoder.code_dim, width=2, mlp_width=6), Discriminator(3))
    stage = JointStage(config, networks, StageData(torch.zeros(8, dtype=torch.int64)))
    for epoch, rate in zip((0, 1, 3), rates, strict=True):
        stage.enter_epoch(epoch)
        lr = {name: optimizer.param_groups[0]["lr"] for name, optimizer in stage.optimizers.items()}
        assert lr["encoder"] == pytest.approx(rate)
        assert lr["generator"] == lr["discriminator"] == pytest.approx(0.1 * 0.1 ** min(epoch, 2))
    assert math.isclose(config.stage3.lr_gamma, 0.1)


def test_stage_3_clusters_its_memory_after_the_features_of_the_first_epoch():
    cluster = {"k1": 6, "k2": 2, "eps": 0.6, "min_samples": 2}
    config = from_dict(TrainConfig, {"device": "cpu", "stage3": {"batch_size": 4, "cluster": cluster}})
    encoder = IdentityEncoder("jvtc", "resnet18", width=4, feature_width=6)
    networks = Networks(encoder, Generator(encoder.code_dim, width=2, mlp_width=6), Discriminator(3))
    features, moved = grouped(6).float(), grouped(6).float().roll(1, 0)
    stage = JointStage(config, networks, StageData(torch.zeros(48, dtype=torch.int64), read=lambda encoder: features))
    stage.plan_epoch(0)
    assert torch.equal(stage.memory.features, features)
    first = stage.memory.labels.clone()
    stage.memory.features.copy_(moved)
    stage.plan_epoch(1)
    assert torch.equal(stage.memory.features, moved)
    assert not torch.equal(stage.memory.labels, first) and len(stage.memory.labels.unique()) == len(first.unique())
