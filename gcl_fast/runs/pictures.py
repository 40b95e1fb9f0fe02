"""What a finished run shows beside its training: scores of generated views, novel-view sheets, ranked lists."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor, nn

from gcl_fast.evaluation import extract_features
from gcl_fast.generation import mean_training_image, novel_view_sheet, score_novel_views
from gcl_fast.runs.dataset import Workspace
from gcl_fast.runs.folder import read_metrics, write_metrics
from gcl_fast.runs.networks import networks_of
from gcl_fast.visuals import ranked_lists_from_features, save_png


def score_views(run_dir: Path, space: Workspace, stage: str, truth: Path, mean: Tensor) -> None:
    """PSNR of the views a stage's generator makes, and SSIM where torchmetrics is installed, against the true ones in
    `truth`; mean: the mean training image."""
    _, networks, _ = networks_of(run_dir / stage / "last.pt")
    networks.encoder.to(space.device)
    networks.generator.to(space.device)
    size = space.config.image_size
    found = score_novel_views(
        networks.encoder,
        networks.generator,
        truth,
        space.test_meshes,
        size,
        space.device,
        mean_image=mean,
        with_ssim=find_spec("torchmetrics") is not None,
    )
    write_metrics(run_dir, {stage: found.as_metrics()})
    sheet = novel_view_sheet(
        networks.encoder,
        networks.generator,
        truth,
        space.test_meshes,
        size,
        space.device,
        title=f"{stage}: generated views beside the truth (people not trained on)",
    )
    save_png(run_dir / "pictures" / f"{stage}_novel_views.png", sheet)


@torch.no_grad()
def ranked_lists_picture(encoder: nn.Module, space: Workspace, path: Path, title: str) -> None:
    """Queries with their best matches: green right, red wrong."""
    data, config = space.data, space.config
    features = [
        extract_features(encoder, loader, len(records), batch_size=config.eval_batch_size, device=space.device, amp=space.bf16)
        for loader, records in zip(space.test_loaders(), (data.query, data.gallery), strict=True)
    ]
    picture = ranked_lists_from_features(
        *features, data.query, data.gallery, image_size=config.image_size, seed=config.seed, title=title
    )
    save_png(path, picture)


def scores_and_pictures(run_dir: Path, space: Workspace) -> None:
    """Complete metrics.json and pictures/ from the checkpoints that are there."""
    truth, metrics = Path(space.config.root) / "truth", read_metrics(run_dir)
    todo = [
        stage
        for stage in ("stage2", "stage3")
        if (run_dir / stage / "last.pt").exists() and "novel_view_psnr" not in metrics.get(stage, {})
    ]
    # Only where the data have true views of held-out people, and meshes to turn them by.
    if todo and (truth / "index.csv").is_file() and space.test_meshes is not None:
        mean = mean_training_image([record.path for record in space.data.train], space.config.image_size)
        for stage in todo:
            score_views(run_dir, space, stage, truth, mean)
    if space.data.query and space.data.gallery:
        for stage in ("stage1", "stage3"):
            path = run_dir / "pictures" / f"{stage}_ranked_lists.png"
            if (run_dir / stage / "last.pt").exists() and not path.exists():
                _, networks, _ = networks_of(run_dir / stage / "last.pt")
                ranked_lists_picture(networks.encoder.to(space.device), space, path, f"ranked lists after {stage}")
