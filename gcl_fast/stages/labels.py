"""Pseudo-labels of an epoch, as stages 1 and 3 make them."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from gcl_fast import distributed
from gcl_fast.cluster_health import Advice
from gcl_fast.config import ClusterConfig, TrainConfig
from gcl_fast.errors import NoRadiusError, StageError
from gcl_fast.progress import counted
from gcl_fast.pseudo_labels import PseudoLabels, cluster


@contextlib.contextmanager
def radius_named(stage: str, epoch: int, flag: str) -> Iterator[None]:
    """Inside, a share of the distances that gives no radius is a StageError that names its setting; flag: of the clusters."""
    try:
        yield
    except NoRadiusError as error:
        raise StageError(
            f"{stage}, epoch {epoch + 1}: clustering found no radius ({error}): change {flag}.rho, or give {flag}.rho None, and "
            f"the radius is {flag}.eps. {_takes_a_new_run(stage)}"
        ) from error


def _takes_a_new_run(stage: str) -> str:
    other = "under another --name, or with --overwrite"
    anew = other if stage == "stage1" else "of --stage 3 under another --name, with --init RUN/stage2"
    return f"A run keeps its settings (--resume refuses others): that takes a new one {anew}"


def epoch_labels(stage: str, epoch: int, features: Tensor, cameras: Tensor, rule: ClusterConfig) -> PseudoLabels:
    """Cluster features [N, D] of the training images (cameras [N]) by `rule`; StageError where there is nothing to train on."""
    with radius_named(stage, epoch, f"--{stage}.cluster"):
        clusters = cluster(
            features,
            k1=rule.k1,
            k2=rule.k2,
            eps=rule.eps,
            rho=rule.rho,
            min_samples=rule.min_samples,
            debias_cameras=cameras.to(features.device) if rule.debias_cameras else None,
            cameras=cameras,
            share=True,
        )
    if clusters.num_clusters < 2:
        # A lone cluster among more outliers is the first of a radius that is too small, not everybody.
        flag, small = f"--{stage}.cluster", clusters.num_outliers > clusters.largest
        radius = f"{flag}.eps (now {rule.eps:g})" if rule.rho is None else f"{flag}.rho (now {rule.rho:g})"
        more = f"lower {flag}.min-samples (now {rule.min_samples})" if small else f"lower {flag}.k1 (now {rule.k1})"
        advice = f"{'raise' if small else 'lower'} {radius}, or {more}"
        if stage != "stage1":
            advice += ", or warm the encoder up longer in stage 1"
        raise StageError(
            f"{stage}, epoch {epoch + 1}: clustering found {counted(clusters.num_clusters, 'cluster')} and "
            f"{counted(clusters.num_outliers, 'outlier')} "
            f"among {len(features)} images at eps {clusters.eps:.3f}; at least 2 clusters are needed: {advice}. "
            f"{_takes_a_new_run(stage)}"
        )
    return clusters


def from_first_rank(clustering: Callable[[], Sequence[PseudoLabels]], device: torch.device) -> list[PseudoLabels]:
    """Clusterings that only the first of several processes makes; their labels on `device`."""
    if distributed.world() == 1:
        return list(clustering())
    on_cpu = distributed.from_first(lambda: [replace(result, labels=result.labels.cpu()) for result in clustering()])
    return [replace(result, labels=result.labels.to(device)) for result in on_cpu]


def _better_start(config: TrainConfig | None) -> str:
    """What stage 1 could start from instead; empty where it starts from a whole encoder."""
    if config is not None and config.init:
        return ""
    if config is not None and config.model.weights != "none":
        return "start from an encoder trained on photos of people (--init FILE)"
    return "start from weights trained on photos (--model.weights imagenet or FILE)"


class ClusterWatch:
    """The clusterings of a stage, one after another: the figures of the last one, and what is wrong with it.

    Arguments:
        section: the settings it follows, such as "stage1.cluster".
        rule: those settings.
        config: of the run, and cameras [N], of the training images: what is so already is not advised.
    """

    def __init__(
        self, section: str, rule: ClusterConfig, *, config: TrainConfig | None = None, cameras: Tensor | None = None
    ) -> None:
        flag = f"--{section.replace('_', '-')}"
        debias = not rule.debias_cameras and (cameras is None or bool((cameras != cameras[:1]).any()))
        self.advice = Advice(
            eps=f"{flag}.eps (now {rule.eps:g})" if rule.rho is None else f"{flag}.rho (now {rule.rho:g})",
            k1=f"{flag}.k1 (now {rule.k1})",
            debias_cameras=f"{flag}.debias-cameras" if debias else "",
            start=_better_start(config) if section.startswith("stage1") else "warm the encoder up longer in stage 1",
        )
        self.most_clusters = 0
        self._notes: tuple[str, list[str]] = "", []

    def look(self, clusters: PseudoLabels) -> dict[str, float]:
        """Take in a new clustering; returns what the log shows of it."""
        self._notes = clusters.line(), clusters.warnings(self.most_clusters, self.advice)
        self.most_clusters = max(self.most_clusters, clusters.num_clusters)
        figures = {
            "clusters": float(clusters.num_clusters),
            "outliers": float(clusters.num_outliers),
            "largest_cluster": float(clusters.largest),
            "eps": float(clusters.eps),
        }
        agreement = clusters.camera_agreement
        return figures if agreement is None else {**figures, "camera_agreement": agreement}

    def take_notes(self) -> tuple[str, list[str]]:
        """What was not yet told of the last clustering: its figures in a line, and warnings; "" and none after that."""
        notes, self._notes = self._notes, ("", [])
        return notes
