"""Stage 1's cluster-contrast step against the method written out: cross_entropy over all centroids, Adam, a loop of updates."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F

pytest.importorskip("torchvision", reason="the backbones need torchvision")

from gcl_fast.config import TrainConfig, from_dict
from gcl_fast.models import IdentityEncoder
from gcl_fast.records import Batch
from gcl_fast.reference.step import plain_cluster_contrast_step
from gcl_fast.stages.warmup.cluster_contrast import ClusterContrastStage
from tests.stage_data import StageData

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
    with pytest.raises(RuntimeError):
        now.load_extra_state(before.extra_state())
    again = ClusterContrastStage(config, encoder, StageData(torch.zeros(24, dtype=torch.int64)))
    again.load_extra_state(before.extra_state())
    assert torch.equal(again.labels, before.labels)
