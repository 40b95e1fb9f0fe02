"""From an image file to the numbers a network reads, and back: the one place of every conversion.

A file is opened as one of RASTER_FORMATS, whatever its name says, and only below MAX_PIXELS. It is turned upright as its EXIF
orientation says, which is what viewers and OpenCV show. Grey of 16 bits is scaled by the type's range.

A *photo* is a float tensor [..., 3, H, W] normalised by the ImageNet mean and deviation (data and decoder output alike).
A *mesh* is a float tensor [..., 1, H, W] in [-1, 1]. A *unit* image is [..., C, H, W] in [0, 1].
"""

from __future__ import annotations

import contextlib
import functools
import os
import stat
from collections.abc import Iterator
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from gcl_fast.errors import FileError, InputError, MissingFileError
from gcl_fast.packages import missing

if TYPE_CHECKING:
    import PIL.Image

Pixels = npt.NDArray[np.uint8]

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

RASTER_FORMATS = ("JPEG", "MPO", "PNG", "BMP", "GIF", "TIFF", "WEBP", "PPM", "JPEG2000", "AVIF")
"""Pillow's names of what is read. No others: some of its decoders start programs (Ghostscript) on what a stranger wrote."""
IMAGE_SUFFIXES = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".gif", ".tif", ".tiff", ".webp"),
    *(".ppm", ".pgm", ".pbm", ".pnm", ".jp2", ".avif"),
)
"""Names of files that folders are searched for."""
MAX_PIXELS = 89_478_485  # where Pillow begins to warn; a person crop has ten thousand
_ORIENTATION = 0x0112  # EXIF's tag
_NOT_RASTER = {
    b"%!PS": "a PostScript program",
    b"%PDF": "a PDF",
    b"<svg": "an SVG drawing",
    b"<?xm": "an XML file",
    b"<htm": "a web page",
    b"<!DO": "a web page",
    b"vers": "a Git LFS pointer: fetch the file itself (git lfs pull)",
}


def pillow() -> ModuleType:
    """PIL.Image, or a MissingPackageError that says what to install."""
    try:
        from PIL import Image
    except ImportError as error:
        raise missing("PIL", "reading images", error) from error
    return Image


def load_uint8(path: str | os.PathLike[str], image_size: tuple[int, int]) -> Pixels:
    """Decode an image file to RGB and resize it, bicubic as Pillow does.

    Arguments:
        path: one of RASTER_FORMATS; grey (8 or 16 bits), palette, CMYK and transparent images become RGB. Of several frames
            the first.
        image_size: (height, width) in pixels.

    Returns: uint8 [H, W, 3].
    Errors: MissingFileError, or FileError naming the file that cannot be decoded.
    """
    return _decode(path, image_size, "RGB")


def load_grey(path: str | os.PathLike[str], image_size: tuple[int, int]) -> Pixels:
    """As `load_uint8`, to grey: uint8 [H, W]."""
    return _decode(path, image_size, "L")


def load_photo(path: str | os.PathLike[str]) -> Pixels:
    """As `load_uint8`, of the file's own size: uint8 [h, w, 3]."""
    return _decode(path, None, "RGB")


def encoded_plainly(path: str | os.PathLike[str], mode: str) -> bytes:
    """An image file as an uncompressed PNM of 8 bits, for decoders that have rules of their own. Errors as `load_uint8`.

    mode: RGB or L.
    """
    pixels = _decode(path, None, mode)
    height, width = pixels.shape[:2]
    return f"P{6 if mode == 'RGB' else 5}\n{width} {height}\n255\n".encode() + pixels.tobytes()


def _decode(path: str | os.PathLike[str], image_size: tuple[int, int] | None, mode: str) -> Pixels:
    try:
        with open_image(path) as image:
            picture = to_mode(image, mode)
    except FileNotFoundError:
        raise MissingFileError(f"cannot read image {path}: no such file") from None
    except Exception as error:  # a broken file may raise nearly anything in a decoder
        raise FileError(f"cannot read image {path}: {error}") from error
    return np.array(picture, np.uint8) if image_size is None else resized(picture, image_size)


