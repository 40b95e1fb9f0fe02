"""Features of a set of images, retrieval scores, ranked lists: after training, and between epochs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from gcl_fast import distributed
from gcl_fast.data.loaders.loader_base import Loader
from gcl_fast.data.plans import Plan, sequential
from gcl_fast.errors import StageError
from gcl_fast.files import file_numbers
from gcl_fast.models.modes import evaluating
from gcl_fast.ops._check import ANY_FLOATS, INTEGERS, Shapes, integer
from gcl_fast.ops.ranking import RankMetrics, negated_cosines, rank_metrics, rank_metrics_from_distances
from gcl_fast.ops.ranking import rerank as rerank_distances
from gcl_fast.records import Record

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class TopMatches:
    """The first gallery images of each query, ignored ones left out.

    index       [Q, top] int64, gallery rows; -1 where the gallery holds fewer
    correct     [Q, top] bool, same person; False at -1
    similarity  [Q, top] float32, cosine; -inf at -1
    """

    index: Tensor
    correct: Tensor
    similarity: Tensor


def extract_features(
    encoder: nn.Module,
    loader: Loader,
    num_records: int,
    *,
    batch_size: int,
    device: torch.device | str,
    amp: bool = False,
    progress: Progress | None = None,
) -> Tensor:
    """L2-normalised matching features of a loader's records.

    Several processes share the work: each calls this, reads its part, and gets all features.

    Arguments:
        encoder: image [B, 3, H, W] -> (code, feature [B, D]), on device; run in eval mode, each of its modules put back to its
            own mode afterwards.
        loader: gives image and index; records are read once, in order.
        num_records: N.
        batch_size: at least 1.
        device: where the encoder is.
        amp: run the encoder under bfloat16 autocast.
        progress: called with (images done, num_records) after each batch.

    Returns: [N, D] float32 on `device`; nothing is copied to the host, which waits for a GPU once, at the end.
    Errors: StageError (a RuntimeError) where a feature is not finite; RuntimeError where the loader does not give each record
        once.
    """
    features: Tensor | None = None
    device, plan, ranks, done = torch.device(device), sequential(num_records, batch_size), distributed.world(), 0
    seen = torch.zeros(num_records, dtype=torch.int64, device=device)
    with evaluating(encoder):
        for batch in loader.epoch(Plan(plan.batches[distributed.rank() :: ranks]), 0):
            batch = batch.to(device)
            with torch.inference_mode(), torch.autocast(device.type, dtype=torch.bfloat16, enabled=amp):
                feature = encoder(batch.image)[1]
                feature = nn.functional.normalize(feature.float(), dim=1)  # [B, D]
            if features is None:
                features = torch.zeros(num_records, feature.shape[1], dtype=torch.float32, device=device)
            features[batch.index] = feature
            seen.index_add_(0, batch.index, torch.ones_like(batch.index))
            done += len(batch)
            if progress is not None:
                progress(min(ranks * done, num_records), num_records)
    if features is None:
        features = torch.zeros(num_records, int(getattr(encoder, "feature_dim", 0)), dtype=torch.float32, device=device)
    if ranks > 1:
        features, seen = distributed.sum_(features), distributed.sum_(seen)  # each row is another rank's zero
    _check_features(features, seen)
    return features


def _check_features(features: Tensor, seen: Tensor) -> None:
    """Each record read once, each feature finite."""
    once, finite = torch.stack([(seen == 1).all(), torch.isfinite(features).all()]).tolist()  # the one wait
    if not once:
        row = int((seen != 1).nonzero()[0])
        times = f"got record {row} {int(seen[row])} times"
        raise RuntimeError(f"extract_features: expected each of {len(seen)} records once, {times}")
    if not finite:
        row = int((~torch.isfinite(features)).any(dim=1).nonzero()[0])
        raise StageError(
            f"extract_features: expected finite features, got NaN or infinity for record {row}; the encoder's weights are "
            "damaged, or training went astray: lower the learning rate or try --precision fp32"
        )


def evaluate(
    encoder: nn.Module,
    query_loader: Loader,
    gallery_loader: Loader,
    query: Sequence[Record],
    gallery: Sequence[Record],
    *,
    batch_size: int,
    device: torch.device | str,
    amp: bool = False,
    rerank: bool = False,
    same_camera: bool = False,
    max_rank: int = 50,
    progress: Progress | None = None,
) -> RankMetrics:
    """mAP, CMC and mINP of an encoder on query and gallery records.

    Arguments:
        query_loader, gallery_loader: read the images of query and gallery.
        query, gallery: records with pid and camera.
        rerank: rank by k-reciprocal re-ranking (Zhong et al., CVPR 2017: k1 20, k2 6, lambda 0.3) instead of cosine.
        same_camera: also count matches in the query's own camera, see `identities`.
        max_rank: entries of CMC.
        progress: counts query and gallery images together.
        encoder, batch_size, device, amp: as in `extract_features`.

    Returns: the scores; of several processes each gets the first one's.
    """
    total = len(query) + len(gallery)

    def features(loader: Loader, count: int, before: int) -> Tensor:
        counted = None if progress is None else lambda done, _: progress(before + done, total)
        return extract_features(encoder, loader, count, batch_size=batch_size, device=device, amp=amp, progress=counted)

    query_features = features(query_loader, len(query), 0)
    gallery_features = features(gallery_loader, len(gallery), len(query))
    return distributed.from_first(
        lambda: evaluate_features(
            query_features, gallery_features, query, gallery, rerank=rerank, same_camera=same_camera, max_rank=max_rank
        )
    )


def evaluate_features(
    query_features: Tensor,
    gallery_features: Tensor,
    query: Sequence[Record],
    gallery: Sequence[Record],
    *,
    rerank: bool = False,
    same_camera: bool = False,
    max_rank: int = 50,
) -> RankMetrics:
    """The scores of `evaluate` from features [Q, D], [G, D] (L2-normalised inside) and their records."""
    ids = identities(query, gallery, same_camera=same_camera)
    if rerank:
        distances = rerank_distances(query_features, gallery_features)
        return rank_metrics_from_distances(distances, *ids, max_rank=max_rank)
    return rank_metrics(query_features, gallery_features, *ids, max_rank=max_rank)


def identities(
    query: Sequence[Record], gallery: Sequence[Record], *, same_camera: bool = False
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Persons of query and gallery, then their cameras, int64, as `ops.rank_metrics` takes them.

    Scores leave out gallery images of the query's own person and camera. For data of one camera `same_camera` gives each file a
    camera of its own, so that the query's very image alone is left out; cameras that are not known (below 0) are so already.
    """
    both = (query, gallery)
    pids, gallery_pids = (torch.tensor([record.pid for record in records], dtype=torch.int64) for records in both)
    if not same_camera:
        cameras, gallery_cameras = (torch.tensor([record.camera for record in records], dtype=torch.int64) for records in both)
        return pids, gallery_pids, cameras, gallery_cameras
    files = torch.tensor(file_numbers(record.path for records in both for record in records), dtype=torch.int64)
    return pids, gallery_pids, files[: len(query)], files[len(query) :]


