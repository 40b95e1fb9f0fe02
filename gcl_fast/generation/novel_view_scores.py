"""How near generated novel views come to the true ones, beside guesses that need no generator."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from gcl_fast.generation.decoding import novel_views
from gcl_fast.generation.inputs import load_photos, load_units, render_meshes
from gcl_fast.images import photo_to_unit
from gcl_fast.visuals.grids import novel_view_grid

COLUMNS = ("source", "yaw", "image", "background")
BODY_LEVEL = 0.02  # a pixel is body where its guiding mesh, in [0, 1], is brighter (rendered JPEGs ring around 0)
PSNR_CEILING = 100.0  # dB, for equal images


@dataclass(frozen=True)
class TrueView:
    """One row of truth/index.csv: the dataset photo, the angle, its true picture, the background without the person."""

    source: Path
    yaw: float
    image: Path
    background: Path


@dataclass(frozen=True)
class NovelViewScores:
    """PSNR in dB on RGB in [0, 1], the mean over images of each image's own PSNR; all on the same `num_images` images,
    the turned ones (yaw other than 0).

    psnr                   the generated views
    psnr_blank_background  the camera's background without a person, as a guess
    psnr_mean_image        the mean training image, as a guess
    psnr_source_image      the unturned photo itself, as a guess
    psnr_body, psnr_body_mean_image, psnr_body_source_image   the same inside the silhouette of the turned mesh
    psnr_same_view         generated at yaw 0 against the true picture of that view; NaN where the truth has none
    per_yaw                angle in degrees -> psnr of the generated views
    ssim, ssim_mean_image, ssim_source_image   structural similarity of the same guesses; NaN unless asked for
    """

    psnr: float
    psnr_blank_background: float
    psnr_mean_image: float
    psnr_source_image: float
    psnr_body: float
    psnr_body_mean_image: float
    psnr_body_source_image: float
    psnr_same_view: float
    per_yaw: dict[float, float]
    num_images: int
    num_sources: int
    ssim: float = float("nan")
    ssim_mean_image: float = float("nan")
    ssim_source_image: float = float("nan")

    def as_metrics(self) -> dict[str, Any]:
        """For metrics.json, under "stage2"."""
        same_view = {} if np.isnan(self.psnr_same_view) else {"same_view_psnr": self.psnr_same_view}
        ssim = (
            {}
            if np.isnan(self.ssim)
            else {
                "novel_view_ssim": self.ssim,
                "mean_image_ssim": self.ssim_mean_image,
                "source_image_ssim": self.ssim_source_image,
            }
        )
        return {
            **same_view,
            **ssim,
            "novel_view_psnr": self.psnr,
            "blank_background_psnr": self.psnr_blank_background,
            "mean_image_psnr": self.psnr_mean_image,
            "source_image_psnr": self.psnr_source_image,
            "novel_view_psnr_body": self.psnr_body,
            "mean_image_psnr_body": self.psnr_body_mean_image,
            "source_image_psnr_body": self.psnr_body_source_image,
            "novel_view_psnr_per_yaw": {f"{yaw:g}": value for yaw, value in self.per_yaw.items()},
            "novel_view_images": self.num_images,
        }


def psnr(guess: Tensor, truth: Tensor, mask: Tensor | None = None) -> Tensor:
    """Peak signal-to-noise ratio of each image in dB, peak 1: -10 log10(mean squared error), at most 100.

    guess, truth [..., 3, H, W] in [0, 1]; mask [..., 1, H, W] bool restricts it to those pixels (NaN where none) -> [...]
    """
    error = (guess.double() - truth.double()).square()  # [..., 3, H, W]
    if mask is None:
        mean = error.mean(dim=(-3, -2, -1))
    else:
        weight = mask.expand_as(error).double()
        mean = (error * weight).sum(dim=(-3, -2, -1)) / weight.sum(dim=(-3, -2, -1))
    return -10 * mean.clamp_min(10 ** (-PSNR_CEILING / 10)).log10()


def read_truth(truth_dir: str | Path) -> list[TrueView]:
    """The rows of `<world>/truth/index.csv`; its paths are relative to the world's root. Missing files are errors."""
    truth_dir = Path(truth_dir)
    index, root = truth_dir / "index.csv", truth_dir.parent
    if not index.is_file():
        raise FileNotFoundError(f"{index}: expected the list of true views here (columns {', '.join(COLUMNS)}), found nothing")
    views = []
    with index.open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        lacking = [c for c in COLUMNS if c not in (reader.fieldnames or [])]
        if lacking:
            raise ValueError(f"{index}: expected columns {', '.join(COLUMNS)}, lacking {', '.join(lacking)}")
        for row in reader:
            try:
                yaw = float(row["yaw"])
            except (TypeError, ValueError):
                raise ValueError(f"{index}, line {reader.line_num}: yaw: expected degrees, got {row['yaw']!r}") from None
            paths = {c: root / (row[c] or "") for c in ("source", "image", "background")}
            for column, path in paths.items():
                if not path.is_file():
                    raise FileNotFoundError(f"{path}: named as {column} in {index}, line {reader.line_num}, but not found")
            views.append(TrueView(yaw=yaw, **paths))
    if not views:
        raise ValueError(f"{index}: expected at least one true view, found none")
    return views


