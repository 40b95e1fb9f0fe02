"""Training steps of each method from equal weights and batches: losses, weights, memories and pseudo-labels are those of the
public code's rules, written plainly in float64 (published_rules.py)."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

pytest.importorskip("torchvision", reason="the backbones need torchvision")

from gcl_fast.config import TrainConfig, from_dict, recipe
from gcl_fast.data.datasets.camstyle import with_camstyle
from gcl_fast.models import Discriminator, Generator, IdentityEncoder
from gcl_fast.models.three_networks import Networks
from gcl_fast.records import Batch, Record
from gcl_fast.reference.step import Contrast, Weights, plain_step
from gcl_fast.stages.joint import JointStage
from gcl_fast.stages.views import draw_mix
from gcl_fast.stages.warmup.cluster_contrast import ClusterContrastStage
from gcl_fast.stages.warmup.jvtc import JVTCStage
from gcl_fast.stages.warmup.mlc import MLCStage
from gcl_fast.stages.warmup.recordings import labels_by_rule
from tests import published_rules as rules
from tests.stage_data import StageData

IMAGES, SIZE, STEPS = 48, (56, 40), 3


def settings(method: str, **stage1) -> TrainConfig:
    return from_dict(TrainConfig, {"device": "cpu", "precision": "fp32", "stage1": stage1}, base=recipe(method))


def encoder_of(config: TrainConfig) -> IdentityEncoder:
    torch.manual_seed(0)
    model = config.model
    network = IdentityEncoder(
        model.variant, "resnet18", width=4, feature_width=6, pooling=model.pooling, norm_bias=model.norm_bias
    )
    return network.double()


def records() -> list[Record]:
    return [Record(Path(f"{i}.jpg"), -1, i % 3, 40 * i) for i in range(IMAGES)]


def data(features: Tensor | None = None) -> StageData:
    cameras = torch.tensor([r.camera for r in records()])
    read = None if features is None else (lambda encoder: features)
    return StageData(cameras, read=read, styled_records=with_camstyle(records(), ".", use=False))


def grouped(width: int, groups: int = 6, spread: float = 0.3, seed: int = 3) -> Tensor:
    """Unit rows around a few centres."""
    rng = torch.Generator().manual_seed(seed)
    centres = torch.randn(groups, width, generator=rng, dtype=torch.float64)
    noise = torch.randn(IMAGES, width, generator=rng, dtype=torch.float64)
    return F.normalize(F.normalize(centres, dim=1)[torch.arange(IMAGES) % groups] + spread * noise, dim=1)


def images(index: Tensor, seed: int) -> Batch:
    rng = torch.Generator().manual_seed(seed)
    return Batch(torch.randn(len(index), 3, *SIZE, generator=rng, dtype=torch.float64), None, None, index, index, index)


def same_partition(first: Tensor, second: np.ndarray) -> bool:
    a, b = first.numpy(), second
    return np.array_equal(a[:, None] == a[None], b[:, None] == b[None]) and np.array_equal(a < 0, b < 0)


def same_weights(ours: nn.Module, theirs: nn.Module) -> None:
    for (name, value), expected in zip(ours.state_dict().items(), theirs.state_dict().values(), strict=True):
        torch.testing.assert_close(value, expected, rtol=1e-7, atol=1e-9, msg=lambda m, name=name: f"{name}: {m}")


def test_cluster_contrast():
    config = settings("cluster-contrast", batch_size=12, num_instances=3, cluster={"k1": 8, "k2": 3, "eps": 0.5})
    encoder = encoder_of(config)
    plain, width = copy.deepcopy(encoder), encoder.feature_dim
    features = grouped(width)
    stage = ClusterContrastStage(config, encoder, data(features))
    plan = stage.plan_epoch(0)
    labels = rules.cluster_contrast_labels(features, k1=8, k2=3, eps=0.5, min_samples=4)
    assert same_partition(stage.labels, labels) and len(set(labels)) > 3
    stage.memory.double()
    means = [features[stage.labels == c].mean(0) for c in range(stage.memory.num_clusters)]
    memory = F.normalize(torch.stack(means), dim=1)
    torch.testing.assert_close(stage.memory.features, memory, rtol=1e-5, atol=1e-6)
    stage.memory.features.copy_(memory)

    learning = [p for p in plain.parameters() if p.requires_grad]
    assert len(learning) == len(list(plain.parameters())) - 1  # but for the bias of the last batch norm
    adam = torch.optim.Adam(learning, lr=3.5e-4, weight_decay=5e-4)
    plain.train()
    for step in range(STEPS):
        index = torch.from_numpy(plan.batches[step])
        batch = images(index, step)
        got = stage.step(batch, step)["contrast"]
        feature = F.normalize(plain(batch.image)[1], dim=1)
        target = stage.labels[index]
        loss = F.cross_entropy(feature @ memory.clone().T / 0.05, target)
        adam.zero_grad()
        loss.backward()
        adam.step()
        for row, cluster in zip(feature.detach(), target.tolist(), strict=True):
            memory[cluster] = F.normalize(0.1 * memory[cluster] + 0.9 * row, dim=0)
        torch.testing.assert_close(got, loss.detach(), rtol=1e-9, atol=1e-10)
    torch.testing.assert_close(stage.memory.features, memory, rtol=1e-8, atol=1e-9)
    # Adam blows the rounding of a gradient that is zero (a bias before a norm) up: hence the width of the margin
    for (name, ours), theirs in zip(encoder.named_parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-7, atol=1e-7, msg=lambda m, name=name: f"{name}: {m}")
    assert encoder.bn.bias.abs().max() == 0


def test_mlc():
    config = settings("mlc", mlc={"batch_size": 8, "hard_share": 0.1})  # 1% of 48 images is none
    encoder = encoder_of(config)
    plain = copy.deepcopy(encoder)
    stage = MLCStage(config, encoder, data())
    stage.bank = stage.bank.double()
    memory, sgd = torch.zeros_like(stage.bank), rules.sgd(plain, 0.1, 0.1)
    stage.plan_epoch(0)
    assert torch.equal(stage.bank, memory)  # zeros
    plain.train()
    several = 0
    for number, epoch in enumerate((0, 5, 6, 50, 59)):
        if epoch == 6:  # features that have neighbours, as after some training
            memory = grouped(stage.bank.shape[1], spread=0.1)
            stage.bank.copy_(memory)
        stage.enter_epoch(epoch)
        for group, share in zip(sgd.param_groups, (0.1, 1.0), strict=True):
            group["lr"] = 0.1 * 0.1 ** (epoch // 40) * share
        index = torch.randperm(IMAGES, generator=torch.Generator().manual_seed(epoch))[:8]
        batch = images(index, number)
        got = stage.step(batch, number)
        positives = [rules.mlc_positives(memory, i, 0.6) if epoch > 5 else [i] for i in index.tolist()]
        several += sum(len(p) > 1 for p in positives)
        feature = F.normalize(plain(batch.image)[1], dim=1)
        loss = rules.mlc_loss(feature @ memory.T, positives, 0.1)
        sgd.zero_grad()
        loss.backward()
        sgd.step()
        alpha = 0.5 * epoch / 60
        for row, i in zip(feature.detach(), index.tolist(), strict=True):
            memory[i] = F.normalize(alpha * memory[i] + (1 - alpha) * row, dim=0)
        torch.testing.assert_close(got["total"], loss.detach(), rtol=1e-9, atol=1e-10)
        torch.testing.assert_close(stage.bank, memory, rtol=1e-9, atol=1e-10)
    assert several > 5
    same_weights(encoder, plain)


@pytest.mark.parametrize("renormalise", [False, True])
def test_jvtc(renormalise):
    """As published, and with memory rows brought back to length one, which is this package's option."""
    views, number = 4, 12  # after the global loss began
    config = settings("jvtc", jvtc={"batch_size": 8 * views, "temporal_from": 101, "renormalise": renormalise})
    encoder = encoder_of(config)
    plain = copy.deepcopy(encoder)
    stage = JVTCStage(config, encoder, data())
    bank = grouped(encoder.feature_dim)
    stage.bank, stage.ready = bank.clone(), True
    stage.labels = torch.arange(IMAGES) % 6
    stage.enter_epoch(number - 1)
    sgd, moved = rules.sgd(plain, 0.1, 0.1), 0.01 * number
    plain.train()
    for step in range(STEPS):
        image = torch.randperm(IMAGES, generator=torch.Generator().manual_seed(step))[:8]
        batch = images(image.repeat_interleave(views), step)
        got = stage.step(batch, step)
        feature = plain(batch.image)[1]
        local, everywhere = rules.jvtc_losses(feature, views, bank, stage.labels, image)
        sgd.zero_grad()
        (local + 0.2 * everywhere).backward()
        sgd.step()
        means = F.normalize(feature.detach().unflatten(0, (-1, views)).mean(1), dim=1)
        rows = means * (1 - moved) + bank[image] * moved
        bank[image] = F.normalize(rows, dim=1) if renormalise else rows
        for name, value in (("local", local), ("global", everywhere), ("total", local + 0.2 * everywhere)):
            torch.testing.assert_close(got[name], value.detach(), rtol=1e-8, atol=1e-9, msg=lambda m, name=name: f"{name}: {m}")
        torch.testing.assert_close(stage.bank, bank, rtol=1e-9, atol=1e-10)
    assert bool((bank.norm(dim=1) < 0.999).any()) != renormalise
    same_weights(encoder, plain)


