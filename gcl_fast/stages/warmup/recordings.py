"""JVTC's labels where the images come from several recordings, each with a clock of its own (MSMT17: morning, noon and afternoon
of four days)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from gcl_fast.config import JVTCConfig
from gcl_fast.errors import NoRadiusError
from gcl_fast.pseudo_labels import PseudoLabels, described
from gcl_fast.records import Record
from gcl_fast.stages.warmup.joint_labels import joint_labels


def recordings_of(records: Sequence[Record]) -> np.ndarray:
    """The recording of each image, numbered from 0 in sorted order [N] int64; all 0 where the names do not tell."""
    numbers = {name: number for number, name in enumerate(sorted({record.recording for record in records}))}
    return np.array([numbers[record.recording] for record in records], dtype=np.int64)


@torch.no_grad()
def labels_by_rule(
    features: Tensor, cameras: Tensor, frames: Tensor, rule: JVTCConfig, recordings: Tensor | None = None
) -> tuple[PseudoLabels, PseudoLabels]:
    """Clusters by joint similarity, and the visual ones that the intervals were estimated from, as `joint_labels` has them.

    Arguments:
        features: [N, D] floating.
        cameras, frames: [N] int64.
        recordings: [N] int64 from 0; where given, each recording has clusters of its own, by rule.recording_rho without
            rule.eps_scale, and the images of one so small that this gives no radius have none; None: there is one.

    Source: Li and Zhang, ECCV 2020, and for the recordings their code for MSMT17.
    """
    if recordings is None:
        return _labels(features, cameras, frames, rule, rule.eps_scale)
    within = replace(rule, cluster=replace(rule.cluster, rho=rule.recording_rho)) if rule.cluster.rho is not None else rule
    parts = [torch.full((len(features),), -1, dtype=torch.int64, device=features.device) for _ in range(2)]
    radius: list[list[float]] = []
    too_small: NoRadiusError | None = None
    for recording in range(int(recordings.max()) + 1):
        chosen = (recordings == recording).nonzero().flatten()
        try:
            found = _labels(features[chosen], cameras[chosen], frames[chosen], within, 1.0)
        except NoRadiusError as error:
            too_small = error
            continue
        for labels, clusters in zip(parts, found, strict=True):
            here = clusters.labels.to(labels.device)
            labels[chosen] = torch.where(here < 0, -1, here + labels.max() + 1)
        radius.append([clusters.eps for clusters in found])
    if too_small is not None and not radius:
        raise NoRadiusError(f"in each recording, by stage1.jvtc.recording_rho {rule.recording_rho:g}, {too_small}")
    joint, visual = (
        described(labels, float(np.mean(eps)), cameras) for labels, eps in zip(parts, zip(*radius, strict=True), strict=True)
    )
    return joint, visual


def _labels(
    features: Tensor, cameras: Tensor, frames: Tensor, rule: JVTCConfig, eps_scale: float
) -> tuple[PseudoLabels, PseudoLabels]:
    return joint_labels(
        features,
        cameras,
        frames,
        rule.cluster,
        eps_scale,
        bin_frames=rule.bin_frames,
        smooth_bins=rule.smooth_bins,
        candidates=rule.candidates,
        within_camera=rule.within_camera,
        euclidean_share=rule.euclidean_share,
        joint_share=rule.joint_share,
    )
