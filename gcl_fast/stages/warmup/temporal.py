"""The time that people take from one camera to another: the temporal half of JVTC's joint similarity.

Sources: Wang et al., Spatial-Temporal Person Re-identification, AAAI 2019 (histogram, smoothing, logistic joint metric); Li and
Zhang, ECCV 2020 (estimated from clusters instead of identities).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from gcl_fast.errors import StageError
from gcl_fast.records import Record

CUT = 3.0  # standard deviations at which the Gaussian ends
STEEPNESS = 5.0


@dataclass(frozen=True)
class IntervalModel:
    """probability [C, C, T] float32: of a frame interval in bin t from the second camera (earlier) to the first (later), of one
    frame from the lower number to the higher; sums to 1 over t, or is 0 throughout where the clusters never joined the two.
    bin_frames: frames a bin."""

    probability: Tensor
    bin_frames: int

    def __call__(self, camera: Tensor, frame: Tensor, other_camera: Tensor, other_frame: Tensor) -> Tensor:
        """Probability of the interval between two images, pairwise (integer tensors that broadcast), either way the same; 0
        beyond the last bin."""
        difference = frame - other_frame
        is_later = (difference > 0) | ((difference == 0) & (camera >= other_camera))  # of one frame: as they were counted
        later, earlier = (torch.where(is_later, *pair) for pair in ((camera, other_camera), (other_camera, camera)))
        place, bins = difference.abs() // self.bin_frames, self.probability.shape[2]
        probability = self.probability[later, earlier, place.clamp_max(bins - 1)]
        return torch.where(place < bins, probability, 0)


def interval_model(
    cameras: Tensor | np.ndarray,
    frames: Tensor | np.ndarray,
    labels: Tensor | np.ndarray,
    *,
    bin_frames: int = 100,
    smooth_bins: float = 50.0,
    within_camera: Literal["released", "once"] = "once",
    num_cameras: int = 1,
) -> IntervalModel:
    """Estimate the intervals from clusters. Deterministic, and the same on every device: images are counted there, in whole
    numbers, and the histograms, which are as long for many images as for few, smoothed on the host.

    Arguments:
        cameras: [N] integers from 0.
        frames: [N] integers.
        labels: [N] integers, the cluster; -1 is left out.
        bin_frames: frames a bin.
        smooth_bins: standard deviation, in bins, of the Gaussian (cut at three) that smooths the histograms.
        within_camera: how the n > 1 images of a cluster in one camera count: "once": each after the first, once; "released":
            each, the first too, n times, as the authors' code has it.
        num_cameras: there are so many at least, as the images of a camera may all be left out.

    Returns: the intervals, normalised for each ordered pair of cameras, on the device of labels. Two cameras: the interval
        between the mean frames of a cluster in each. One camera: the intervals of a cluster's images to its first there.
    """
    cameras, frames, labels = (torch.as_tensor(x).long() for x in (cameras, frames, labels))
    keep = labels >= 0
    cameras, frames, labels = cameras[keep], frames[keep], labels[keep]
    number, clusters, bins = 1, 0, 1
    if len(labels):
        number, clusters, span = torch.stack([cameras.max() + 1, labels.max() + 1, frames.max() - frames.min()]).tolist()
        bins = span // bin_frames + 1
    number = max(number, num_cameras)
    histogram = torch.zeros(number, number, bins, dtype=torch.float64, device=labels.device)
    group = labels * number + cameras  # [N]
    _count_between(histogram, group, frames, clusters, bin_frames)
    _count_within(histogram, group, cameras, frames, bin_frames, within_camera)
    smooth = _smooth(histogram.cpu().numpy(), smooth_bins)
    total = smooth.sum(2, keepdims=True)
    probability = np.divide(smooth, total, out=smooth, where=total > 0).astype(np.float32)
    return IntervalModel(torch.from_numpy(probability).to(labels.device), bin_frames)


def _count_between(histogram: Tensor, group: Tensor, frames: Tensor, clusters: int, bin_frames: int) -> None:
    """Add the intervals between the mean frames of each cluster in two cameras; group [N]: cluster * cameras + camera."""
    number = len(histogram)
    count, total = (group.new_zeros(clusters * number).index_add_(0, group, x) for x in (torch.ones_like(group), frames))
    mean = (total.double() / count.clamp_min(1)).view(clusters, number)
    seen = (count > 0).view(clusters, number)
    camera = torch.arange(number, device=group.device)
    for later in range(number):
        difference = mean[:, later, None] - mean  # [clusters, cameras]
        ordered = (difference > 0) | ((difference == 0) & (camera < later))
        cluster, earlier = (ordered & seen[:, later, None] & seen).nonzero(as_tuple=True)
        place = torch.div(difference[cluster, earlier], bin_frames, rounding_mode="floor").long()
        histogram[later].index_put_((earlier, place), histogram.new_ones(()), accumulate=True)


def _count_within(
    histogram: Tensor, group: Tensor, cameras: Tensor, frames: Tensor, bin_frames: int, within_camera: Literal["released", "once"]
) -> None:
    """Add the intervals of each cluster's images to its first in the same camera."""
    order = frames.argsort(stable=True)
    order = order[group[order].argsort(stable=True)]
    _, place, sizes = torch.unique_consecutive(group[order], return_inverse=True, return_counts=True)
    starts = sizes.cumsum(0) - sizes  # the first image of each cluster in each camera
    bins = (frames[order] - frames[order][starts][place]) // bin_frames
    if within_camera == "released":
        weight = torch.where(sizes > 1, sizes, 0)[place]
    else:
        weight = torch.ones_like(order).index_fill_(0, starts, 0)
    camera = cameras[order]
    histogram.index_put_((camera, camera, bins), weight.double(), accumulate=True)


def _smooth(histogram: np.ndarray, deviation: float) -> np.ndarray:
    radius = int(CUT * deviation)
    kernel = np.exp(-0.5 * (np.arange(-radius, radius + 1) / deviation) ** 2)
    rows = histogram.reshape(-1, histogram.shape[2])
    smooth = np.stack([np.convolve(row, kernel)[radius : radius + len(row)] if row.any() else row for row in rows])
    return smooth.reshape(histogram.shape)


def joint_similarity(visual: Tensor, probability: Tensor) -> Tensor:
    """1 / (1 + exp(-5 s)) * 1 / (1 + 2 exp(-5 p)): visual similarity s and interval probability p, elementwise; in (0, 1)."""
    return torch.sigmoid(STEEPNESS * visual) / (1 + 2 * torch.exp(-STEEPNESS * probability))


def frames_of(records: Sequence[Record]) -> np.ndarray:
    """Frame numbers [N] of training images; StageError where the data set does not say them."""
    missing = [record for record in records if record.frame < 0]
    if missing:
        raise StageError(
            f"stage1 by jvtc needs frame numbers for its temporal similarity, and {len(missing)} of {len(records)} training "
            f"images have none, such as {missing[0].path.name}: expected names like 0002_c1s1_000451_03.jpg (Market-1501), "
            "0001_c7_f0106449.jpg (DukeMTMC-reID), 0367_010_10_0303noon_0606_2.jpg (MSMT17), or a column frame in train.csv; "
            "to train on visual similarity alone set stage1.jvtc.temporal_from above stage1.jvtc.epochs"
        )
    return np.array([record.frame for record in records], dtype=np.int64)
