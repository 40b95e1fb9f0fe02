"""Features of your own images from a trained identity encoder: `load_encoder(path)`, then `encoder(images)`."""

from __future__ import annotations

import operator
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, SupportsIndex, TypeAlias

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from gcl_fast.errors import InputError
from gcl_fast.images import load_uint8, normalise, pillow, resized, to_mode, unit_to_photo
from gcl_fast.models import IdentityEncoder
from gcl_fast.runs.device import choose_device
from gcl_fast.runs.encoder_export import FILES
from gcl_fast.runs.networks import encoder_of, find_encoder
from gcl_fast.transfer import send

if TYPE_CHECKING:
    import PIL.Image

    Photo: TypeAlias = str | os.PathLike[str] | PIL.Image.Image | np.ndarray | Tensor
    Photos: TypeAlias = Photo | Iterable[Photo]


def load_encoder(
    path: str | os.PathLike[str], *, device: str | torch.device = "auto", image_size: tuple[int, int] | None = None
) -> Encoder:
    """The identity encoder of a run, a checkpoint or a weight file, ready to be called on images.

    Arguments:
        path: a run folder (runs/NAME: the last checkpoint of stage 3, else 1, else 2) or a stage's folder in it, a folder
            that `gcl-fast export` wrote, a checkpoint (runs/NAME/stage3/last.pt), or a weight file of any kind that `gcl-fast
            import-checkpoint` knows. Files are read as tensors alone: nothing in them is executed.
        device: "auto" (CUDA where there is a GPU), "cpu", "cuda" or "cuda:N".
        image_size: (H, W) that images are resized to; default: the size it was trained at, or (256, 128), the published
            one, for a weight file that does not tell.

    Returns: an `Encoder`.
    Errors: MissingFileError or CheckpointError (or another GclError) that names the file and what is wrong with it.
    """
    size = None if image_size is None else _two_sizes(image_size)
    path = Path(path)
    if path.suffix in (".pt2", ".onnx"):
        raise InputError(f"{path} is an exported program, not weights: give {FILES['safetensors']} or the run it came from")
    network, trained_at = encoder_of(find_encoder(path))
    return Encoder(network, size or trained_at, choose_device(str(device)))


