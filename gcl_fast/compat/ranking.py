"""`evaluate_rank` as torchreid and fast-reid call it, `re_ranking` as the many projects with Zhong et al.'s function call it."""

from __future__ import annotations

import numpy as np
import torch

from gcl_fast.ops._check import integer
from gcl_fast.ops.ranking import RankMetrics, rank_metrics_from_distances, rerank_rows, scaled

REPEATS = 10  # galleries drawn for each query


def evaluate_rank(
    distmat: np.ndarray,
    q_pids: np.ndarray,
    g_pids: np.ndarray,
    q_camids: np.ndarray,
    g_camids: np.ndarray,
    max_rank: int = 50,
    use_metric_cuhk03: bool = False,
    use_cython: bool = True,
) -> tuple[np.ndarray, np.float64]:
    """CMC curve and mAP of distances. Other versions return more: `evaluate_rank_fastreid`, `evaluate_rank_fastreid_means`.

    As torchreid: gallery images of the query's person and camera are removed, pid -1 is a person like any other, a
    gallery smaller than max_rank is noted on stdout and shortens the curve. Equal distances rank by gallery index (the
    original leaves their order open). Deterministic, but for use_metric_cuhk03.

    Arguments:
        distmat: [Q, G] float, array or tensor.
        q_pids, g_pids, q_camids, g_camids: [Q], [G], persons and cameras, arrays or tensors of any numbers.
        max_rank: length of the curve, at least 0.
        use_metric_cuhk03: draw the gallery of that single-shot protocol from numpy's global generator, ten times a query, as
            the original does; the mAP is the same as without it.
        use_cython: changes nothing.

    Returns:
        cmc [min(max_rank, G)] float32, mAP.

    Errors:
        AssertionError: no query has a match.
        ValueError: shapes that do not fit together, a distance that is NaN.
    """
    del use_cython
    cmc, result = _ranked(distmat, q_pids, g_pids, q_camids, g_camids, max_rank, single_shot=use_metric_cuhk03)
    return cmc, np.float64(result.mAP)


