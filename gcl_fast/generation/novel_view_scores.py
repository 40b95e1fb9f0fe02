"""How near generated novel views come to the true ones, beside guesses that need no generator."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from gcl_fast.errors import InputError
from gcl_fast.generation.decoding import novel_views
from gcl_fast.generation.inputs import bodies_for, load_photos, load_units, render_meshes
from gcl_fast.generation.measures import psnr, ssim
from gcl_fast.generation.true_views import TrueView, by_source, read_truth
from gcl_fast.generation.warps import carried_views, warped_views
from gcl_fast.guides import Bodies
from gcl_fast.images import mesh_to_unit, photo_to_unit
from gcl_fast.meshes import MeshSource, VertexMeshes
from gcl_fast.models import Generator, IdentityEncoder
from gcl_fast.records import Record
from gcl_fast.visuals.grids import novel_view_grid

GENERATED = "novel_view"
BODY_LEVEL = 0.02  # a pixel is body where its guiding mesh, in [0, 1], is brighter (rendered JPEGs ring around 0)


@dataclass(frozen=True)
class NovelViewScores:
    """How near generated views come to the true ones, and how near guesses come that need no generator.

    Each score is named as in metrics.json: who made the view ("novel_view", the generator's; "mean_image", the mean
    training image; "blank_background", the scene without a person; "source_image", the photo, not turned; "carried_pixels", where
    meshes have vertices, the photo's pixels carried by them, nothing painted: what a guided generator is given), then the measure
    ("psnr", dB on RGB in [0, 1], the mean over images of each image's own; "psnr_body", inside the silhouette of the turned
    mesh; "ssim" in [-1, 1], where asked for): "novel_view_psnr_body".

    mean        name -> mean over the turned views (yaw other than 0)
    per_yaw     name -> {degrees: mean over the views of that yaw}
    same_view   name -> mean over the views at yaw 0, a reconstruction; empty where the truth has none
    num_images  turned views; num_sources: photos they are made from
    """

    mean: dict[str, float]
    per_yaw: dict[str, dict[float, float]]
    same_view: dict[str, float]
    num_images: int
    num_sources: int

    def as_metrics(self) -> dict[str, float | dict[str, float]]:
        """For metrics.json, under the stage: every mean, "<name>_per_yaw", "novel_view_images", and "same_view_psnr" and
        its like."""
        metrics: dict[str, float | dict[str, float]] = {**self.mean}
        for name, values in self.per_yaw.items():
            metrics[f"{name}_per_yaw"] = {f"{yaw:g}": value for yaw, value in values.items()}
        for name, value in self.same_view.items():
            if name.startswith(GENERATED):
                metrics[name.replace(GENERATED, "same_view")] = value
        return {**metrics, "novel_view_images": self.num_images}


@dataclass(frozen=True)
class ViewMaker:
    """The networks that turn a photo, the meshes they turn it by, and where they run.

    mesh_source: for the split the photos belong to; image_size: (H, W)."""

    encoder: IdentityEncoder
    generator: Generator
    mesh_source: MeshSource
    image_size: tuple[int, int]
    device: torch.device | str

    def views(self, source: Path, yaws: Sequence[float]) -> tuple[Tensor, Tensor, Tensor]:
        """The photo [1, 3, H, W] normalised, meshes [1, R, 1, H, W] and generated views [1, R, 3, H, W], on the device."""
        photo = load_photos([source], self.image_size).to(self.device)
        record = Record(path=source, pid=-1, camera=-1)  # a mesh is found by the path alone
        meshes = render_meshes(self.mesh_source, [record], yaws).to(self.device)
        bodies = bodies_for(self.generator, self.mesh_source, [record], self.device)
        return photo, meshes, novel_views(self.encoder, self.generator, photo, meshes, bodies=bodies, yaws=yaws)

    def units(self, paths: Sequence[Path]) -> Tensor:
        """[R, 3, H, W] RGB in [0, 1], on the device."""
        return load_units(paths, self.image_size).to(self.device)


def _scores_of_photo(
    maker: ViewMaker, source: Path, views: Sequence[TrueView], mean_image: Tensor, with_ssim: bool
) -> dict[str, Tensor]:
    """Names of `NovelViewScores` -> one value a true view, [R]."""
    yaws = [view.yaw for view in views]
    photo, meshes, generated = maker.views(source, yaws)
    truth = maker.units([view.image for view in views])
    body = mesh_to_unit(meshes[0]) > BODY_LEVEL  # [R, 1, H, W]
    guesses = {
        GENERATED: photo_to_unit(generated[0]),
        "mean_image": mean_image.expand_as(truth),
        "blank_background": maker.units([view.background for view in views]),
        "source_image": photo_to_unit(photo).expand_as(truth),
    }
    if isinstance(maker.mesh_source, VertexMeshes):
        bodies = Bodies(maker.mesh_source, [Record(path=source, pid=-1, camera=-1)], maker.device)
        guesses["carried_pixels"] = carried_views(photo, bodies, 0, yaws)
    scores = {}
    for author, guess in guesses.items():
        scores[f"{author}_psnr"] = psnr(guess, truth)
        scores[f"{author}_psnr_body"] = psnr(guess, truth, body)
        if with_ssim:
            scores[f"{author}_ssim"] = ssim(guess, truth)
    return scores


def _means(scores: dict[str, np.ndarray], rows: np.ndarray) -> dict[str, float]:
    """The mean of each score over some views; a body that covers no pixel counts nowhere."""
    return {name: float(np.nanmean(values[rows])) for name, values in scores.items()}


def score_novel_views(
    encoder: IdentityEncoder,
    generator: Generator,
    truth_dir: str | os.PathLike[str],
    mesh_source: MeshSource,
    image_size: tuple[int, int],
    device: torch.device | str = "cpu",
    *,
    mean_image: Tensor,
    with_ssim: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> NovelViewScores:
    """Generate every true view of `truth_dir` from its dataset photo and compare. Deterministic; no gradient.

    Arguments:
        truth_dir: see `read_truth`; true pictures of another size are resized (bicubic).
        mesh_source: for the split the photos belong to.
        image_size: (H, W) of the networks.
        mean_image: [3, H, W] RGB in [0, 1], the mean of the training images (see `mean_training_image`).
        with_ssim: SSIM, too (needs torchmetrics).
        progress: called with (photos done, photos in all).

    Errors: MissingFileError or InputError that names the file.
    """
    if tuple(mean_image.shape) != (3, *image_size):
        raise ValueError(f"mean_image: expected shape {[3, *image_size]}, got {list(mean_image.shape)}")
    maker, mean_image = ViewMaker(encoder, generator, mesh_source, image_size, device), mean_image.to(device)
    groups = by_source(read_truth(truth_dir))
    parts: dict[str, list[Tensor]] = {}
    yaws: list[float] = []
    for done, (source, views) in enumerate(groups.items(), 1):
        for name, values in _scores_of_photo(maker, source, views, mean_image, with_ssim).items():
            parts.setdefault(name, []).append(values)
        yaws += [view.yaw for view in views]
        if progress is not None:
            progress(done, len(groups))
    scores = {name: torch.cat(values).cpu().numpy() for name, values in parts.items()}  # one value a true view
    angles = np.array(yaws) % 360
    turned = angles != 0
    if not turned.any():
        raise InputError(f"{truth_dir}: expected true views at angles other than 0, found none")
    by_yaw = {float(yaw): _means(scores, angles == yaw) for yaw in np.unique(angles[turned])}
    return NovelViewScores(
        mean=_means(scores, turned),
        per_yaw={name: {yaw: means[name] for yaw, means in by_yaw.items()} for name in scores},
        same_view={} if turned.all() else _means(scores, ~turned),
        num_images=int(turned.sum()),
        num_sources=len(groups),
    )


def novel_view_sheet(
    encoder: IdentityEncoder,
    generator: Generator,
    truth_dir: str | os.PathLike[str],
    mesh_source: MeshSource,
    image_size: tuple[int, int],
    device: torch.device | str = "cpu",
    *,
    num: int = 4,
    seed: int = 0,
    title: str | None = None,
) -> np.ndarray:
    """Sheet of `num` photos drawn at random (by `seed`): meshes, the photo's pixels carried by them where they have vertices,
    generated views and the truth.

    Arguments: as `score_novel_views`.
    Returns: [H', W', 3] uint8.
    Errors: InputError where no photo has true views at all angles.
    """
    groups = by_source(read_truth(truth_dir))
    angles = sorted({view.yaw for views in groups.values() for view in views})
    complete = [source for source, views in groups.items() if sorted(view.yaw for view in views) == angles]
    if not complete:
        raise InputError(f"{truth_dir}: expected a photo with true views at all of {angles} degrees, found none")
    order = np.random.Generator(np.random.Philox(seed)).permutation(len(complete))[:num]
    sources = [complete[i] for i in sorted(order)]
    maker = ViewMaker(encoder, generator, mesh_source, image_size, device)
    photos, meshes, generated = zip(*(maker.views(source, angles) for source in sources), strict=True)
    truths = []
    for source in sources:
        views = sorted(groups[source], key=lambda view: view.yaw)
        truths.append(load_photos([view.image for view in views], image_size)[None])
    warped = None
    if isinstance(mesh_source, VertexMeshes):
        records = [Record(path=source, pid=-1, camera=-1) for source in sources]
        warped = warped_views(torch.cat(photos), records, mesh_source, angles, torch.cat(meshes))[0]
    return novel_view_grid(
        torch.cat(photos),
        torch.cat(generated),
        angles,
        torch.cat(truths),
        torch.cat(meshes),
        warped=warped,
        row_titles=[source.stem for source in sources],
        title=title,
    )
