"""Retrieval scores (mAP, CMC, mINP) and k-reciprocal re-ranking, a block of queries at a time."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from gcl_fast import _native
from gcl_fast._op_types import RankMetrics
from gcl_fast.ops._check import ANY_FLOATS, FLOATS, INTEGERS, Shapes, integer
from gcl_fast.ops._knn import Copies
from gcl_fast.ops._products import exact_product
from gcl_fast.ops._rows import normalised, with_scales
from gcl_fast.ops._sets import expanded_sets, overlap_terms

__all__ = ["RankMetrics", "rank_metrics", "rank_metrics_from_distances", "rerank"]

BLOCK = 1 << 23  # distances alive at once
CUDA_BLOCK = 1 << 28  # the same of rank_metrics on a GPU (1 GiB of float32): a product fills it with several waves of tiles
ROWS = 128  # a multiple of it is the height of such a block
MAX_GALLERY = (1 << 31) - 1
MAX_RANK = 1 << 20


def rank_metrics(
    query: Tensor,
    gallery: Tensor,
    query_pids: Tensor,
    gallery_pids: Tensor,
    query_camids: Tensor,
    gallery_camids: Tensor,
    *,
    max_rank: int = 50,
) -> RankMetrics:
    """Scores of ranking a gallery by cosine similarity to each query.

    Average precision is the mean over the matches of (matches so far / rank), as scikit-learn's without ties; equally
    similar gallery images rank by index (on the CPU, rows that are exactly equal always tie). Queries without a match are not
    counted; with none left the scores are nan. Products in float32 at least. Holds at most 2^23 similarities at once, on a GPU
    2^28 (1 GiB) and, where Q > D, a copy of the gallery. Deterministic.

    Arguments:
        query, gallery: [Q, D], [G, D] float, one dtype; L2-normalised inside.
        query_pids, gallery_pids: [Q], [G] int32 or int64, persons; gallery images of pid -1 are junk and ignored.
        query_camids, gallery_camids: [Q], [G] int32 or int64, cameras; a gallery image of the query's person and camera is
            ignored.
        max_rank: length of cmc, at most 2^20; beyond the gallery's size cmc stays level.

    Returns:
        RankMetrics(mAP, cmc [max_rank] float64 on CPU, mINP, num_valid), with the attributes AP and INP [Q] float64 on CPU,
        nan for queries without a match.

    Gradient:
        None: not differentiable.

    Errors:
        TypeError, ValueError: an argument of the wrong type or shape, a feature that is not finite.

    Source:
        mAP and CMC as Zheng et al., ICCV 2015 (Market-1501); mINP: Ye et al., TPAMI 2021.
    """
    shapes = Shapes("rank_metrics")
    shapes.tensor("query", query, ("Q", "D"), ANY_FLOATS)
    shapes.tensor("gallery", gallery, ("G", "D"), (query.dtype,), device_of=("query", query))
    ids = _ids(shapes, query_pids, gallery_pids, query_camids, gallery_camids, query.device)
    rows = negated_cosines(shapes, ("query", query), ("gallery", gallery))
    return _scores("rank_metrics", rows, *ids, max_rank=_checked_rank("rank_metrics", max_rank))


def negated_cosines(
    shapes: Shapes, query: tuple[str, Tensor], gallery: tuple[str, Tensor], *, tied: bool = False
) -> Callable[[int, int], Tensor]:
    """A function that gives rows [first, last) of the negated cosines [Q, G] by which scores are ranked, of checked features with
    their names. Columns of equal gallery rows are equal on the CPU, and where `tied` asks for it on a GPU."""
    left = normalised(shapes.op, *query).neg_()  # the nearest has the largest product
    # Scaling the products passes over Q x G numbers, a copy of the gallery over G x D: on a GPU the copy where it is less.
    scales: Tensor | None = None
    if left.is_cuda and shapes["Q"] > shapes["D"]:
        right = normalised(shapes.op, *gallery)
    else:
        right, scales = with_scales(shapes.op, *gallery)
    copies = Copies.of(right) if tied or not right.is_cuda else None  # which a CPU's product may round differently

    def rows(first: int, last: int) -> Tensor:
        product = exact_product(left[first:last], right)
        if copies is not None:
            product[:, copies.copies] = product[:, copies.originals]
        return product if scales is None else product.mul_(scales)

    return rows


def rank_metrics_from_distances(
    distances: Tensor,
    query_pids: Tensor,
    gallery_pids: Tensor,
    query_camids: Tensor,
    gallery_camids: Tensor,
    *,
    max_rank: int = 50,
) -> RankMetrics:
    """Scores of ranking a gallery by given distances, smallest first. Deterministic.

    Arguments:
        distances: [Q, G] float of any kind, not NaN.
        query_pids, gallery_pids, query_camids, gallery_camids, max_rank: as in `rank_metrics`.

    Returns:
        RankMetrics, as `rank_metrics`.

    Gradient:
        None: not differentiable.

    Errors:
        TypeError, ValueError: an argument of the wrong type or shape, a distance that is NaN.
    """
    shapes = Shapes("rank_metrics_from_distances")
    shapes.tensor("distances", distances, ("Q", "G"), ANY_FLOATS)
    ids = _ids(shapes, query_pids, gallery_pids, query_camids, gallery_camids, distances.device)
    max_rank = _checked_rank("rank_metrics_from_distances", max_rank)

    def rows(first: int, last: int) -> Tensor:
        block = distances[first:last].detach()
        block = block if block.dtype in FLOATS else block.float()  # exact: order and ties are kept
        if bool(torch.isnan(block).any()):
            raise ValueError("rank_metrics_from_distances: distances must not be NaN, got NaN")
        return block

    return _scores("rank_metrics_from_distances", rows, *ids, max_rank=max_rank)


def rerank(query: Tensor, gallery: Tensor, *, k1: int = 20, k2: int = 6, lambda_value: float = 0.3) -> Tensor:
    """k-reciprocal re-ranking of squared Euclidean distances between L2-normalised features.

    What `gcl_fast.compat.re_ranking` gives for 2 - 2 cosine, without the three matrices: memory is the result and what is
    proportional to Q + G. Computed on the device of query; the sizes of sets are read on the host. Deterministic.

    Arguments:
        query, gallery: [Q, D], [G, D] float, one dtype; L2-normalised inside.
        k1: neighbours in a set.
        k2: rows averaged around each image.
        lambda_value: share of the original distance in the result, 0 to 1.

    Returns:
        distances: [Q, G] on the device of query, float32 (float64 for float64).

    Gradient:
        None: not differentiable.

    Errors:
        TypeError, ValueError: an argument of the wrong type, shape or range, a feature that is not finite.

    Source:
        Zhong et al., CVPR 2017, section 3.
    """
    shapes = Shapes("rerank")
    shapes.tensor("query", query, ("Q", "D"), ANY_FLOATS)
    shapes.tensor("gallery", gallery, ("G", "D"), (query.dtype,), device_of=("query", query))
    k1, k2 = integer("rerank", "k1", k1, 1), integer("rerank", "k2", k2, 1)
    lambda_value = float(shapes.number("lambda_value", lambda_value, 0.0, 1.0))
    x = torch.cat([normalised("rerank", "query", query), normalised("rerank", "gallery", gallery)])  # [Q + G, D]

    if not len(query) or not len(gallery):
        return x.new_zeros(len(query), len(gallery))

    def rows(first: int, last: int) -> Tensor:
        distance = (2 - 2 * exact_product(x[first:last], x)).clamp_(min=0).square_()  # [b, Q + G]
        itself = torch.arange(first, last, device=x.device)
        distance[itself - first, itself] = 0
        return scaled(distance)

    return rerank_rows(rows, len(query), len(gallery), k1, k2, lambda_value)


def scaled(distance: Tensor) -> Tensor:
    """Rows divided in place by their largest entry (rows of zeros stay)."""
    top = distance.amax(dim=1, keepdim=True).clamp_(min=0)
    return distance.div_(torch.where(top == 0, 1, top))


def rerank_rows(
    rows: Callable[[int, int], Tensor], num_query: int, num_gallery: int, k1: int, k2: int, lambda_value: float
) -> Tensor:
    """Re-ranked distances [Q, G] from a function that gives rows [first, last) of the scaled distances among all Q + G, not
    negative; neither Q nor G is 0."""
    total = num_query + num_gallery
    step = max(1, BLOCK // total)
    blocks = [(first, min(first + step, total)) for first in range(0, total, step)]
    rank = torch.cat([nearest_columns(rows(*block), min(max(k1 + 1, k2), total)) for block in blocks]).int()  # [Q + G, k]
    _native.require("rerank", rank.device)
    start, columns = expanded_sets(rank[:, : k1 + 1], k1)
    owner = torch.repeat_interleave(torch.arange(total, device=rank.device), start.diff(), output_size=len(columns))
    bounds, near, parts = [*start[::step].tolist()[: len(blocks)], len(columns)], [], []
    for (first, last), begin, end in zip(blocks, bounds, bounds[1:], strict=False):
        block = rows(first, last)
        near.append(block[owner[begin:end] - first, columns[begin:end].long()] / -2)  # the op doubles them
        parts.append(block[: max(0, num_query - first), num_query:] * lambda_value)
    weight = torch.cat(near)
    torch.ops.gcl_fast.softmax_rows_(start, weight)
    result = torch.cat(parts).add_(1 - lambda_value)  # [Q, G]
    row, column, share = overlap_terms(start, columns, weight, rank[:, :k2], num_query)
    inside = (column >= num_query).nonzero().flatten()
    flat, place = result.view(-1), row[inside] * num_gallery + column[inside] - num_query
    flat[place] -= (1 - lambda_value) * share[inside]
    return result


def nearest_columns(distance: Tensor, k: int) -> Tensor:
    """Columns of the k smallest entries of each row [b, N], which are not negative: [b, k] int64, ascending, ties by the lower
    column."""
    if distance.device.type == "cpu":
        return torch.from_numpy(_smallest(distance.numpy(), k))
    if distance.dtype != torch.float32:
        return distance.sort(dim=1, stable=True).indices[:, :k]
    bits = distance.view(torch.int32).long() << 32  # in the order of the numbers, as none is negative
    columns = torch.arange(distance.shape[1], device=distance.device)
    return (bits | columns).topk(k, dim=1, largest=False, sorted=True).values & 0xFFFFFFFF


def _smallest(distance: np.ndarray, k: int) -> np.ndarray:
    """`nearest_columns` on the CPU."""
    index = np.sort(np.argpartition(distance, k - 1, axis=1)[:, :k], axis=1)
    value = np.take_along_axis(distance, index, axis=1)
    index = np.take_along_axis(index, np.argsort(value, axis=1, kind="stable"), axis=1)
    tied = np.flatnonzero((distance <= value.max(axis=1, keepdims=True)).sum(axis=1) > k)
    if len(tied):
        index[tied] = np.argsort(distance[tied], axis=1, kind="stable")[:, :k]
    return index


def _ids(shapes: Shapes, qp: Tensor, gp: Tensor, qc: Tensor, gc: Tensor, device: torch.device) -> tuple[Tensor, ...]:
    for name, value, size in (
        ("query_pids", qp, "Q"),
        ("gallery_pids", gp, "G"),
        ("query_camids", qc, "Q"),
        ("gallery_camids", gc, "G"),
    ):
        shapes.tensor(name, value, (size,), INTEGERS)
    return tuple(t.to(device, torch.int64) for t in (qp, gp, qc, gc))


def _checked_rank(op: str, max_rank: int) -> int:
    if integer(op, "max_rank", max_rank, 1) > MAX_RANK:
        raise ValueError(f"{op}: max_rank must be at most {MAX_RANK}, got {max_rank}")
    return int(max_rank)


def _step(size: int, device: torch.device) -> int:
    """Queries whose distances to a gallery of this size are alive at once."""
    if device.type == "cpu":
        return max(1, BLOCK // max(size, 1))
    step = CUDA_BLOCK // max(size, 1)
    return max(1, step // ROWS * ROWS or step)


def _scores(
    op: str, rows: Callable[[int, int], Tensor], qp: Tensor, gp: Tensor, qc: Tensor, gc: Tensor, *, max_rank: int
) -> RankMetrics:
    """rows(first, last): distances [last - first, G] of these queries, float32 or float64."""
    total, size = len(qp), len(gp)
    if size > MAX_GALLERY:
        raise ValueError(f"{op}: the gallery must have fewer than 2^31 images, got {size}")
    _native.require(op, qp.device)
    step = _step(size, qp.device)
    starts = range(0, total if size else 0, step)
    distance = rows(0, min(step, total)) if len(starts) else None  # first, so that a GPU has work while the rest is prepared
    sorted_pids, order = torch.sort(gp, stable=True)  # [G], [G]
    begin, end = (torch.searchsorted(sorted_pids, qp, right=right) for right in (False, True))  # [Q]
    unranked = 0 if size else total  # queries before an empty gallery
    precisions, places = [begin.new_zeros(unranked, dtype=torch.float64)], [begin.new_zeros(unranked, 3)]
    for first in starts:
        part = slice(first, min(first + step, total))
        if distance is None:
            distance = rows(part.start, part.stop)  # [b, G]
        of_block = torch.ops.gcl_fast.ranking_scores(distance, qp[part], gp, qc[part], gc, order, begin[part], end[part])
        distance = None  # no two blocks at once
        precisions.append(of_block[0])
        places.append(of_block[1])
    precision, (count, best, worst) = torch.cat(precisions).cpu(), torch.cat(places).cpu().T
    valid = count > 0
    number = int(valid.sum())
    hits = torch.bincount((best[valid] - 1).clamp(max=max_rank), minlength=max_rank + 1)[:max_rank]  # first at rank r + 1
    AP = precision.where(valid, torch.nan)
    INP = (count.double() / worst.double()).where(valid, torch.nan)
    result = RankMetrics(float(AP[valid].mean()), hits.cumsum(0).double() / number, float(INP[valid].mean()), number)
    result.AP, result.INP = AP, INP
    return result


def _fake(
    distances: Tensor,
    query_pids: Tensor,
    gallery_pids: Tensor,
    query_camids: Tensor,
    gallery_camids: Tensor,
    order: Tensor,
    begin: Tensor,
    end: Tensor,
) -> tuple[Tensor, Tensor]:
    queries = distances.shape[0]
    return distances.new_empty(queries, dtype=torch.float64), distances.new_empty((queries, 3), dtype=torch.int64)


if _native.loaded:
    torch.library.register_fake("gcl_fast::ranking_scores", _fake)
