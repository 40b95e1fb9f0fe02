"""Measures of images: PSNR, and through torchmetrics (loaded when asked for) SSIM and FID.

Sources: Wang et al., Image Quality Assessment: From Error Visibility to Structural Similarity, 2004; Heusel et al., GANs
Trained by a Two Time-Scale Update Rule, NeurIPS 2017 (FID).
"""

from __future__ import annotations

import os
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor, nn

from gcl_fast.errors import InputError
from gcl_fast.models.weights import load_weights
from gcl_fast.packages import missing

PSNR_CEILING = 100.0  # dB, for equal images
SSIM_SMALLEST = 6  # rows and columns: 5 of them are reflected at a border
DOWNLOAD = "download"


def psnr(guess: Tensor, truth: Tensor, mask: Tensor | None = None) -> Tensor:
    """Peak signal-to-noise ratio of each image in dB, peak 1: -10 log10(mean squared error), at most 100.

    Arguments:
        guess, truth: [..., 3, H, W] in [0, 1].
        mask: [..., 1, H, W] bool, the pixels that count; the others may hold anything.

    Returns: [...] float64; NaN where the mask is empty.
    """
    error = (guess.double() - truth.double()).square()  # [..., 3, H, W]
    if mask is None:
        mean = error.mean(dim=(-3, -2, -1))
    else:
        weight = mask.expand_as(error).double()
        mean = torch.where(weight > 0, error * weight, 0).sum(dim=(-3, -2, -1)) / weight.sum(dim=(-3, -2, -1))
    return -10 * mean.clamp_min(10 ** (-PSNR_CEILING / 10)).log10()


def can_ssim() -> bool:
    """Whether torchmetrics, which `ssim` needs, is installed."""
    return find_spec("torchmetrics") is not None


def ssim(guess: Tensor, truth: Tensor) -> Tensor:
    """Structural similarity of each image, as torchmetrics defines it.

    Gaussian window of deviation 1.5 (11 x 11), k1 0.01, k2 0.03, borders reflected, mean over all pixels and channels.

    Arguments:
        guess, truth: [N, 3, H, W] in [0, 1], H and W at least 6.

    Returns: [N] in [-1, 1], 1 for equal images.
    Errors: MissingPackageError without torchmetrics; ValueError for a wrong shape.
    """
    try:
        from torchmetrics.functional.image import structural_similarity_index_measure
    except ImportError as error:
        raise missing("torchmetrics", "SSIM", error) from error
    if guess.shape != truth.shape or guess.dim() != 4 or guess.shape[1] != 3 or min(guess.shape[2:]) < SSIM_SMALLEST:
        expected, got = f"[N, 3, H, W], H and W at least {SSIM_SMALLEST}", f"{list(guess.shape)} and {list(truth.shape)}"
        raise ValueError(f"ssim: guess and truth must have one shape {expected}, got {got}")
    if len(guess) == 0:
        return guess.new_zeros(0)
    values = structural_similarity_index_measure(guess, truth, data_range=1.0, reduction="none")
    return torch.as_tensor(values).reshape(-1)


class FrechetDistance:
    """FID between real and generated images, [N, 3, H, W] in [0, 1], added in batches of any size.

    Arguments:
        weights: path of the Inception weights torch-fidelity uses (pt_inception-2015-12-05-6726825d.pth), or "download":
            fetches them, because you ask for it.
        features: instead of weights, a network uint8 [N, 3, H, W] -> [N, F] (another feature space than the papers').

    Errors: MissingPackageError without torchmetrics or torch-fidelity; MissingFileError or InputError that names the file.
    """

    def __init__(
        self,
        weights: str | os.PathLike[str] | None = None,
        *,
        features: nn.Module | None = None,
        device: torch.device | str = "cpu",
    ) -> None:
        if (weights is None) == (features is None):
            raise ValueError(f'FrechetDistance: give weights (a file, or "{DOWNLOAD}") or features, one of the two')
        try:
            from torchmetrics.image.fid import FrechetInceptionDistance
        except ImportError as error:
            raise missing("torchmetrics", "FID", error) from error
        options: dict[str, Any] = {"feature": 2048 if features is None else features}
        if weights is not None and os.fspath(weights) != DOWNLOAD:
            load_weights(weights)  # there, whole, and nothing but tensors; says so if not
            options["feature_extractor_weights_path"] = os.fspath(weights)
        try:
            self._metric = FrechetInceptionDistance(**options).to(device)
        except ModuleNotFoundError as error:
            raise missing("torch_fidelity", "FID's Inception network", error) from error
        self._device = device
        self.num_real = self.num_generated = 0

    def add(self, images: Tensor, *, real: bool) -> None:
        """Count [N, 3, H, W] images in [0, 1] in, at the 256 levels that a picture file would hold."""
        if images.dim() != 4 or images.shape[1] != 3:
            raise ValueError(f"FrechetDistance: images must be [N, 3, H, W], got {list(images.shape)}")
        if len(images):
            self._metric.update(images.to(self._device).float().clamp(0, 1).mul(255).round().byte(), real=real)
        self.num_real += len(images) * real
        self.num_generated += len(images) * (not real)

    def value(self) -> float:
        """The distance. Small sets overestimate it: the papers use thousands.

        Errors: InputError with fewer than two images on a side.
        """
        if min(self.num_real, self.num_generated) < 2:
            raise InputError(
                f"FrechetDistance: needs at least 2 real and 2 generated images, got {self.num_real} and {self.num_generated}"
            )
        return float(self._metric.compute())
