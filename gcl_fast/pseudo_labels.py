"""From features to pseudo-labels: k-reciprocal Jaccard distance, then DBSCAN."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from gcl_fast import distributed
from gcl_fast.cluster_health import Advice, camera_agreement, cluster_line, cluster_warnings
from gcl_fast.errors import NoRadiusError
from gcl_fast.ops import _jaccard, _shared_neighbors
from gcl_fast.ops._check import ANY_FLOATS, INTEGERS, Shapes, integer
from gcl_fast.ops._rows import finite
from gcl_fast.ops._share import Share
from gcl_fast.ops.neighbors import SparseDistance, dbscan, jaccard_distance, jaccard_of_nearest

SMALLEST = 1e-6  # of the largest number of a column: a deviation no larger is rounding


@dataclass(frozen=True)
class PseudoLabels:
    """The result of a clustering.

    labels            [N] int64 on the device of the features: cluster 0 .. num_clusters - 1, -1 outlier
    num_clusters      clusters
    num_outliers      images labelled -1
    largest           images in the largest cluster (0 where there is none)
    eps               the radius that was used
    camera_agreement  adjusted mutual information of clusters and cameras: 1 where clusters are cameras, about 0 where they have
                      nothing to do with them; None where the cameras were not told, or all images are of one
    """

    labels: Tensor
    num_clusters: int
    num_outliers: int
    largest: int
    eps: float
    camera_agreement: float | None = None

    def line(self) -> str:
        """The figures in one line."""
        return cluster_line(
            images=len(self.labels),
            clusters=self.num_clusters,
            outliers=self.num_outliers,
            largest=self.largest,
            agreement=self.camera_agreement,
        )

    def warnings(self, most_clusters: int = 0, advice: Advice | None = None) -> list[str]:
        """What speaks against the clusters being people: one holds more than a fifth of the images, they follow cameras more
        than half, or there are less than a tenth of `most_clusters` (of earlier epochs; 0: none). Each is a sentence that says
        what to change; `advice` has the names of the settings."""
        return cluster_warnings(
            images=len(self.labels),
            clusters=self.num_clusters,
            largest=self.largest,
            agreement=self.camera_agreement,
            most_clusters=most_clusters,
            advice=advice or Advice(),
        )


def described(labels: Tensor, eps: float, cameras: Tensor | None = None) -> PseudoLabels:
    """Labels [N] of a clustering with their statistics; cameras [N] integers, where they are known."""
    here = labels.cpu()
    sizes = torch.bincount(here[here >= 0])
    return PseudoLabels(
        labels=labels,
        num_clusters=len(sizes),
        num_outliers=int((here < 0).sum()),
        largest=int(sizes.max()) if len(sizes) else 0,
        eps=eps,
        camera_agreement=None if cameras is None else camera_agreement(here.numpy(), cameras.cpu().numpy()),
    )


@torch.no_grad()
def remove_camera_bias(features: Tensor, cameras: Tensor) -> Tensor:
    """(x - mean) / deviation of features within each camera, then L2-normalised. Deterministic.

    What all images of a camera share (its colours, its background) no longer makes them neighbours. A camera of a single
    image, or of copies of one, takes mean and deviation of all images.

    Arguments:
        features: [N, D] floating.
        cameras: [N] integer.

    Returns: [N, D], of the features' dtype.
    Gradient: none.
    Errors: ValueError where a feature is not finite; TypeError, ValueError for a wrong type, shape or device.
    Source: Song, Park, Lee, Exploring the Camera Bias of Person Re-identification, ICLR 2025 (arXiv 2502.10195), debiased
        pseudo-labels.
    """
    shapes = Shapes("remove_camera_bias")
    shapes.tensor("features", features, ("N", "D"), ANY_FLOATS)
    shapes.tensor("cameras", cameras, ("N",), INTEGERS, device_of=("features", features))
    working = finite(shapes.op, "features", features)  # or they would count as features that do not vary
    result = torch.zeros_like(working)
    alone = torch.zeros_like(cameras, dtype=torch.bool)
    for camera in torch.unique(cameras).tolist():
        seen_by = cameras == camera  # [N]
        rows, varies = _standardised(working[seen_by])
        if bool(varies.any()):
            result[seen_by] = rows
        else:  # zero is as near to one image as to another
            alone |= seen_by
    if bool(alone.any()):
        result[alone] = _standardised(working)[0][alone]
    return torch.nn.functional.normalize(result, dim=1).to(features.dtype)


def _standardised(rows: Tensor) -> tuple[Tensor, Tensor]:
    """(x - mean) / deviation of each column [n, D], 0 where it does not vary; and which ones do [D]."""
    mean, deviation = rows.mean(0), rows.std(0, unbiased=False)
    varies = deviation > SMALLEST * rows.abs().amax(0)
    return torch.where(varies, (rows - mean) / deviation, 0), varies


def cluster(
    features: Tensor,
    *,
    k1: int = 30,
    k2: int = 6,
    eps: float = 0.55,
    rho: float | None = None,
    min_samples: int = 4,
    debias_cameras: Tensor | None = None,
    cameras: Tensor | None = None,
    share: bool = False,
) -> PseudoLabels:
    """Pseudo-labels of features: `jaccard_distance`, then `dbscan`. Deterministic.

    Arguments:
        features: [N, D] floating, L2-normalised inside.
        k1, k2: as in `gcl_fast.ops.jaccard_distance`.
        eps: DBSCAN's radius, above 0.
        rho: where given, in (0, 1], eps is not used but `eps_by_rho`.
        min_samples: as in `gcl_fast.ops.dbscan`.
        debias_cameras: [N] integer; where given, `remove_camera_bias` first.
        cameras: [N] integer, to say how far the clusters follow them; default: those of debias_cameras.
        share: the processes that torchrun started call it together with the same arguments, share the work
            (`labels_of_shares`) and all get the result.

    Returns: labels and their statistics; `PseudoLabels.warnings()` says what is wrong with them.
        Memory is proportional to the pairs within eps (to the share rho of all pairs, where that is given), and to N.
    Gradient: none.
    """
    if rho is None:
        Shapes("cluster").number("eps", eps, 0.0, open_low=True)
    if cameras is not None:
        Shapes("cluster").tensor("cameras", cameras, (len(features),), INTEGERS)
    if debias_cameras is not None:
        features = remove_camera_bias(features, debias_cameras)
    known = debias_cameras if cameras is None else cameras
    if share and distributed.world() > 1:
        own = features[distributed.fair_share(len(features))]
        return described(*labels_of_shares(own, k1=k1, k2=k2, eps=eps, rho=rho, min_samples=min_samples), known)
    if rho is None:
        distance, radius = jaccard_distance(features, k1, k2, max_distance=eps), float(eps)
    else:
        distance = jaccard_of_nearest(features, k1, k2, _fraction(rho))
        radius = min(eps_by_rho(distance, rho), distance.max_distance)  # a mean of equal numbers may round above them
    return described(dbscan(distance, radius, min_samples), radius, known)


def labels_of_shares(
    own: Tensor, *, k1: int = 30, k2: int = 6, eps: float = 0.55, rho: float | None = None, min_samples: int = 4
) -> tuple[Tensor, float]:
    """Clusters of images of which each of several processes (torchrun) has some; all call it together.

    The work is shared, and so is the memory for features and pairs: the number of images grows with the processes.
    Deterministic; the labels are those of one process, up to the rounding of products of blocks of another shape. (rho leaves
    out distances of 0, and two images with the same k2 neighbours are 0 or 1e-7 apart, as rounding has it: on the same
    features the radius may differ in the third digit, of few pairs more, as it may between CPU and CUDA.)

    Arguments:
        own: [n, D] floating, this process's features; rows are numbered through the processes in the order of their ranks.
        k1, k2, eps, rho, min_samples: as in `cluster`.

    Returns: labels [N] int64 of the images of all processes, on the device of own, and the radius; the same on each process.
    Gradient: none.
    Errors: as `cluster`, on every process.
    """
    fraction = None if rho is None else _fraction(rho)
    shapes = Shapes("labels_of_shares")
    shapes.tensor("own", own, ("n", "D"), ANY_FLOATS)
    radius = float(shapes.number("eps", eps, 0.0, open_low=True)) if rho is None else 0.0
    k1, k2, min_samples = (integer(shapes.op, *it, 1) for it in (("k1", k1), ("k2", k2), ("min_samples", min_samples)))
    wrong = int(distributed.sum_((~torch.isfinite(own).all(dim=1)).sum().cpu()))
    if wrong:  # seen by all, so that none waits
        raise ValueError(f"{shapes.op}: features must be finite, got NaN or infinity in {wrong} rows")
    share = Share(own)
    sets = _shared_neighbors.neighbour_sets(_shared_neighbors.unit_rows(own), k1, k2, share)
    if fraction is None:
        pairs = _shared_neighbors.own_pairs(sets, radius, share)
    else:
        pairs, _ = _jaccard.nearest_distances(sets, fraction, share.first, share.last, distributed.sum_)
        row = torch.repeat_interleave(torch.arange(share.first, share.last, device=own.device), pairs.indptr.diff())
        upper = share.gather(pairs.values[pairs.indices > row])
        radius = _mean_of_smallest(upper, share.total, fraction)
    if float(torch.tensor(radius, dtype=pairs.values.dtype, device="cpu")) >= 1:  # every pair is within it
        labels = torch.full((share.total,), 0 if share.total >= min_samples else -1, dtype=torch.int64, device=own.device)
        return labels, radius
    return _shared_neighbors.labels(pairs, radius, min_samples, share), radius


def _fraction(rho: float) -> float:
    return float(Shapes("eps_by_rho").number("rho", rho, 0.0, 1.0, open_low=True))


def eps_by_rho(distance: SparseDistance, rho: float) -> float:
    """Mean of the smallest share rho of the non-zero distances of unordered pairs (the CVPR 2021 code's rule).

    Arguments:
        distance: as `jaccard_distance` gives it.
        rho: in (0, 1]; the number of pairs is rounded half to even.

    Errors: NoRadiusError (a ValueError) where rho asks for no pair, or for more than the pairs that are less than 1 apart: the
        rest all are 1.0 and their mean would say nothing.
    """
    rho = _fraction(rho)
    above = distance.indices > distance.rows()
    return _mean_of_smallest(distance.values[above], distance.shape[0], rho)


def _mean_of_smallest(stored: Tensor, total: int, rho: float) -> float:
    """The rule of `eps_by_rho` for the stored distances of unordered pairs among `total` images."""
    pairs = total * (total - 1) // 2 - int((stored == 0).sum())
    wanted = int(np.around(rho * pairs))
    near = stored[(stored > 0) & (stored < 1)]
    if not 0 < wanted <= len(near):
        raise NoRadiusError(
            f"eps_by_rho: rho must ask for 1 to {len(near)} of {pairs} pairs (those with a distance between 0 and 1), "
            f"got rho={rho}, which asks for {wanted}"
        )
    # sorted: the same whatever else is stored
    if near.device.type == "cpu":
        return float(np.sort(np.partition(near.numpy(), wanted - 1)[:wanted]).mean(dtype=np.float64))
    return float(near.sort().values[:wanted].double().mean())


@torch.no_grad()
def centroids(features: Tensor, labels: Tensor) -> Tensor:
    """Mean feature of each cluster; nothing is normalised. Deterministic, also on CUDA (rows are added in order, in float32
    at least).

    Arguments:
        features: [N, D] floating.
        labels: [N] integer, -1 outlier.

    Returns: [C, D], C = largest label + 1.
    Gradient: none.
    Errors: ValueError where a label below the largest has no image.
    """
    shapes = Shapes("centroids")
    shapes.tensor("features", features, ("N", "D"), ANY_FLOATS)
    shapes.tensor("labels", labels, ("N",), INTEGERS, device_of=("features", features))
    order = labels.argsort(stable=True)
    order = order[labels[order] >= 0]
    if not len(order):
        return features.new_zeros(0, features.shape[1])
    sizes = torch.bincount(labels[order])  # [C]
    if bool((sizes == 0).any()):
        missing = int((sizes == 0).nonzero()[0])
        raise ValueError(f"centroids: labels must use every number up to the largest, got none of {missing}")
    rows = features[order].to(torch.promote_types(features.dtype, torch.float32))
    return torch.segment_reduce(rows, "mean", lengths=sizes, axis=0).to(features.dtype)
