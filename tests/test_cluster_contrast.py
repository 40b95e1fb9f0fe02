"""Stage 1's cluster-contrast step against the method written out: cross_entropy over all centroids, Adam, a loop of updates."""

from __future__ import annotations

import copy
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

pytest.importorskip("torchvision", reason="the backbones need torchvision")

from gcl_fast.config import TrainConfig, from_dict
from gcl_fast.data.plans import camera_aware_batches, identity_batches, multiple_gallery_batches
from gcl_fast.models import IdentityEncoder
from gcl_fast.records import Batch
from gcl_fast.reference.step import plain_cluster_contrast_step
from gcl_fast.stages.warmup.cluster_contrast import ClusterContrastStage, cluster_means, means_of_rows
from gcl_fast.stages.warmup.warmup_stage import Continuation
from tests.stage_data import StageData
from tests.test_published_steps import grouped

IMAGES, CLUSTERS, STEPS = 24, 4, 3


@pytest.mark.parametrize("clusters", [CLUSTERS, 2500])  # by a product, and by the bank's kernels
@pytest.mark.parametrize("memory", ["each", "hard"])
def test_losses_weights_and_centroids_are_those_of_a_plain_loop(memory, clusters, device):
    torch.manual_seed(0)
    encoder = IdentityEncoder("jvtc", "resnet18", width=4, feature_width=6).double().to(device)
    plain = copy.deepcopy(encoder)
    settings = {
        "memory": memory,
        "batch_size": 8,
        "num_instances": 2,
        "lr": 1e-3,
        "weight_decay": 5e-4,
        "temperature": 0.05,
        "momentum": 0.1,
    }
    config = from_dict(TrainConfig, {"device": "cpu", "precision": "fp32", "stage1": settings})
    stage = ClusterContrastStage(config, encoder, StageData(torch.zeros(IMAGES, dtype=torch.int64), device))
    rng = torch.Generator().manual_seed(1)
    centroids = F.normalize(torch.randn(clusters, 6, generator=rng, dtype=torch.float64), dim=1).to(device)
    stage.labels = (torch.arange(IMAGES) % CLUSTERS).to(device)
    stage.memory = stage._new_memory(clusters).double()
    stage.memory.features.copy_(centroids)
    adam = torch.optim.Adam(plain.parameters(), lr=1e-3, weight_decay=5e-4)
    plain.train()

    for step in range(STEPS):
        index = torch.randperm(IMAGES, generator=rng)[:8].to(device)
        image = torch.randn(8, 3, 56, 40, generator=rng, dtype=torch.float64).to(device)
        got = stage.step(Batch(image, None, None, index, index, index), step)["contrast"]

        want = plain_cluster_contrast_step(plain, adam, image, stage.labels[index], centroids, hard=memory == "hard")["contrast"]
        torch.testing.assert_close(got, want, rtol=1e-9, atol=1e-9)

    torch.testing.assert_close(stage.memory.features, centroids, rtol=1e-8, atol=1e-9)
    for (name, ours), theirs in zip(encoder.named_parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-7, atol=1e-7, msg=lambda m, name=name: f"{name}: {m}")


def test_a_state_of_other_images_is_refused():
    """One image less, and each label behind it would be another image's."""
    encoder = IdentityEncoder("jvtc", "resnet18", width=4, feature_width=6)
    config = from_dict(TrainConfig, {"device": "cpu", "precision": "fp32"})
    before, now = (ClusterContrastStage(config, encoder, StageData(torch.zeros(n, dtype=torch.int64))) for n in (24, 23))
    before.labels = torch.arange(24) % CLUSTERS
    before.memory.features = torch.randn(CLUSTERS, 6)
    with pytest.raises(RuntimeError):
        now.load_extra_state(before.extra_state())
    again = ClusterContrastStage(config, encoder, StageData(torch.zeros(24, dtype=torch.int64)))
    again.load_extra_state(before.extra_state())
    assert torch.equal(again.labels, before.labels) and torch.equal(again.memory.features, before.memory.features)