@contextlib.contextmanager
def open_image(path: str | os.PathLike[str]) -> Iterator[PIL.Image.Image]:
    """An image file as Pillow opens it, its header read and nothing decoded.

    Errors: InputError where it is none of RASTER_FORMATS, or larger than MAX_PIXELS; OSError where it cannot be read; whatever a
        decoder raises.
    """
    Image = pillow()
    if not stat.S_ISREG(os.stat(path).st_mode):  # to open a pipe waits for its writer, who may never come
        raise InputError("it is no file: a folder, a pipe or a device")
    try:
        opened = Image.open(path, formats=_formats())
    except Image.DecompressionBombError as error:
        pixels = next((word.strip("(") for word in str(error).split() if word.strip("(").isdigit()), "too many")
        raise InputError(_too_large(pixels)) from error
    except Image.UnidentifiedImageError as error:
        raise InputError(_why_no_image(path)) from error
    with opened as image:
        if image.width * image.height > MAX_PIXELS:
            raise InputError(_too_large(f"{image.width} x {image.height}"))
        yield image


def upright_size(path: str | os.PathLike[str]) -> tuple[int, int]:
    """(height, width) of an image file, upright, without decoding it. Errors as `open_image`."""
    with open_image(path) as image:
        turned = image.format != "TIFF" and orientation_of(image) >= 5
        return (image.width, image.height) if turned else (image.height, image.width)


@functools.cache
def _formats() -> tuple[str, ...]:
    """Those of RASTER_FORMATS that this Pillow has."""
    Image = pillow()
    Image.init()
    return tuple(name for name in RASTER_FORMATS if name in Image.OPEN)


def _too_large(pixels: str) -> str:
    return f"it has {pixels} pixels, at most {MAX_PIXELS} are decoded: make it smaller"


def _why_no_image(path: str | os.PathLike[str]) -> str:
    """What a file is that Pillow cannot identify."""
    with open(path, "rb") as file:
        head = file.read(32)
    if not head:
        return "empty file"
    if head[4:8] == b"ftyp" and head[8:12] in (b"heic", b"heix", b"mif1", b"msf1"):
        return "it is a HEIC photo: save it as JPEG or PNG"
    kind = next((words for mark, words in _NOT_RASTER.items() if head.lstrip().startswith(mark)), None)
    names = ", ".join(name for name in _formats() if name != "MPO")
    return f"it is {kind}, not an image of the formats {names}" if kind else f"cannot identify it: damaged, or none of {names}"


def orientation_of(picture: PIL.Image.Image) -> int:
    """EXIF's orientation, 1 (upright) to 8."""
    content = picture.info.get("exif") or _exif_behind(picture)
    if not content:
        return 1
    exif = pillow().Exif()
    try:
        exif.load(content)
        turned = exif.get(_ORIENTATION, 1)
    except Exception:  # a damaged block says nothing
        return 1
    return turned if isinstance(turned, int) and 1 <= turned <= 8 else 1


def _exif_behind(picture: PIL.Image.Image) -> bytes:
    """The EXIF block of a PNG that stands behind its pixels: Pillow comes to it only when they are decoded."""
    file = getattr(picture, "fp", None)
    if picture.format != "PNG" or file is None or file.closed:
        return b""
    here = file.tell()
    file.seek(8)  # behind the signature come chunks: length, kind, content, checksum
    try:
        while len(head := file.read(8)) == 8:
            size = int.from_bytes(head[:4], "big")
            if head[4:] == b"eXIf":
                content: bytes = file.read(size)
                return content
            file.seek(size + 4, os.SEEK_CUR)
        return b""
    finally:
        file.seek(here)


