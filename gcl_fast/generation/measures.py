"""SSIM and FID of generated images, through torchmetrics (loaded when asked for).

Sources: Wang et al., Image Quality Assessment: From Error Visibility to Structural Similarity, 2004; Heusel et al., GANs
Trained by a Two Time-Scale Update Rule, NeurIPS 2017 (FID).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from gcl_fast.generation.decoding import novel_views, reconstruct
from gcl_fast.generation.inputs import load_photos, render_meshes
from gcl_fast.generation.scores import psnr
from gcl_fast.images import photo_to_unit
from gcl_fast.models.weights import load_weights

DOWNLOAD = "download"
INSTALL = "pip install torchmetrics torch-fidelity"


def ssim(guess: Tensor, truth: Tensor) -> Tensor:
    """Structural similarity of each image: guess, truth [N, 3, H, W] in [0, 1] -> [N] in [-1, 1], 1 for equal images.

    torchmetrics' definition: Gaussian window of deviation 1.5 (11 x 11), k1 0.01, k2 0.03, borders reflected, mean over all
    pixels and channels.
    """
    try:
        from torchmetrics.functional.image import structural_similarity_index_measure
    except ImportError as error:
        raise ImportError(f"SSIM needs torchmetrics: pip install torchmetrics ({error})") from error
    if guess.shape != truth.shape or guess.dim() != 4:
        got = f"{list(guess.shape)} and {list(truth.shape)}"
        raise ValueError(f"ssim: guess and truth must have one shape [N, 3, H, W], got {got}")
    if len(guess) == 0:
        return guess.new_zeros(0)
    values = structural_similarity_index_measure(guess, truth, data_range=1.0, reduction="none")
    return torch.as_tensor(values).reshape(-1)


class FrechetDistance:
    """FID between real and generated images, [N, 3, H, W] in [0, 1], added in batches of any size.

    weights   path of the Inception weights torch-fidelity uses (pt_inception-2015-12-05-6726825d.pth), or "download": fetches
              them, because you ask for it
    features  instead: a network uint8 [N, 3, H, W] -> [N, F] (another feature space than the papers', or a test's)
    """

    def __init__(
        self, weights: str | Path | None = None, *, features: nn.Module | None = None, device: torch.device | str = "cpu"
    ) -> None:
        if (weights is None) == (features is None):
            raise ValueError(f'FrechetDistance: give weights (a file, or "{DOWNLOAD}") or features, one of the two')
        try:
            from torchmetrics.image.fid import FrechetInceptionDistance
        except ImportError as error:
            raise ImportError(f"FID needs torchmetrics: {INSTALL} ({error})") from error
        options: dict[str, Any] = {}
        if features is None:
            options["feature"] = 2048
            if str(weights) != DOWNLOAD:
                load_weights(weights)  # there, whole, and nothing but tensors; says so if not
                options["feature_extractor_weights_path"] = str(weights)
        else:
            options["feature"] = features
        try:
            self._metric = FrechetInceptionDistance(**options).to(device)
        except ModuleNotFoundError as error:
            raise ImportError(f"FID needs torch-fidelity for its Inception network: {INSTALL} ({error})") from error
        self._device = device
        self.num_real = self.num_generated = 0

    def add(self, images: Tensor, *, real: bool) -> None:
        if images.dim() != 4 or images.shape[1] != 3:
            raise ValueError(f"FrechetDistance: images must be [N, 3, H, W], got {list(images.shape)}")
        if len(images):
            levels = images.to(self._device).float().clamp(0, 1).mul(255).round().byte()  # as a picture file would hold them
            self._metric.update(levels, real=real)
        self.num_real += len(images) * real
        self.num_generated += len(images) * (not real)

    def value(self) -> float:
        """ValueError with fewer than two images on a side. Small sets overestimate: the papers use thousands."""
        if min(self.num_real, self.num_generated) < 2:
            raise ValueError(
                f"FrechetDistance: needs at least 2 real and 2 generated images, got {self.num_real} and {self.num_generated}"
            )
        return float(self._metric.compute())


def score_generated(
    encoder: nn.Module,
    generator: nn.Module,
    records: Sequence[Any],
    mesh_source: Any,
    image_size: tuple[int, int],
    device: torch.device | str = "cpu",
    *,
    yaws: Sequence[float],
    fid: FrechetDistance | None = None,
    batch_size: int = 8,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, float]:
    """Scores that need no true views.

    "reconstruction_psnr", "reconstruction_ssim": G(E_str(mesh), E_id(photo).code) against the photo, means over the images;
    "images", their number; and where fid is given "novel_view_fid": all views at `yaws` against the photos.

    records       with path; mesh_source: render(record, yaws) -> [R, H, W] in [0, 1]
    Deterministic; no gradient.
    """
    if not len(records):
        raise ValueError("score_generated: records must hold at least one image, got none")
    values: dict[str, list[Tensor]] = {"reconstruction_psnr": [], "reconstruction_ssim": []}
    for first in range(0, len(records), batch_size):
        some = records[first : first + batch_size]
        photo = load_photos([r.path for r in some], image_size).to(device)
        meshes = render_meshes(mesh_source, some, (0.0, *yaws)).to(device)  # [n, 1 + R, 1, H, W]
        truth = photo_to_unit(photo)
        made = photo_to_unit(reconstruct(encoder, generator, photo, meshes[:, 0]))
        values["reconstruction_psnr"].append(psnr(made, truth).cpu())
        values["reconstruction_ssim"].append(ssim(made, truth).cpu())
        if fid is not None:
            fid.add(truth, real=True)
            views = novel_views(encoder, generator, photo, meshes[:, 1:])  # [n, R, 3, H, W]
            fid.add(photo_to_unit(views.flatten(0, 1)), real=False)
        if progress is not None:
            progress(first + len(some), len(records))
    found = {name: float(torch.cat(parts).double().mean()) for name, parts in values.items()}
    if fid is not None:
        found["novel_view_fid"] = fid.value()
    return {**found, "images": len(records)}