@pytest.mark.parametrize(("spread", "rho"), [(0.05, 0.16), (0.5, 0.09)])
@pytest.mark.parametrize("seed", range(2))
def test_jvtc_pseudo_labels(seed, spread, rho):
    """Visual and joint clusters. Where people are apart (0.05) they are those of the published rule; everywhere those of that
    rule with the differences that docs/fidelity.md names: how a set's members weigh, that a pair is scaled by both its rows,
    that each image is first for itself."""
    cluster, numbers = {"k1": 9, "k2": 3, "rho": rho}, {"k1": 8, "k2": 3, "rho": rho, "scale": 0.8}
    rule = settings("jvtc", jvtc={"bin_frames": 100, "smooth_bins": 2.0, "cluster": cluster}).stage1.jvtc
    bank = grouped(8, spread=spread, seed=seed)
    cameras, frames = (np.array([getattr(r, n) for r in records()]) for n in ("camera", "frame"))
    found = labels_by_rule(bank, torch.from_numpy(cameras), torch.from_numpy(frames), rule)
    squared = rules.squared_distances(bank)
    for published in (True, False):
        if published and spread > 0.1:
            continue
        here = {} if published else {"closeness": np.exp(-squared), "symmetric": True}
        visual = rules.jvtc_labels(squared, share=0.3, **numbers, **here)
        intervals = rules.jvtc_intervals(cameras, frames, visual, int((frames.max() - frames.min()) // 100 + 1), 100, 2.0)
        here = {} if published else {"closeness": np.ones_like(squared), "symmetric": True}
        apart = rules.joint_distances(bank, cameras, frames, intervals, 100)
        joint = rules.jvtc_labels(apart, share=0.5, **numbers, **here)
        assert 3 <= len(set(visual.tolist())) < IMAGES
        assert same_partition(found[1].labels, visual)
        assert same_partition(found[0].labels, joint)


def test_gcl():
    """The epoch's pseudo-labels, centres and images, then joint steps: losses, weights, memory."""
    config = from_dict(
        TrainConfig,
        {
            "device": "cpu",
            "precision": "fp32",
            "height": SIZE[0],
            "width": SIZE[1],
            "stage3": {"batch_size": 4, "num_negatives": 9, "lr_encoder": 1e-2, "cluster": {"k1": 8, "k2": 3, "eps": 0.5}},
        },
        base=recipe("jvtc"),
    )
    encoder = encoder_of(config)
    networks = Networks(encoder, Generator(encoder.code_dim, width=2, mlp_width=6).double(), Discriminator(3).double())
    features = grouped(encoder.feature_dim, spread=0.4)
    stages = []
    for copied in (networks, copy.deepcopy(networks)):
        stage = JointStage(config, copied, data(features))
        stage.memory.double()
        stage.enter_epoch(0)
        plan = stage.plan_epoch(0)
        stage.optimizers = {k: torch.optim.SGD(stage.modules[k].parameters(), 1e-3, momentum=0.9) for k in stage.optimizers}
        stages.append(stage)
    fast, plain = stages
    labels = rules.cluster_contrast_labels(features, k1=8, k2=3, eps=0.5, min_samples=4)
    assert same_partition(fast.memory.labels, labels)
    centers = torch.stack([features[fast.memory.labels == c].mean(0) for c in range(len(fast.centers))])
    torch.testing.assert_close(fast.centers, centers, rtol=1e-12, atol=1e-12)
    planned = np.concatenate(plan.batches)
    assert len(set(planned.tolist())) == len(planned) == (labels >= 0).sum() // 4 * 4 and (labels[planned] >= 0).all()

    settings3, memory = config.stage3, plain.memory
    contrast = Contrast(memory.features, memory.labels, centers, 0.04, 9, 0.2, 1.0, 1.0)
    for module in plain.modules.values():
        module.train()
    for step in range(2):
        rng = torch.Generator().manual_seed(step)
        index = torch.from_numpy(plan.batches[step])
        photo, mesh, turned = (torch.randn(4, c, *SIZE, generator=rng, dtype=torch.float64) for c in (3, 1, 1))
        batch = Batch(photo, mesh.tanh(), turned.tanh(), index, index, index)
        got = fast.step(batch, step)
        weight, order = draw_mix(4, settings3.loss.mixup_alpha, plain.iteration_rng(step))
        want = plain_step(
            plain.modules,
            plain.optimizers,
            batch,
            mix_weight=weight,
            order=torch.from_numpy(order),
            weights=Weights(),
            contrast=contrast,
            seed=int(plain.iteration_rng(step).integers(2**31)),
        )
        for name, value in want.items():
            assert float(got[name]) == pytest.approx(float(value), rel=2e-6), name  # the log keeps float32
    torch.testing.assert_close(fast.memory.features, memory.features, rtol=1e-9, atol=1e-10)
    for kind in ("encoder", "generator", "discriminator"):
        same_weights(fast.modules[kind], plain.modules[kind])