def mean_training_image(paths: Sequence[str | Path], image_size: tuple[int, int]) -> Tensor:
    """The pixelwise mean of image files (the training images): RGB [3, H, W] float32 in [0, 1]."""
    if not len(paths):
        raise ValueError("paths: expected at least one image, got none")
    total = torch.zeros(3, *image_size, dtype=torch.float64)
    for path in paths:
        total += load_units([path], image_size)[0]
    return (total / len(paths)).float()


def _by_source(views: Iterable[TrueView]) -> dict[Path, list[TrueView]]:
    groups: dict[Path, list[TrueView]] = {}
    for view in views:
        groups.setdefault(view.source, []).append(view)
    return groups


def _generate(encoder, generator, source: Path, views: list[TrueView], mesh_source, image_size, device):
    """The photo [1, 3, H, W] normalised, meshes [1, R, 1, H, W] and generated views [1, R, 3, H, W], on the device."""
    photo = load_photos([source], image_size).to(device)
    meshes = render_meshes(mesh_source, [SimpleNamespace(path=source)], [v.yaw for v in views]).to(device)
    return photo, meshes, novel_views(encoder, generator, photo, meshes)


def score_novel_views(
    encoder: nn.Module,
    generator: nn.Module,
    truth_dir: str | Path,
    mesh_source: Any,
    image_size: tuple[int, int],
    device: torch.device | str = "cpu",
    *,
    mean_image: Tensor,
    with_ssim: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> NovelViewScores:
    """Generate every true view of `truth_dir` from its dataset photo and compare.

    mesh_source  render(record, yaws) -> [R, H, W] in [0, 1], for the split the photos belong to
    mean_image   [3, H, W] RGB in [0, 1], the mean of the training images (see `mean_training_image`)
    with_ssim    SSIM, too (needs torchmetrics)
    progress     called with (photos done, photos in all)
    True pictures of another size are resized (bicubic). Deterministic; no gradient. Errors name missing files.
    """
    if tuple(mean_image.shape) != (3, *image_size):
        raise ValueError(f"mean_image: expected shape {[3, *image_size]}, got {list(mean_image.shape)}")
    if with_ssim:
        from gcl_fast.generation.quality import ssim
    groups = _by_source(read_truth(truth_dir))
    scores: dict[str, list[Tensor]] = {}
    yaws: list[float] = []
    for done, (source, views) in enumerate(groups.items(), 1):
        photo, meshes, made = _generate(encoder, generator, source, views, mesh_source, image_size, device)
        truth = load_units([v.image for v in views], image_size).to(device)  # [R, 3, H, W]
        empty = load_units([v.background for v in views], image_size).to(device)
        body = meshes[0] * 0.5 + 0.5 > BODY_LEVEL  # [R, 1, H, W]
        guesses = {
            "psnr": photo_to_unit(made[0]),
            "psnr_blank_background": empty,
            "psnr_mean_image": mean_image.to(device).expand_as(truth),
            "psnr_source_image": photo_to_unit(photo).expand_as(truth),
        }
        for name, guess in guesses.items():
            scores.setdefault(name, []).append(psnr(guess, truth).cpu())
            if name != "psnr_blank_background":
                scores.setdefault(name.replace("psnr", "psnr_body", 1), []).append(psnr(guess, truth, body).cpu())
                if with_ssim:
                    scores.setdefault(name.replace("psnr", "ssim", 1), []).append(ssim(guess, truth).cpu())
        yaws += [v.yaw for v in views]
        if progress is not None:
            progress(done, len(groups))
    everything = {name: torch.cat(values).numpy() for name, values in scores.items()}  # one value a true view
    angles = np.array(yaws) % 360
    turned, views_made = angles != 0, everything["psnr"]
    if not turned.any():
        raise ValueError(f"{truth_dir}: expected true views at angles other than 0, found none")
    means = {name: float(np.nanmean(values[turned])) for name, values in everything.items()}
    return NovelViewScores(
        **means,
        psnr_same_view=float("nan") if turned.all() else float(views_made[~turned].mean()),
        per_yaw={float(a): float(views_made[angles == a].mean()) for a in np.unique(angles[turned])},
        num_images=int(turned.sum()),
        num_sources=len(groups),
    )


def novel_view_sheet(
    encoder: nn.Module,
    generator: nn.Module,
    truth_dir: str | Path,
    mesh_source: Any,
    image_size: tuple[int, int],
    device: torch.device | str = "cpu",
    *,
    num: int = 4,
    seed: int = 0,
    title: str | None = None,
) -> np.ndarray:
    """Sheet of `num` photos drawn at random (by `seed`): meshes, generated views and the truth. uint8 [H', W', 3]."""
    groups = _by_source(read_truth(truth_dir))
    angles = sorted({v.yaw for views in groups.values() for v in views})
    complete = [s for s, views in groups.items() if sorted(v.yaw for v in views) == angles]
    if not complete:
        raise ValueError(f"{truth_dir}: expected a photo with true views at all of {angles} degrees, found none")
    order = np.random.Generator(np.random.Philox(seed)).permutation(len(complete))[:num]
    photos, meshes, made, truths, names = [], [], [], [], []
    for source in (complete[i] for i in sorted(order)):
        views = sorted(groups[source], key=lambda v: v.yaw)
        photo, guide, images = _generate(encoder, generator, source, views, mesh_source, image_size, device)
        photos.append(photo)
        meshes.append(guide)
        made.append(images)
        truths.append(load_photos([v.image for v in views], image_size)[None])
        names.append(source.stem)
    return novel_view_grid(
        torch.cat(photos), torch.cat(made), angles, torch.cat(truths), torch.cat(meshes), row_titles=names, title=title
    )