def answerable(query: Sequence[Record], gallery: Sequence[Record], *, same_camera: bool = False) -> list[int]:
    """The queries that have a right gallery image, and so are scored."""
    pids, gallery_pids, cameras, gallery_cameras = (t.tolist() for t in identities(query, gallery, same_camera=same_camera))
    seen: dict[int, set[int]] = {}
    for pid, camera in zip(gallery_pids, gallery_cameras, strict=True):
        seen.setdefault(pid, set()).add(camera)
    pairs = enumerate(zip(pids, cameras, strict=True))
    return [q for q, (pid, camera) in pairs if pid != -1 and seen.get(pid, set()) - {camera}]


def scoring_note(query: Sequence[Record], gallery: Sequence[Record], *, same_camera: bool = False) -> str:
    """Which queries cannot be scored, and why; empty where all can."""
    if not query or not gallery:
        return "no scores: no query or no gallery images"
    scored = set(answerable(query, gallery, same_camera=same_camera))
    if len(scored) == len(query):
        return ""
    left = [record for q, record in enumerate(query) if q not in scored]
    people = {record.pid for record in gallery}
    there = [record for record in left if record.pid != -1 and record.pid in people]
    themselves = sum(same_camera or record.camera < 0 for record in there)
    reasons = {
        "carry no identity": sum(record.pid == -1 for record in left),
        "show people who are not in the gallery": sum(record.pid != -1 and record.pid not in people for record in left),
        "have their person there only in their own camera": len(there) - themselves,
        "have their person there only as the very same image": themselves,
    }
    why = ", ".join(f"{count} {reason}" for reason, count in reasons.items() if count)
    advice = "" if "own camera" not in why else "; --same-camera counts those, too"
    title = f"{len(left)} of {len(query)} queries are not scored" if scored else "no scores: no query has a match in the gallery"
    return f"{title}: {why}{advice}"