def _upright(picture: PIL.Image.Image) -> PIL.Image.Image:
    """The picture turned and mirrored as its EXIF says. Pillow does that itself to a TIFF that it decodes."""
    turned = orientation_of(picture) if picture.format != "TIFF" else 1
    if turned == 1:
        return picture
    T = pillow().Transpose
    steps = (T.FLIP_LEFT_RIGHT, T.ROTATE_180, T.FLIP_TOP_BOTTOM, T.TRANSPOSE, T.ROTATE_270, T.TRANSVERSE, T.ROTATE_90)
    return picture.transpose(steps[turned - 2])


def to_mode(picture: PIL.Image.Image, mode: str) -> PIL.Image.Image:
    """A Pillow image in mode RGB or L, upright. 16-bit grey is scaled by its range (Pillow alone would cut it off at 255).

    Errors: InputError for 32-bit pictures, whose range nobody knows.
    """
    file_format, picture = picture.format, _upright(picture)
    # Pillow has no mode of its own for 16-bit PNG (before version 11) and PNM: they come as 32 bits
    if picture.mode.startswith("I;16") or (picture.mode == "I" and file_format in ("PNG", "PPM")):
        levels = np.asarray(picture).astype(np.float32) / 257
        picture = pillow().fromarray(levels.round().clip(0, 255).astype(np.uint8))
    if picture.mode in ("I", "F"):
        raise InputError(f"an image of mode {picture.mode} (32 bits a pixel) has no range known here: save it with 8 or 16 bits")
    return picture.convert(mode)


def resized(picture: PIL.Image.Image, image_size: tuple[int, int]) -> Pixels:
    """A Pillow image of mode RGB or L resized (bicubic) to (height, width), where it is not of that size: its uint8 pixels."""
    height, width = image_size
    if picture.size != (width, height):
        picture = picture.resize((width, height), pillow().Resampling.BICUBIC)
    return np.array(picture, dtype=np.uint8)


def normalise(pixels: npt.NDArray[Any] | Tensor) -> Tensor:
    """uint8 [..., H, W, 3] to float32 [..., 3, H, W]: x / 255, minus ImageNet mean, over ImageNet std; the same bits
    as torchvision's ToTensor and Normalize."""
    x = _levels(pixels)
    if x.dtype != torch.uint8 or x.dim() < 3 or x.shape[-1] != 3:
        raise ValueError(f"normalise: pixels must be uint8 [..., H, W, 3], got {x.dtype} {list(x.shape)}")
    return normalise_(x.movedim(-1, -3).to(torch.float32, memory_format=torch.contiguous_format))


def normalise_(levels: Tensor) -> Tensor:
    """In place, float32 [..., 3, H, W] with values 0 .. 255 to an ImageNet-normalised photo; on a GPU without waiting for it."""
    mean, std = _imagenet(levels.device)
    return levels.div_(255).sub_(mean).div_(std)


def denormalise(image: Tensor) -> Tensor:
    """The inverse for pictures: normalised [..., 3, H, W] to values in [0, 1], clamped, same shape and dtype."""
    return (image * _column(IMAGENET_STD, image) + _column(IMAGENET_MEAN, image)).clamp(0, 1)


def load_image(path: str | os.PathLike[str], image_size: tuple[int, int]) -> Tensor:
    """An image file as a network reads it: float32 [3, H, W], bicubic, ImageNet-normalised. Errors as `load_uint8`."""
    return normalise(load_uint8(path, image_size))


def mesh_from_unit(grey: Tensor) -> Tensor:
    """Rendered bodies in [0, 1] to the range that the networks read, [-1, 1]; any shape."""
    return grey * 2 - 1


def mesh_from_uint8(grey: Tensor, out: Tensor | None = None) -> Tensor:
    """8-bit grey of any shape to a mesh, float32 in [-1, 1]; into `out` where it is given."""
    out = torch.empty(grey.shape, dtype=torch.float32, device=grey.device) if out is None else out
    return out.copy_(grey).div_(255).mul_(2).sub_(1)  # the same bits as mesh_from_unit(grey / 255)