class Encoder:
    """Images in, L2-normalised features out.

        encoder = gcl_fast.load_encoder("runs/market1501")
        features = encoder(["a.jpg", "b.jpg", "c.jpg"])  # [3, D]
        similarity = features @ features.T               # cosines

    Attributes:
        network: the IdentityEncoder, in eval mode.
        feature_dim: D, the length of a feature.
        image_size: (H, W) that images are resized to.
        device: where the network runs.
    """

    def __init__(self, network: IdentityEncoder, image_size: tuple[int, int], device: torch.device | str = "cpu") -> None:
        self.device = torch.device(device)
        self.network = network.to(self.device).eval()
        self.feature_dim: int = network.feature_dim
        self.image_size = _two_sizes(image_size)

    def __repr__(self) -> str:
        kind = f"{self.network.variant}, {self.network.backbone_name}"
        return f"Encoder({kind}, {self.feature_dim} features, images {self.image_size}, on {self.device})"

    def __call__(self, images: Photos, *, batch_size: int = 64, progress: Callable[[int, int], None] | None = None) -> Tensor:
        """Features of images.

        Arguments:
            images: one image, or a list, generator or other iterable of them; kinds may be mixed. An image is a path; a PIL
                image; an array [H, W, 3] uint8, RGB; a tensor [3, H, W], uint8 or floating in [0, 1], RGB. So arrays have
                their channels last, tensors first. An array [N, H, W, 3] or a tensor [N, 3, H, W] is N images.
            batch_size: images that go through the network at once.
            progress: called with (images done, images in all) after each batch.

        Images of another size are resized bicubically: by Pillow, as training reads its files; floating tensors by
        torch's antialiased filter, which is within a few thousandths of it.

        Returns: features [N, D] float32 of length 1, on the CPU, in the order of the images; [1, D] for a single image. The
            same batches on the same machine give the same bits, those of `evaluation.extract_features`; under torch.autocast the
            network computes in its precision.
        Gradient: none.
        Errors: FileError or MissingFileError that names an image file; TypeError or ValueError that names what is wrong with
            an array or tensor, and its place in the list.
        """
        size = _whole_above_0(batch_size)
        if size is None:
            raise ValueError(f"Encoder: batch_size must be a whole number above 0, got {batch_size!r}")
        photos = _single_images(images)
        features = torch.zeros(len(photos), self.feature_dim, dtype=torch.float32, device=self.device)
        self.network.eval()
        for first in range(0, len(photos), size):
            last = min(first + size, len(photos))
            batch = torch.stack([send(self._read(photos[i], i), self.device) for i in range(first, last)])  # [B, 3, H, W]
            with torch.inference_mode():
                features[first:last] = F.normalize(self.network(batch)[1].float(), dim=1)
            if progress is not None:
                progress(last, len(photos))
        return features.cpu()

    def _read(self, photo: object, place: int) -> Tensor:
        """One image as the network reads it: [3, H, W], normalised."""
        if isinstance(photo, (str, os.PathLike)):
            if os.path.isdir(photo):
                raise InputError(f"image {place}: {os.fspath(photo)} is a folder; give the image files in it")
            return normalise(load_uint8(photo, self.image_size))
        if isinstance(photo, Tensor):
            return self._tensor(photo, place)
        if isinstance(photo, np.ndarray):
            if photo.dtype != np.uint8 or photo.ndim != 3 or photo.shape[2] != 3:
                expected = "an array [H, W, 3] uint8, RGB (a tensor for [3, H, W] or values in [0, 1])"
                raise ValueError(f"image {place} must be {expected}, got {photo.dtype} {list(photo.shape)}")
            return self._pixels(photo, place)
        if isinstance(photo, pillow().Image):
            return self._picture(photo, place)
        if isinstance(photo, (bytes, bytearray, memoryview)):
            raise TypeError(f"image {place}: got {type(photo).__name__}; open them first: PIL.Image.open(io.BytesIO(content))")
        kinds = "a path, a PIL image, an array [H, W, 3] or a tensor [3, H, W]"
        raise TypeError(f"image {place} must be {kinds}, got {type(photo).__name__}")

    def _picture(self, photo: PIL.Image.Image, place: int) -> Tensor:
        try:
            rgb = to_mode(photo, "RGB")
        except MemoryError:
            raise
        except InputError as error:
            raise InputError(f"image {place}: {error}") from error
        except Exception as error:  # a file that is read only now: OSError, or nearly anything where it was closed
            raise InputError(f"image {place}: the PIL image is truncated, damaged or closed: {error}") from error
        _not_empty((rgb.height, rgb.width), place)
        return normalise(resized(rgb, self.image_size))

    def _pixels(self, pixels: np.ndarray, place: int) -> Tensor:
        _not_empty(pixels.shape[:2], place)
        return normalise(resized(pillow().fromarray(pixels), self.image_size))

    def _tensor(self, photo: Tensor, place: int) -> Tensor:
        _dense(photo, f"image {place}")
        if photo.dim() != 3 or photo.shape[0] != 3 or not (photo.dtype == torch.uint8 or photo.is_floating_point()):
            expected = "a tensor [3, H, W], uint8 or floating in [0, 1], RGB"
            raise ValueError(f"image {place} must be {expected}, got {photo.dtype} {list(photo.shape)}")
        if photo.dtype == torch.uint8:
            return self._pixels(photo.permute(1, 2, 0).cpu().numpy(), place)
        _not_empty(photo.shape[1:], place)
        unit = photo.detach().float()
        if not bool(((unit >= 0) & (unit <= 1)).all()):  # NaN is not within either
            low, high = float(unit.min()), float(unit.max())
            raise ValueError(f"image {place}: a floating tensor must lie in [0, 1], got values from {low:.4g} to {high:.4g}")
        if tuple(unit.shape[1:]) != self.image_size:
            scaled = F.interpolate(unit[None], self.image_size, mode="bicubic", antialias=True, align_corners=False)
            unit = scaled[0].clamp(0, 1)
        return unit_to_photo(unit)


def _not_empty(size: Sequence[int], place: int) -> None:
    if min(size) == 0:
        raise ValueError(f"image {place} must have pixels, got height {size[0]} and width {size[1]}")


def _single_images(images: object) -> list[object]:
    """What was given as a list of single images; an array or a tensor of four dimensions holds several."""
    if isinstance(images, Tensor):
        _dense(images, "images")
    if isinstance(images, (np.ndarray, Tensor)):
        return list(images) if images.ndim == 4 else [images]
    if isinstance(images, (str, os.PathLike, bytes, bytearray, memoryview, Mapping)):
        return [images]
    return list(images) if isinstance(images, Iterable) else [images]


def _dense(photo: Tensor, name: str) -> None:
    if photo.is_meta or photo.layout != torch.strided:
        got = "one on the device meta, without values" if photo.is_meta else f"layout {photo.layout}"
        raise TypeError(f"{name} must be a dense tensor, got {got}")


def _whole_above_0(value: object) -> int | None:
    """The number as an int, also where it is NumPy's; None where it is no whole number above 0."""
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, SupportsIndex):
        return None
    try:
        number = operator.index(value)
    except TypeError:  # an array of several
        return None
    return number if number > 0 else None


def _two_sizes(image_size: Sequence[int]) -> tuple[int, int]:
    numbers = [_whole_above_0(n) for n in image_size] if isinstance(image_size, Iterable) else []
    if len(numbers) != 2 or numbers[0] is None or numbers[1] is None:
        raise ValueError(f"Encoder: image_size must be two whole numbers above 0, (H, W), got {image_size!r}")
    return numbers[0], numbers[1]
