"""Scores and pictures of a finished run beside its training: generated views against the truth, novel-view sheets, ranked
lists."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from torch import Tensor

from gcl_fast.evaluation import extract_features
from gcl_fast.generation import can_ssim, mean_training_image, novel_view_sheet, score_novel_views
from gcl_fast.meshes.sources import MeshSource
from gcl_fast.models.before_norm import BeforeNorm
from gcl_fast.models.identity import IdentityEncoder
from gcl_fast.runs.dataset import OpenedDataset
from gcl_fast.runs.folder import read_metrics, stage_checkpoint, write_metrics
from gcl_fast.runs.networks import as_scored, networks_of
from gcl_fast.runs.run_checks import unfinished
from gcl_fast.visuals import ranked_lists_from_features, save_png


def complete_run(run_dir: Path, dataset: OpenedDataset, trained: Collection[str] = ()) -> None:
    """Add to metrics.json and pictures/ what the finished stages that are there can still give.

    trained: stages that this call trained; what they gave before is out of date.
    """
    score_generators(run_dir, dataset, trained)
    picture_ranked_lists(run_dir, dataset, trained)


def _is_due(run_dir: Path, stage: str, trained: Collection[str], *, there: bool) -> bool:
    """Whether something is made of a stage: this call trained it, or it is finished and has none. One in the midst of its
    training would leave what its end does not renew."""
    path = stage_checkpoint(run_dir, stage)
    return stage in trained or (not there and path.exists() and not unfinished(path, int(stage.removeprefix("stage"))))


def score_generators(run_dir: Path, dataset: OpenedDataset, trained: Collection[str] = ()) -> None:
    """Score the generators of stages 2 and 3, where the data have true views of held-out people, and meshes to turn them by."""
    truth, meshes, metrics = Path(dataset.config.root) / "truth", dataset.test_meshes, read_metrics(run_dir)
    if meshes is None or not (truth / "index.csv").is_file():
        return
    todo = [
        stage
        for stage in ("stage2", "stage3")
        if _is_due(run_dir, stage, trained, there="novel_view_psnr" in metrics.get(stage, {}) and _sheet(run_dir, stage).exists())
    ]
    if not todo:
        return
    mean = mean_training_image([record.path for record in dataset.data.train], dataset.config.image_size)
    for stage in todo:
        score_generator(run_dir, dataset, meshes, stage, truth, mean)


def score_generator(
    run_dir: Path, dataset: OpenedDataset, meshes: MeshSource, stage: str, truth: Path, mean_image: Tensor
) -> None:
    """PSNR of the views that a stage's generator makes, and SSIM where torchmetrics is installed, against the true ones in
    `truth`, and a sheet of them. meshes: of the held-out images; mean_image [3, H, W]: of the training images."""
    _, networks, _ = networks_of(stage_checkpoint(run_dir, stage))
    device, size = dataset.device, dataset.config.image_size
    encoder, generator = networks.encoder.to(device), networks.generator.to(device)
    scores = score_novel_views(encoder, generator, truth, meshes, size, device, mean_image=mean_image, with_ssim=can_ssim())
    write_metrics(run_dir, {stage: scores.as_metrics()})
    title = f"{stage}: generated views beside the truth (people not trained on)"
    sheet = novel_view_sheet(encoder, generator, truth, meshes, size, device, title=title)
    save_png(_sheet(run_dir, stage), sheet)  # after the scores: a call that was killed between the two left none


def _sheet(run_dir: Path, stage: str) -> Path:
    return run_dir / "pictures" / f"{stage}_novel_views.png"


def picture_ranked_lists(run_dir: Path, dataset: OpenedDataset, trained: Collection[str] = ()) -> None:
    """A picture for each trained identity encoder that has none yet, or an old one."""
    if not dataset.can_score:
        return
    for stage in ("stage1", "stage3"):
        path = run_dir / "pictures" / f"{stage}_ranked_lists.png"
        if _is_due(run_dir, stage, trained, there=path.exists()):
            config, networks, _ = networks_of(stage_checkpoint(run_dir, stage))
            encoder = as_scored(networks.encoder.to(dataset.device), config, stage)
            ranked_lists_picture(encoder, dataset, path, f"ranked lists after {stage}")


def ranked_lists_picture(encoder: IdentityEncoder | BeforeNorm, dataset: OpenedDataset, path: Path, title: str) -> None:
    """Queries with their best matches: green right, red wrong."""
    data, config = dataset.data, dataset.config
    query_features, gallery_features = (
        extract_features(
            encoder, loader, len(records), batch_size=config.eval_batch_size, device=dataset.device, amp=dataset.bf16
        )
        for loader, records in zip(dataset.test_loaders(), (data.query, data.gallery), strict=True)
    )
    picture = ranked_lists_from_features(
        query_features,
        gallery_features,
        data.query,
        data.gallery,
        image_size=config.image_size,
        seed=config.seed,
        title=title,
        same_camera=config.same_camera,
        label=data.caption,
    )
    save_png(path, picture)