def evaluate_rank_fastreid(
    distmat: np.ndarray,
    q_pids: np.ndarray,
    g_pids: np.ndarray,
    q_camids: np.ndarray,
    g_camids: np.ndarray,
    max_rank: int = 50,
    use_metric_cuhk03: bool = False,
    use_cython: bool = True,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """CMC curve and each query's scores: `evaluate_rank` of today's fast-reid.

    Arguments and errors as `evaluate_rank`, also in lists. use_metric_cuhk03 changes the curve alone.

    Returns:
        cmc [min(max_rank, G)] float32, average precisions [V] float64 and inverse negative penalties [V] float64 of the V
        queries that have a match, in their order.
    """
    del use_cython
    cmc, result = _ranked(distmat, q_pids, g_pids, q_camids, g_camids, max_rank, single_shot=use_metric_cuhk03)
    precision, penalty = result.AP.numpy(), result.INP.numpy()
    valid = ~np.isnan(precision)
    return cmc, precision[valid], penalty[valid]


def evaluate_rank_fastreid_means(
    distmat: np.ndarray,
    q_pids: np.ndarray,
    g_pids: np.ndarray,
    q_camids: np.ndarray,
    g_camids: np.ndarray,
    max_rank: int = 50,
    use_metric_cuhk03: bool = False,
    use_cython: bool = True,
) -> tuple[np.ndarray, np.float64, np.float64]:
    """CMC curve, mAP and mINP: `evaluate_rank` of the fast-reid before.

    Arguments and errors as `evaluate_rank_fastreid`.

    Returns:
        cmc [min(max_rank, G)] float32, mAP, mINP.
    """
    del use_cython
    cmc, result = _ranked(distmat, q_pids, g_pids, q_camids, g_camids, max_rank, single_shot=use_metric_cuhk03)
    return cmc, np.float64(result.mAP), np.float64(result.mINP)


def _ranked(
    distmat: np.ndarray,
    q_pids: np.ndarray,
    g_pids: np.ndarray,
    q_camids: np.ndarray,
    g_camids: np.ndarray,
    max_rank: int,
    *,
    single_shot: bool,
) -> tuple[np.ndarray, RankMetrics]:
    """The curve as asked for, float32, and the scores; what all the functions above share."""
    distance, qp, gp, qc, gc = (_array(a) for a in (distmat, q_pids, g_pids, q_camids, g_camids))
    if distance.ndim != 2 or [np.shape(ids) for ids in (qp, gp, qc, gc)] != [(size,) for size in distance.shape * 2]:
        shapes = ", ".join(str(list(np.shape(a))) for a in (distance, qp, gp, qc, gc))
        raise ValueError(f"evaluate_rank: distmat must be [Q, G], persons and cameras [Q], [G], [Q], [G], got {shapes}")
    if distance.dtype not in (np.float32, np.float64):  # as torch reads them
        distance = distance.astype(np.float64)
    max_rank = integer("evaluate_rank", "max_rank", max_rank, 0)
    if distance.shape[1] < max_rank:
        max_rank = distance.shape[1]
        print(f"Note: number of gallery samples is quite small, got {max_rank}")
    (qp, gp), (qc, gc) = _numbered(qp, gp), _numbered(qc, gc)
    tensors = [torch.from_numpy(np.require(a, requirements=("C", "W"))) for a in (distance, qp, gp, qc, gc)]
    result = rank_metrics_from_distances(*tensors, max_rank=max(max_rank, 1))
    assert result.num_valid > 0, "Error: all query identities do not appear in gallery"
    cmc = _single_shot(distance, qp, gp, qc, gc, max_rank) if single_shot else result.cmc[:max_rank].numpy()
    return cmc.astype(np.float32), result


def _numbered(query: np.ndarray, gallery: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Any ids as numbers from 0, equal where the ids are."""
    if query.dtype != gallery.dtype and query.dtype.kind in "iu" and gallery.dtype.kind in "iu":
        query, gallery = query.astype(object), gallery.astype(object)  # int64 and uint64 would meet in float64
    number = np.unique(np.concatenate([query, gallery]), return_inverse=True)[1].ravel()
    return number[: len(query)], number[len(query) :]


def _single_shot(
    distance: np.ndarray, qp: np.ndarray, gp: np.ndarray, qc: np.ndarray, gc: np.ndarray, max_rank: int
) -> np.ndarray:
    """CMC over galleries of one random image a person, drawn in the order in which the ranking first meets the persons."""
    curves = []
    for q in range(len(distance)):
        ranking = np.argsort(distance[q], kind="stable")
        ranking = ranking[~((gp[ranking] == qp[q]) & (gc[ranking] == qc[q]))]
        person = gp[ranking]
        if not (person == qp[q]).any():
            continue
        firsts = np.sort(np.unique(person, return_index=True)[1])
        images = [np.flatnonzero(person == person[first]) for first in firsts]
        curve = np.zeros(max_rank)
        for _ in range(REPEATS):
            shown = np.sort([np.random.choice(choice) for choice in images])  # noqa: NPY002 - the original's generator
            curve[int(np.flatnonzero(person[shown] == qp[q])[0]) :] += 1
        curves.append(curve / REPEATS)
    mean: np.ndarray = np.mean(curves, axis=0)
    return mean


def re_ranking(
    q_g_dist: np.ndarray, q_q_dist: np.ndarray, g_g_dist: np.ndarray, k1: int = 20, k2: int = 6, lambda_value: float = 0.3
) -> np.ndarray:
    """k-reciprocal re-ranking of given distances.

    As the original: the distances are squared and each image's are divided by their largest; ranks and weights come
    from these. Equal distances rank by index (the original leaves their order open). Deterministic. Beyond the three
    matrices given, memory is the result and what is proportional to Q + G.

    Arguments:
        q_g_dist, q_q_dist, g_g_dist: [Q, G], [Q, Q], [G, G] float, arrays or tensors.
        k1: neighbours in a set.
        k2: rows averaged around each image.
        lambda_value: share of the original distance in the result.

    Returns:
        [Q, G] float32.

    Errors:
        ValueError: shapes that do not fit together, a number below 1, distances that are not finite or whose squares are not.

    Source:
        Zhong et al., CVPR 2017, section 3.
    """
    cross, within_query, within_gallery = (
        d.astype(np.float64) if d.dtype.kind in "biu" else d for d in map(_array, (q_g_dist, q_q_dist, g_g_dist))
    )
    if cross.ndim != 2:
        raise ValueError(f"re_ranking: q_g_dist must have shape [Q, G], got {list(cross.shape)}")
    num_query, num_gallery = cross.shape
    for name, value, size in (("q_q_dist", within_query, num_query), ("g_g_dist", within_gallery, num_gallery)):
        if value.shape != (size, size):
            expected = f"[{size}, {size}] as q_g_dist is {list(cross.shape)}"
            raise ValueError(f"re_ranking: {name} must have shape {expected}, got {list(value.shape)}")
    try:
        k1, k2 = int(k1), int(k2)
    except OverflowError as error:
        raise ValueError(f"re_ranking: k1 and k2 must be finite, got {k1} and {k2}") from error
    k1, k2 = integer("re_ranking", "k1", k1, 1), integer("re_ranking", "k2", k2, 1)

    if not num_query or not num_gallery:
        return np.zeros((num_query, num_gallery), dtype=np.float32)

    def rows(first: int, last: int) -> torch.Tensor:  # the original reads the columns of [[qq, qg], [qg.T, gg]]
        of_query = slice(first, min(last, num_query))
        of_gallery = slice(max(first - num_query, 0), max(last - num_query, 0))
        block = np.empty((last - first, num_query + num_gallery), dtype=np.float32)
        top = max(of_query.stop - first, 0)  # rows of queries
        for out, part in (
            (block[:top, :num_query], within_query[:, of_query].T),
            (block[:top, num_query:], cross[of_query]),
            (block[top:, :num_query], cross[:, of_gallery].T),
            (block[top:, num_query:], within_gallery[:, of_gallery].T),
        ):
            np.square(part, out=out, casting="same_kind")
        if not np.isfinite(block.max()):  # no number is below 0, and NaN is passed on
            raise ValueError("re_ranking: distances must be finite, and their squares in float32, got others")
        return scaled(torch.from_numpy(block))

    result: np.ndarray = rerank_rows(rows, num_query, num_gallery, k1, k2, float(lambda_value)).numpy()
    return result


def _array(value: np.ndarray | torch.Tensor) -> np.ndarray:
    """float32 of what is in half precision: NumPy has no bfloat16, and squares float16 in float16."""
    if isinstance(value, torch.Tensor):
        value = value.detach().cpu().resolve_neg()
        value = (value.float() if value.dtype == torch.bfloat16 else value).numpy()
    array = np.asarray(value)
    return array.astype(np.float32) if array.dtype == np.float16 else array
