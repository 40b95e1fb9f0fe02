"""Feature extraction, scores of an encoder, ranked lists."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import nn

from gcl_fast import distributed
from gcl_fast.evaluation import evaluate, evaluate_features, extract_features, scores, top_matches
from gcl_fast.ops import rank_metrics, rank_metrics_from_distances, rerank
from gcl_fast.records import Batch


@dataclass(frozen=True)
class Shot:
    pid: int
    camera: int


class Images:
    """A loader over images that are held in memory."""

    def __init__(self, images: torch.Tensor) -> None:
        self.images = images

    def epoch(self, plan, epoch: int, start: int = 0):
        for rows in plan.batches[start:]:
            index = torch.as_tensor(rows)
            yield Batch(self.images[index], None, None, torch.full_like(index, -1), torch.zeros_like(index), index)


class Encoder(nn.Module):
    feature_dim = 6

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.norm, self.linear, self.drop = nn.BatchNorm2d(3), nn.Linear(3 * 4 * 2, 6), nn.Dropout(0.5)

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        code = self.norm(image).flatten(1)
        return code, self.drop(self.linear(code))


def images(n: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(n, 3, 4, 2, generator=torch.Generator().manual_seed(seed))


def shots(n: int, seed: int) -> list[Shot]:
    rng = np.random.default_rng(seed)
    return [Shot(int(p), int(c)) for p, c in zip(rng.integers(-1, 5, n), rng.integers(0, 3, n), strict=True)]


def test_features_are_the_encoder_s_in_eval_mode(device: torch.device) -> None:
    x, encoder, calls = images(23), Encoder().to(device), []
    encoder.norm.eval()  # a frozen part of a training encoder stays as it was
    before = {k: v.clone() for k, v in encoder.state_dict().items()}
    found = extract_features(encoder, Images(x), 23, batch_size=5, device=device, progress=lambda *at: calls.append(at))
    assert encoder.training and encoder.drop.training and encoder.linear.training and not encoder.norm.training
    assert all(torch.equal(v, before[k]) for k, v in encoder.state_dict().items())
    assert calls == [(5, 23), (10, 23), (15, 23), (20, 23), (23, 23)]
    encoder.eval()
    expected = nn.functional.normalize(encoder(x.to(device))[1], dim=1).detach()
    assert found.dtype == torch.float32 and found.device.type == device.type and not found.is_inference()
    assert (found - expected).abs().max() < 1e-6


def test_features_under_autocast_stay_near(device: torch.device) -> None:
    encoder = Encoder().to(device)
    exact, rounded = (
        extract_features(encoder, Images(images(9)), 9, batch_size=4, device=device, amp=amp) for amp in (False, True)
    )
    assert rounded.dtype == torch.float32
    assert 0 < (exact - rounded).abs().max() < 0.05


def test_modes_are_put_back_after_an_error() -> None:
    encoder = Encoder()
    with pytest.raises(RuntimeError, match="NaN or infinity for record 3"):
        broken = images(5)
        broken[3] = float("nan")
        extract_features(encoder, Images(broken), 5, batch_size=2, device="cpu")
    assert encoder.training and encoder.norm.training
    with pytest.raises(IndexError):
        extract_features(encoder, Images(images(2)), 5, batch_size=2, device="cpu")
    assert encoder.training and encoder.norm.training
    assert extract_features(encoder, Images(images(0)), 0, batch_size=2, device="cpu").shape == (0, 6)


def test_the_first_of_two_processes_counts_for_both(monkeypatch: pytest.MonkeyPatch) -> None:
    """It reads every second batch; with the last, smaller one it is not done with more images than there are."""
    monkeypatch.setattr(distributed, "world", lambda: 2)
    monkeypatch.setattr(distributed, "rank", lambda: 0)
    monkeypatch.setattr(distributed, "sum_", lambda x: x)  # nothing comes from the other
    calls: list[tuple[int, int]] = []
    with pytest.raises(RuntimeError, match="each of 5 records once, got record 2 0 times"):
        extract_features(Encoder(), Images(images(5)), 5, batch_size=2, device="cpu", progress=lambda *at: calls.append(at))
    assert calls == [(4, 5), (5, 5)]


def test_a_loader_that_leaves_records_out_is_an_error() -> None:
    loader = Images(images(6))
    loader.epoch = lambda plan, epoch: Images.epoch(loader, plan, epoch, start=1)
    with pytest.raises(RuntimeError, match="each of 6 records once, got record 0 0 times"):
        extract_features(Encoder(), loader, 6, batch_size=2, device="cpu")


@pytest.mark.parametrize("rerank_too", [False, True])
def test_evaluate_scores_the_features(rerank_too: bool) -> None:
    encoder, query, gallery = Encoder(), shots(14, 1), shots(40, 2)
    calls: list[tuple[int, int]] = []
    found = evaluate(
        encoder,
        Images(images(14, 1)),
        Images(images(40, 2)),
        query,
        gallery,
        batch_size=16,
        device="cpu",
        rerank=rerank_too,
        max_rank=12,
        progress=lambda *at: calls.append(at),
    )
    features = [extract_features(encoder, Images(images(n, s)), n, batch_size=64, device="cpu") for n, s in ((14, 1), (40, 2))]
    ids = [torch.tensor([getattr(r, f) for r in rows]) for f in ("pid", "camera") for rows in (query, gallery)]
    if rerank_too:
        expected = rank_metrics_from_distances(rerank(*features), *ids, max_rank=12)
    else:
        expected = rank_metrics(*features, *ids, max_rank=12)
    assert found.mAP == pytest.approx(expected.mAP) and found.num_valid == expected.num_valid > 5
    assert torch.equal(found.cmc, expected.cmc)
    assert calls == [(14, 54), (30, 54), (46, 54), (54, 54)]
    named = scores(found)
    assert list(named) == ["mAP", "rank1", "rank5", "rank10", "mINP"]
    assert named["rank5"] == found.cmc[4] and named["rank1"] <= named["rank10"]
    assert named["mAP"] == found.mAP != found.mINP == named["mINP"]
    assert scores(found._replace(cmc=found.cmc[:3]))["rank10"] == found.cmc[2]


def test_perfect_features_score_one() -> None:
    query, gallery = [Shot(p, 0) for p in range(5)], [Shot(p, c) for p in range(5) for c in (0, 1, 2)]
    found = evaluate_features(torch.eye(5), torch.eye(5).repeat_interleave(3, dim=0), query, gallery)
    assert scores(found) == dict.fromkeys(("mAP", "rank1", "rank5", "rank10", "mINP"), 1.0)


def test_top_matches_leave_out_what_the_scores_ignore(device: torch.device) -> None:
    rng = np.random.default_rng(3)
    ranges = ((0, 4, 10), (-1, 4, 25), (0, 2, 10), (0, 2, 25))
    ids = [torch.from_numpy(rng.integers(low, high, n)) for low, high, n in ranges]
    qp, gp, qc, gc = (t.numpy() for t in ids)
    query, gallery = (torch.from_numpy(rng.choice([-1.0, 1.0], size=(n, 4)).astype(np.float32)) for n in (10, 25))  # many ties
    found = top_matches(query.to(device), gallery.to(device), *(t.to(device) for t in ids), top=30)
    assert found.index.shape == found.correct.shape == (10, 30) and found.correct.dtype == torch.bool
    similarity = (query @ gallery.T).numpy()
    for q in range(10):
        kept = [g for g in range(25) if gp[g] != -1 and not (gp[g] == qp[q] and gc[g] == qc[q])]
        kept.sort(key=lambda g: (-similarity[q, g], g))
        assert found.index[q].tolist() == kept + [-1] * (30 - len(kept))
        assert found.correct[q].tolist() == [bool(gp[g] == qp[q]) for g in kept] + [False] * (30 - len(kept))
    first = top_matches(query, gallery, *ids, top=3)
    assert torch.equal(first.index, found.index[:, :3]) and torch.equal(first.correct, found.correct[:, :3])


def test_top_matches_are_by_cosine_however_long_features_are(device: torch.device) -> None:
    query, gallery = torch.tensor([[3.0, 4.0]]), torch.tensor([[0.0, 9.0], [0.6, 0.8], [-2.0, 0.0], *[[1.0, -1.0]] * 9])
    ids = torch.tensor([0]), torch.arange(12), torch.tensor([0]), torch.ones(12, dtype=torch.int64)
    found = top_matches(query.to(device), gallery.to(device), *(t.to(device) for t in ids))
    assert found.index.tolist() == [[1, 0, *range(3, 11)]]  # ten, as nothing else was asked for
    torch.testing.assert_close(found.similarity[0, :3], torch.tensor([1.0, 0.8, -0.1 * 2**0.5]))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_top_matches_are_in_the_order_that_is_scored(dtype: torch.dtype) -> None:
    """Also where only the last digits tell images apart: lengths that round otherwise, or differences that float32 has not."""
    generator = torch.Generator().manual_seed(0)
    query, base = torch.randn(2, 1, 16, generator=generator, dtype=dtype)
    nudges = 1e-9 * torch.randn(6, 16, generator=generator, dtype=dtype)
    gallery = torch.cat([base * length for length in (1.0, 3.0, 0.7, 1.1)] + [base + nudges])
    people, zero = torch.arange(len(gallery)), torch.zeros(1, dtype=torch.int64)
    found = top_matches(query, gallery, zero - 1, people, zero, people + 1, top=len(gallery))
    alone = [rank_metrics(query, gallery, zero + person, people, zero, people + 1) for person in people.tolist()]
    assert found.index[0].tolist() == sorted(people.tolist(), key=lambda person: -alone[person].mAP)
    assert found.similarity.dtype == torch.float32


def test_top_matches_of_numbers_beyond_float32() -> None:
    """Of one type with those of another, too."""
    query, gallery = torch.tensor([[3e200, 4e200]], dtype=torch.float64), torch.tensor([[0.0, 1.0], [0.6, 0.8]])
    one, two = torch.zeros(1, dtype=torch.int64), torch.arange(2)
    found = top_matches(query, gallery, one, two, one, two + 1, top=2)
    assert found.index.tolist() == [[1, 0]]
    torch.testing.assert_close(found.similarity, torch.tensor([[1.0, 0.8]]))


def test_the_program_s_default_type_is_not_looked_at() -> None:
    x, encoder, one = images(3), Encoder(), torch.zeros(1, dtype=torch.int64)
    torch.set_default_dtype(torch.float64)
    try:
        features = extract_features(encoder, Images(x), 3, batch_size=2, device="cpu")
        none = extract_features(encoder, Images(x[:0]), 0, batch_size=2, device="cpu")
        found = top_matches(features[:1], features[1:], one, torch.arange(2), one, torch.ones(2, dtype=torch.int64))
    finally:
        torch.set_default_dtype(torch.float32)
    assert features.dtype == none.dtype == found.similarity.dtype == torch.float32


def test_top_matches_of_nothing() -> None:
    none, two = torch.zeros(0, dtype=torch.int64), torch.zeros(2, dtype=torch.int64)
    found = top_matches(torch.ones(2, 4), torch.ones(0, 4), two, none, two, none, top=3)
    assert found.index.tolist() == [[-1] * 3] * 2 and not found.correct.any()
    with pytest.raises(ValueError, match="top must be at least 1"):
        top_matches(torch.ones(2, 4), torch.ones(0, 4), two, none, two, none, top=0)


@pytest.mark.parametrize("width", [53, 64, 200])
def test_equal_gallery_images_rank_by_their_row(width: int) -> None:
    """A product may round equal columns otherwise."""
    generator = torch.Generator().manual_seed(2)
    query, gallery = torch.randn(3, width, generator=generator), torch.randn(1, width, generator=generator).repeat(7, 1)
    zero, people = torch.zeros(3, dtype=torch.long), torch.arange(7)
    matches = top_matches(query, gallery, zero, people, zero, people + 1, top=7)
    assert matches.index.tolist() == [list(range(7))] * 3 and matches.correct[:, 0].all()