def people_stage(continuation=None, **settings):
    """A stage over the images of six people from three cameras, whose clusters it finds."""
    encoder = IdentityEncoder("jvtc", "resnet18", width=4, feature_width=6)
    stage1 = {"batch_size": 8, "num_instances": 4, "iters": 7, "cluster": {"k1": 8, "k2": 3, "eps": 0.5}, **settings}
    config = from_dict(TrainConfig, {"device": "cpu", "precision": "fp32", "seed": 3, "stage1": stage1})
    features = grouped(6, spread=0.1).float()
    data = StageData(torch.arange(len(features)) // 6 % 3, read=lambda network: features)
    return ClusterContrastStage(config, encoder, data, continuation)


@pytest.mark.parametrize(
    ("settings", "sampler"),
    [
        ({}, multiple_gallery_batches),
        ({"sampler": "random"}, lambda labels, cameras, *numbers, **rest: identity_batches(labels, *numbers, **rest)),
        ({"camera_aware": True}, camera_aware_batches),
        ({"sampler": "random", "camera_aware": True}, camera_aware_batches),
    ],
)
@pytest.mark.parametrize("iters", [0, 7])
def test_an_epoch_s_batches_are_drawn_as_the_settings_say(settings, sampler, iters):
    stage = people_stage(iters=iters, **settings)
    plan, labels = stage.plan_epoch(2), stage.labels.numpy()
    expected = sampler(labels, stage.cameras.numpy(), 2, 4, seed=(3, 2), num_batches=iters or None)
    assert len(plan) == len(expected) == (iters or 3)
    assert all(np.array_equal(got, want) for got, want in zip(plan, expected, strict=True))


def test_a_continuation_goes_on_where_the_run_ended():
    """Its first epoch is the one after the run's last: in what is drawn, and in the rate of learning."""
    rates = {"epochs": 3, "lr": 1.0, "lr_gamma": 0.1, "lr_steps": [1, 2, 3]}  # the last is after its end
    plain, going_on = people_stage(**rates), people_stage(Continuation("control", 2, 10), **rates)
    for epoch in (0, 1):
        expected, plan = plain.plan_epoch(2 + epoch), going_on.plan_epoch(epoch)
        assert len(plan) == (7, 3)[epoch]  # ten updates
        assert all(np.array_equal(got, want) for got, want in zip(plan, expected, strict=False))
        going_on.enter_epoch(epoch)
        assert going_on.optimizers["encoder"].param_groups[0]["lr"] == pytest.approx(0.01)
    for epoch, rate in enumerate((1.0, 0.1, 0.01)):
        plain.enter_epoch(epoch)
        assert plain.optimizers["encoder"].param_groups[0]["lr"] == pytest.approx(rate)
        plain.plan_epoch(epoch)
        assert plain.epoch_scalars()["lr_encoder"] == pytest.approx(rate)


@pytest.mark.parametrize(("updates", "lengths"), [(10, [7, 3]), (7, [7]), (3, [3]), (15, [7, 7, 1])])
@pytest.mark.parametrize("iters", [7, 0])  # as many as told, or a pass: three
def test_a_continuation_ends_after_its_updates(updates, lengths, iters):
    stage, done = people_stage(Continuation("control", 2, updates), iters=iters), 0
    lengths = lengths if iters else [3] * (updates // 3) + [updates % 3] * (updates % 3 > 0)
    assert stage.epochs == (len(lengths) if iters else updates)
    for epoch, length in enumerate(lengths):
        plan = stage.plan_epoch(epoch)
        assert len(plan) == length and stage.batches_left(plan, epoch, 1) == updates - done - 1
        done += length
    assert stage.epochs == len(lengths) and stage.planned == updates


def test_the_settings_say_which_epoch_is_the_last_but_of_a_continuation():
    plain, going_on = people_stage(epochs=5, eval_every=4), people_stage(Continuation("control", 2, 10), epochs=5, eval_every=4)
    for stage, last in ((plain, 5), (going_on, 1)):
        stage.load_extra_state({**stage.extra_state(), "planned": 3, "epochs": 1})
        assert (stage.epochs, stage.planned, stage.eval_every) == (last, 3, 4)


def test_a_stage_trains_the_whole_encoder_on_the_images_of_its_epoch():
    encoder, config = people_stage().encoder, from_dict(TrainConfig, {"device": "cpu", "precision": "fp32"})
    encoder.requires_grad_(False)
    stage = ClusterContrastStage(config, encoder, StageData(torch.arange(24)), Continuation("control", 2, 10))
    assert all(weight.requires_grad for weight in encoder.parameters())
    image, asked = torch.randn(4, 3, 56, 40), []
    encoder.eval()
    feature = stage.feature(Batch(image, None, None, *[torch.arange(4)] * 3))
    assert encoder.training and feature.requires_grad
    torch.testing.assert_close(feature, encoder(image)[1], rtol=1e-4, atol=1e-4)
    stage.loader = SimpleNamespace(epoch=lambda plan, epoch, start: asked.append((epoch, start)))
    stage.batches(None, 3, 2)
    assert asked == [(5, 2)]  # what is drawn goes on from the finished epochs


def test_centroids_move_to_the_means_of_the_batch():
    rng = torch.Generator().manual_seed(2)
    features = torch.randn(9, 6, generator=rng) * torch.rand(9, 1, generator=rng) * 9  # of any length
    targets = torch.tensor([2, 0, 2, 5, 0, 2, 5, 5, 2])
    means, present = cluster_means(features, targets)
    rows = means_of_rows(features, targets)
    torch.testing.assert_close(rows, means[torch.searchsorted(present, targets)])
    moved = []
    for move in ("_move_to_means", "_move_all_to_means"):  # as on the CPU, and as on a GPU
        stage = people_stage(momentum=0.3, memory="mean")
        stage.memory = stage._new_memory(6)
        stage.memory.reset(torch.randn(6, 6, generator=torch.Generator().manual_seed(4)))
        before = stage.memory.features.clone()
        getattr(stage, move)(features, targets)
        moved.append(stage.memory.features)
    for cluster in range(6):
        own = F.normalize(features[targets == cluster], dim=1).mean(0)
        new = F.normalize(0.3 * before[cluster] + 0.7 * F.normalize(own, dim=0), dim=0)
        for after in moved:
            torch.testing.assert_close(after[cluster], new if cluster in (0, 2, 5) else before[cluster])