def scores(metrics: RankMetrics) -> dict[str, float]:
    """{"mAP", "rank1", "rank5", "rank10", "mINP"} as fractions of 1; ranks beyond cmc take its last entry."""
    ranks = {f"rank{k}": float(metrics.cmc[min(k, len(metrics.cmc)) - 1]) for k in (1, 5, 10)}
    return {"mAP": metrics.mAP, **ranks, "mINP": metrics.mINP}


@torch.no_grad()
def top_matches(
    query_features: Tensor,
    gallery_features: Tensor,
    query_pids: Tensor,
    gallery_pids: Tensor,
    query_camids: Tensor,
    gallery_camids: Tensor,
    *,
    top: int = 10,
) -> TopMatches:
    """The gallery images nearest to each query by cosine, as the scores rank them. Deterministic.

    Arguments:
        query_features, gallery_features: [Q, D], [G, D] floating; normalised inside, in float32 at least.
        query_pids, gallery_pids, query_camids, gallery_camids: [Q] or [G] integer.
        top: gallery images for each query, at least 1.

    Returns: matches on the CPU. Left out: gallery images of the query's own person and camera, and junk (pid -1). Ties go to the
        lower gallery row.
    Errors: ValueError or TypeError that names the argument.
    """
    shapes = Shapes("top_matches")
    shapes.tensor("query_features", query_features, ("Q", "D"), ANY_FLOATS)
    shapes.tensor("gallery_features", gallery_features, ("G", "D"), ANY_FLOATS, device_of=("query_features", query_features))
    ids = {"query_pids": query_pids, "gallery_pids": gallery_pids, "query_camids": query_camids, "gallery_camids": gallery_camids}
    for name, value in ids.items():
        shapes.tensor(name, value, ("Q" if name.startswith("query") else "G",), INTEGERS)
    pids, gallery_pids, camids, gallery_camids = (value.to(query_features.device) for value in ids.values())
    top = integer("top_matches", "top", top, 1)
    index = torch.full((len(pids), top), -1, dtype=torch.int64, device=pids.device)
    correct = torch.zeros(len(pids), top, dtype=torch.bool, device=pids.device)
    similarity = torch.full((len(pids), top), -torch.inf, dtype=torch.float32, device=pids.device)
    dtype = torch.promote_types(query_features.dtype, gallery_features.dtype)
    sides = ("query_features", query_features.to(dtype)), ("gallery_features", gallery_features.to(dtype))
    rows, shown = negated_cosines(shapes, *sides, tied=True), min(top, len(gallery_pids))
    step = max(1, (1 << 23) // max(len(gallery_pids), 1))
    for first in range(0, len(pids) if shown else 0, step):
        part = slice(first, min(first + step, len(pids)))
        same_person = pids[part, None] == gallery_pids  # [b, G]
        ignored = (gallery_pids == -1) | (same_person & (camids[part, None] == gallery_camids))
        distance = rows(part.start, part.stop).masked_fill_(ignored, torch.inf)  # [b, G]
        value, order = (t[:, :shown] for t in distance.sort(dim=1, stable=True))  # [b, shown]
        ranked = value < torch.inf
        index[part, :shown] = torch.where(ranked, order, -1)
        correct[part, :shown] = same_person.gather(1, order) & ranked
        similarity[part, :shown] = -value
    return TopMatches(index.cpu(), correct.cpu(), similarity.cpu())