def mesh_to_unit(mesh: Tensor) -> Tensor:
    """The inverse: [-1, 1] to [0, 1]."""
    return mesh * 0.5 + 0.5


def unit_to_levels(unit: Tensor) -> Tensor:
    """Values in [0, 1] to uint8 of the same shape, each to the nearest of 256 levels."""
    return unit.mul(255).round_().to(torch.uint8)


def unit_from_levels(levels: npt.NDArray[np.uint8] | Tensor) -> Tensor:
    """The inverse: uint8 of any shape to float32 in [0, 1]."""
    return _levels(levels).float() / 255


def _levels(values: npt.NDArray[Any] | Tensor) -> Tensor:
    """An array as a tensor that shares its memory, whatever device the program makes its tensors on."""
    return values if isinstance(values, Tensor) else torch.as_tensor(values, device="cpu")


@functools.lru_cache(maxsize=16)
def _imagenet(device: torch.device) -> tuple[Tensor, Tensor]:
    """ImageNet's mean and deviation, each float32 [3, 1, 1], sent to a device once."""
    with torch.inference_mode(False):  # a tensor made in inference mode could not be used outside
        mean, std = (torch.tensor(v, dtype=torch.float32, device=device).view(3, 1, 1) for v in (IMAGENET_MEAN, IMAGENET_STD))
    return mean, std


def _column(values: tuple[float, float, float], like: Tensor) -> Tensor:
    return torch.tensor(values, dtype=like.dtype, device=like.device).view(3, 1, 1)


def _check(image: Tensor, name: str, channels: tuple[int, ...]) -> None:
    if not isinstance(image, Tensor) or not image.is_floating_point():
        raise TypeError(f"{name}: expected a floating-point tensor, got {getattr(image, 'dtype', type(image).__name__)}")
    if image.dim() < 3 or image.shape[-3] not in channels:
        wanted = " or ".join(str(c) for c in channels)
        raise ValueError(f"{name}: expected shape [..., {wanted}, H, W], got {list(image.shape)}")


def photo_to_unit(image: Tensor) -> Tensor:
    """Undo the ImageNet normalisation: [..., 3, H, W] float -> RGB in [0, 1] float32, clamped. NaN becomes 0."""
    _check(image, "image", (3,))
    return denormalise(image.detach().float()).nan_to_num(0.0)


def unit_to_photo(unit: Tensor) -> Tensor:
    """The inverse: [..., 3, H, W] float, RGB in [0, 1] -> ImageNet-normalised, same shape and dtype."""
    _check(unit, "image", (3,))
    return (unit - _column(IMAGENET_MEAN, unit)) / _column(IMAGENET_STD, unit)


def unit_to_uint8(image: Tensor) -> Pixels:
    """[..., 3 or 1, H, W] float in [0, 1] -> uint8 [..., H, W, 3]; values outside are clamped, grey is repeated."""
    _check(image, "image", (3, 1))
    bytes_ = (image.detach().float().nan_to_num(0.0).clamp(0.0, 1.0) * 255).round().to(torch.uint8)
    rgb = bytes_.expand(*bytes_.shape[:-3], 3, *bytes_.shape[-2:])  # [..., 3, H, W]
    return np.ascontiguousarray(rgb.movedim(-3, -1).cpu().numpy())  # [..., H, W, 3]


def photo_to_uint8(image: Tensor) -> Pixels:
    """ImageNet-normalised [..., 3, H, W] float -> uint8 [..., H, W, 3]."""
    return unit_to_uint8(photo_to_unit(image))


def mesh_to_uint8(mesh: Tensor) -> Pixels:
    """Mesh render [..., 1, H, W] float in [-1, 1] -> grey uint8 [..., H, W, 3]."""
    _check(mesh, "mesh", (1,))
    return unit_to_uint8(mesh_to_unit(mesh.detach().float()))
