"""Stage 1 by MLC and JVTC, epoch by epoch: what is planned, labelled and remembered, and what a control goes on from."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

pytest.importorskip("torchvision", reason="the backbones need torchvision")

from gcl_fast.config import TrainConfig, from_dict, recipe
from gcl_fast.data.datasets.camstyle import StyledRecords
from gcl_fast.errors import StageError
from gcl_fast.models import IdentityEncoder
from gcl_fast.models.before_norm import BeforeNorm
from gcl_fast.pseudo_labels import PseudoLabels, described
from gcl_fast.records import Batch, Record
from gcl_fast.stages.warmup import jvtc, mlc
from gcl_fast.stages.warmup.jvtc import JVTCStage
from gcl_fast.stages.warmup.mlc import MLCStage
from gcl_fast.stages.warmup.warmup_stage import Continuation
from tests.stage_data import StageData

IMAGES, COPIES = 10, 2  # styled copies of each
STAGES = {"mlc": MLCStage, "jvtc": JVTCStage}


def features(width: int) -> Tensor:
    return 3 * torch.randn(IMAGES, width, generator=torch.Generator().manual_seed(0))


def stage_of(method: str, continuation: Continuation | None = None, frame: int = 7, recordings: int = 1, **changes: Any) -> Any:
    """A stage over ten images, each with two copies in the style of another camera."""
    photos = [Record(Path(f"{i}.jpg"), -1, i % 3, frame * i, str(i % recordings)) for i in range(IMAGES)]
    copies = [replace(record, path=Path(f"{k}_{record.path}")) for record in photos for k in range(COPIES)]
    owner = np.concatenate([np.arange(IMAGES), np.repeat(np.arange(IMAGES), COPIES)])
    first, count = IMAGES + COPIES * np.arange(IMAGES), np.full(IMAGES, COPIES)
    settings = {"batch_size": 8, "epochs": 9, "lr_steps": [2], **changes}
    options = {"device": "cpu", "precision": "fp32", "seed": 5, "stage1": {method: settings}}
    encoder = IdentityEncoder(method, "resnet18", width=4, feature_width=6)
    data = StageData(
        torch.arange(IMAGES) % 3,
        read=lambda network: features(encoder.feature_dim),
        styled_records=StyledRecords([*photos, *copies], owner, first, count),
    )
    return STAGES[method](from_dict(TrainConfig, options, base=recipe(method)), encoder, data, continuation)


@pytest.mark.parametrize("method", list(STAGES))
def test_a_batch_shows_versions_of_its_images(method: str) -> None:
    """JVTC's views of an image stand side by side, and count towards the size of a batch."""
    views = 2 if method == "jvtc" else 1
    stage = stage_of(method, **({"views": views} if method == "jvtc" else {}))
    plans = [stage.plan_epoch(epoch) for epoch in (0, 1)]
    again = stage_of(method, **({"views": views} if method == "jvtc" else {})).plan_epoch(1)
    for plan in (*plans, again):
        assert [len(batch) for batch in plan] == [8] * (IMAGES // (8 // views)) and stage.unit == views
        for batch in plan:
            owners = stage.owner[torch.from_numpy(batch)].view(-1, views)
            assert (owners == owners[:, :1]).all() and len(owners.unique()) == 8 // views
            assert len(set(batch.tolist())) == 8  # no version twice
    drawn = [np.concatenate(plan.batches).tolist() for plan in (*plans, again)]
    assert drawn[0] != drawn[1] == drawn[2] and max(max(d) for d in drawn) >= IMAGES
    assert stage.owner[drawn[0]].tolist() != stage.owner[drawn[1]].tolist()  # another order of the images, too
    assert stage.view_rng(0).random() != stage.view_rng(1).random() == stage.view_rng(1).random()


@pytest.mark.parametrize("method", list(STAGES))
def test_fewer_images_than_a_batch_are_one_batch(method: str) -> None:
    batch_size = 64 if method == "mlc" else 64 * 4
    assert [len(batch) for batch in stage_of(method, batch_size=batch_size).plan_epoch(0)] == [IMAGES * batch_size // 64]
    assert len(stage_of(method, iters=5).plan_epoch(0)) == 5


@pytest.mark.parametrize("method", list(STAGES))
@pytest.mark.parametrize("start", ["features", "zeros"])
def test_the_memory_begins_with_features_once_or_with_zeros(method: str, start: str) -> None:
    stage = stage_of(method, memory_start=start)
    stage.plan_epoch(0)
    expected = F.normalize(features(stage.encoder.feature_dim), dim=1)
    assert torch.equal(stage.bank, expected if start == "features" else torch.zeros_like(expected))
    stage.bank.fill_(0.5)
    stage.plan_epoch(1)
    assert (stage.bank == 0.5).all()


@pytest.mark.parametrize("method", list(STAGES))
def test_a_continuation_takes_memory_and_momentum_over(method: str) -> None:
    before = stage_of(method)
    before.plan_epoch(0)
    before.bank.copy_(torch.randn(before.bank.shape))
    if method == "jvtc":
        before.labels = torch.arange(IMAGES) // 2
    before.descend(sum(weight.sum() for weight in before.encoder.parameters()), "encoder")
    state = {"extra": before.extra_state(), "optimizers": {"encoder": before.optimizers["encoder"].state_dict()}}
    going_on = stage_of(method, Continuation("control", 9, 6))
    going_on.go_on_from(state)
    planned = [len(going_on.plan_epoch(epoch)) for epoch in range(going_on.epochs)[:2]]
    assert torch.equal(going_on.bank, before.bank) and sum(planned) > 0 and going_on.planned == sum(planned)
    for weight, other in zip(before.encoder.parameters(), going_on.encoder.parameters(), strict=True):
        left, taken = (s.optimizers["encoder"].state[w]["momentum_buffer"] for s, w in ((before, weight), (going_on, other)))
        assert left.any() and torch.equal(left, taken)
    if method == "jvtc":
        assert torch.equal(going_on.labels, before.labels)


# MLC


def test_mlc_moves_the_rows_of_the_images_whose_copies_it_saw() -> None:
    stage = stage_of("mlc", hard_share=0.5)
    stage.plan_epoch(0)
    stage.enter_epoch(0)
    rows = torch.tensor([0, IMAGES, IMAGES + 3, IMAGES + 19])  # images 0, 0, 1 and 9
    figures = stage.step(Batch(torch.randn(4, 3, 56, 40), None, None, rows, rows, rows), 0)
    assert figures["labels"] == 1  # of each image, its own
    assert stage.bank.any(dim=1).nonzero().flatten().tolist() == [0, 1, 9]


@pytest.mark.parametrize("walk", ["mutual", "released"])
def test_mlc_walks_for_its_labels_as_told(walk: str, monkeypatch: pytest.MonkeyPatch) -> None:
    walks = []

    def walked(bank: Tensor, index: Tensor, *rule: Any) -> Tensor:
        walks.append(rule)
        return F.one_hot(index, len(bank)).bool()

    monkeypatch.setattr(mlc, "multi_labels", walked)
    stage = stage_of("mlc", single_label_epochs=1, threshold=0.7, min_neighbors=3, walk=walk)
    rows = torch.arange(4)
    for epoch in range(3):
        stage.enter_epoch(epoch)
        stage.step(Batch(torch.randn(4, 3, 56, 40), None, None, rows, rows, rows), epoch)
    assert walks == [(0.7, 3, walk)]  # in the epochs after 0 and 1


def test_mlc_s_memory_is_never_slower_than_told() -> None:
    stage = stage_of("mlc", momentum=0.4, momentum_epochs=4)
    shares = []
    for epoch in range(8):
        stage.enter_epoch(epoch)
        shares.append(stage.momentum)
    assert shares == pytest.approx([0.0, 0.1, 0.2, 0.3, 0.4, 0.4, 0.4, 0.4])


def test_mlc_s_control_scores_the_average_before_its_norm() -> None:
    stage = stage_of("mlc", Continuation("control", 9, 6, average=0.5))
    scored: list[Any] = []
    stage.data.score = scored.append
    stage.score()
    (network,) = scored
    assert isinstance(network, BeforeNorm) and network.encoder is stage.kept_encoder is not stage.encoder


# JVTC


def told(labels: list[int]) -> PseudoLabels:
    return described(torch.tensor(labels), 0.5)


def test_jvtc_labels_its_memory_now_and_then_and_with_time_later(monkeypatch: pytest.MonkeyPatch) -> None:
    stage, made = stage_of("jvtc", global_from=2, label_every=3, temporal_from=5), []
    some = told([-1, 0, 0, -1, 1, 1, -1, 1, 1, -1])
    for kind in ("_visual_clusters", "_joint_clusters"):
        monkeypatch.setattr(stage, kind, lambda kind=kind: made.append((stage.number, kind)) or some)
    for epoch in range(9):
        stage.enter_epoch(epoch)
        stage.plan_epoch(epoch)
        if epoch == 0:
            assert stage.labels.tolist() == list(range(IMAGES))
    assert made == [(2, "_visual_clusters"), (5, "_joint_clusters"), (8, "_joint_clusters")]
    labels = stage.labels.tolist()
    assert labels[1:3] == [0] * 2 and labels[4:6] == labels[7:9] == [1] * 2
    assert len({*labels[::3], 0, 1}) == 6  # each outlier is a class of its own


def test_jvtc_ends_where_all_images_are_one_person(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = stage_of("jvtc", global_from=1)
    stage.enter_epoch(0)
    monkeypatch.setattr(stage, "_visual_clusters", lambda: told([0] * 9 + [-1]))
    stage.plan_epoch(0)  # one is somebody else
    monkeypatch.setattr(stage, "_visual_clusters", lambda: told([0] * 10))
    with pytest.raises(StageError, match="epoch 1: all 10 images fell into one cluster at eps 0.500"):
        stage.plan_epoch(0)


def test_jvtc_asks_for_frames_where_an_epoch_will_need_them() -> None:
    with pytest.raises(StageError, match="needs frame numbers"):
        stage_of("jvtc", frame=-1, temporal_from=9)  # of nine epochs


@pytest.mark.parametrize("continuation", [None, Continuation("control", 9, 100)])
def test_jvtc_never_asks_for_frames_where_time_begins_after_its_epochs(continuation, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the control run neither: it would end a run whose three stages are trained."""
    settings = {"global_from": 1, "temporal_from": 10, "continuation": continuation}
    assert stage_of("jvtc", frame=-1, **settings).frames is None
    stage, made = stage_of("jvtc", **settings), []
    monkeypatch.setattr(stage, "_visual_clusters", lambda: made.append("visual") or told([0] * 5 + [1] * 5))
    stage.enter_epoch(1)
    stage.number = 16  # of a continuation
    stage.plan_epoch(1)
    assert made == ["visual"]


@pytest.mark.parametrize("per_recording", [True, False])
def test_jvtc_clusters_recordings_apart_where_asked(per_recording: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    clocks: list[Tensor | None] = []
    both = told([0] * 5 + [1] * 5), told([0] * 5 + [1] * 5)
    monkeypatch.setattr(jvtc, "labels_by_rule", lambda bank, cameras, frames, rule, apart: clocks.append(apart) or both)
    for recordings in (1, 2):
        stage = stage_of("jvtc", global_from=1, temporal_from=1, per_recording=per_recording, recordings=recordings)
        stage.enter_epoch(0)
        stage.plan_epoch(0)
    assert clocks[0] is None and (clocks[1] is not None) == per_recording
    if per_recording:
        assert clocks[1].tolist() == [0, 1] * 5
