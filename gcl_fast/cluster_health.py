"""Whether clusters can be people: how far they follow cameras, and when to warn, in words that say what to change."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from gcl_fast.progress import counted

LARGEST_SHARE = 1 / 5
"""Of the images in one cluster, above which it cannot be one person."""
CAMERA_AGREEMENT = 0.5
"""Agreement of clusters with cameras above which they show cameras rather than people."""
FALL = 10
"""Clusters have collapsed when there are fewer than this part of the most there were."""


def adjusted_mutual_information(first: Sequence[int] | np.ndarray, second: Sequence[int] | np.ndarray) -> float:
    """Agreement of two labellings of the same images: 1 where they are the same, about 0 where they have nothing to do with
    each other (below it by chance). Exact, deterministic.

    Arguments:
        first, second: [N] integers.

    Returns: (I - E[I]) / ((H(first) + H(second)) / 2 - E[I]): I the mutual information, H the entropies, E[I] what two random
        labellings of the same cluster sizes would have.
    Errors: ValueError where the two differ in length.
    Source: Vinh, Epps, Bailey, JMLR 2010, eq. 24 and table 2 (the mean of the entropies as upper bound).
    """
    a, b = np.asarray(first), np.asarray(second)
    if a.shape != b.shape or a.ndim != 1:
        raise ValueError(f"adjusted_mutual_information: both must be [N], got {list(a.shape)} and {list(b.shape)}")
    _, row = np.unique(a, return_inverse=True)
    _, column = np.unique(b, return_inverse=True)
    rows, columns = np.bincount(row), np.bincount(column)  # sizes of the clusters
    total = len(a)
    if len(rows) == len(columns) and len(rows) in (0, 1, total):  # nothing is left to chance, and the two are the same
        return 1.0
    joint = np.unique(row.astype(np.int64) * len(columns) + column, return_counts=True)
    cells, counts = joint[0], joint[1].astype(np.float64)
    expected_count = rows[cells // len(columns)].astype(np.float64) * columns[cells % len(columns)] / total
    information = float((counts / total * np.log(counts / expected_count)).sum())
    chance = _expected_information(rows, columns, total)
    room = (_entropy(rows) + _entropy(columns)) / 2 - chance
    return (information - chance) / room if abs(room) > 1e-15 else 0.0


def _entropy(sizes: np.ndarray) -> float:
    share = sizes / sizes.sum()
    return float(-(share * np.log(share)).sum())


def _expected_information(rows: np.ndarray, columns: np.ndarray, total: int) -> float:
    """The mean mutual information of all pairs of labellings with these cluster sizes. Clusters of one size count together."""
    log_factorial = np.concatenate([[0.0], np.log(np.arange(1, total + 1)).cumsum()])
    expected = 0.0
    for (a, times_a), (b, times_b) in ((x, y) for x in _sizes(rows) for y in _sizes(columns)):
        shared = np.arange(max(1, a + b - total), min(a, b) + 1)  # images that two such clusters may share
        probability = np.exp(  # hypergeometric
            log_factorial[[a, b, total - a, total - b]].sum()
            - log_factorial[total]
            - log_factorial[shared]
            - log_factorial[a - shared]
            - log_factorial[b - shared]
            - log_factorial[total - a - b + shared]
        )
        value = shared / total * np.log(total * shared / (a * b))
        expected += times_a * times_b * float((value * probability).sum())
    return expected


def _sizes(sizes: np.ndarray) -> list[tuple[int, int]]:
    """(size, how many clusters have it)."""
    values, counts = np.unique(sizes, return_counts=True)
    return list(zip(values.tolist(), counts.tolist(), strict=True))


def camera_agreement(labels: np.ndarray, cameras: np.ndarray) -> float | None:
    """Agreement (0 to 1) of clusters with cameras over the clustered images; None where there is one camera, or no cluster.

    Arguments:
        labels: [N] integers, -1 for an outlier.
        cameras: [N] integers.
    """
    kept = labels >= 0
    if not kept.any() or len(np.unique(cameras[kept])) < 2:
        return None
    return adjusted_mutual_information(labels[kept], cameras[kept])


@dataclass(frozen=True)
class Advice:
    """How the settings are called where the clustering was asked for, and which of them are used already.

    eps, k1, debias_cameras  names, as a user changes them; "" for one that cannot be changed there
    start                    what to do about the network's start
    """

    eps: str = "eps"
    k1: str = "k1"
    debias_cameras: str = "debias_cameras"
    start: str = "start from a network trained on photos"


def cluster_warnings(
    *, images: int, clusters: int, largest: int, agreement: float | None = None, most_clusters: int = 0, advice: Advice = Advice()
) -> list[str]:
    """What speaks against these clusters being people, each a sentence with what to change; none where nothing does.

    Arguments:
        images: clustered and not.
        clusters, largest: how many, and the images of the largest.
        agreement: of clusters with cameras, as `camera_agreement` has it.
        most_clusters: the most that an earlier epoch of the same training had; 0: nothing to compare with.
        advice: names of the settings.
    """
    found = []
    smaller = _either(f"lower {advice.eps}", f"lower {advice.k1}" if advice.k1 else "")
    debias = f"set {advice.debias_cameras}" if advice.debias_cameras else ""
    if clusters and largest > LARGEST_SHARE * images:
        words = f"one cluster holds {largest:,} of {images:,} images ({largest / images:.0%}), hardly one person"
        found.append(f"{words}: {_either(smaller, debias, advice.start)}")
    if agreement is not None and agreement > CAMERA_AGREEMENT:
        words = f"clusters follow cameras (agreement {agreement:.2f} of 1): a camera's pictures are taken for a person"
        found.append(f"{words}: {_either(debias, smaller, advice.start)}")
    if clusters * FALL < most_clusters:
        words = f"{counted(clusters, 'cluster')} where there were {most_clusters:,}: features have lost what told people apart"
        found.append(f"{words}: {_either(smaller, debias, advice.start)}, or lower the learning rate")
    return found


def _either(*choices: str) -> str:
    return ", or ".join(choice for choice in choices if choice)


def cluster_line(*, images: int, clusters: int, outliers: int, largest: int, agreement: float | None) -> str:
    """The figures of a clustering in one line."""
    share = f" ({largest / images:.0%})" if images else ""
    line = f"{counted(clusters, 'cluster')} · {counted(outliers, 'outlier')} · largest {largest:,} of {images:,} images{share}"
    return line if agreement is None else f"{line} · agreement with cameras {agreement:.2f}"
