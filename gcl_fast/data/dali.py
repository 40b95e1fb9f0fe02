"""Batches through NVIDIA DALI: decoding, resizing, augmentation and normalisation in its threads, or on the GPU."""

from __future__ import annotations

import pathlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gcl_fast.bodies.meshes import RenderedFolders
from gcl_fast.data.ahead import MeshesAhead
from gcl_fast.data.augment import FILL, LUMA, Augment, Change
from gcl_fast.data.base import Loader
from gcl_fast.data.batch import Batch
from gcl_fast.data.images import IMAGENET_MEAN, IMAGENET_STD
from gcl_fast.data.readable import why_broken
from gcl_fast.data.recipes import Recipe
from gcl_fast.data.reid_data import Record

DEPTH = 2  # batches that DALI works ahead
SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp", ".ppm", ".pgm")


def dali() -> Any:
    """nvidia.dali, or an error that says what to install."""
    try:
        import nvidia.dali.fn
        import nvidia.dali.math
        import nvidia.dali.types
    except ImportError as error:
        raise ImportError("the DALI loader needs nvidia-dali-cuda130: pip install nvidia-dali-cuda130") from error
    return nvidia.dali


class DaliLoader(Loader):
    """One DALI pipeline that lives as long as the loader. Arguments as `Loader` has them, and:

    workers  threads of DALI, and as many that render meshes; 0: one of each
    device   "cpu", or a CUDA device: then the last part of decoding and all that follows happens there (`mixed`)

    The batches are the torch loader's: same order, same random choices, which are drawn here and handed to DALI. A pixel
    differs from it where DALI's cubic resize rounds otherwise (at most 8 of 255 levels, 0.3 on average); without resizing
    decoded pixels are the same on the CPU. Meshes rendered from vertices are the same bits.

    Nothing is asked of DALI before an epoch begins, so a plan may come out of the features of the epoch before; an epoch
    that is left half way is drained when the next one starts. Batches are on `device`. One epoch at a time.
    """

    def __init__(
        self, records: Sequence[Record], image_size: tuple[int, int], *, device: torch.device | str = "cpu", **options: Any
    ) -> None:
        super().__init__(records, image_size, **options)
        self._dali = dali()
        self.device = torch.device(device)
        self._pid = torch.tensor([r.pid for r in self.records], dtype=torch.int64)
        self._camera = torch.tensor([r.camera for r in self.records], dtype=torch.int64)
        self._pictures = self.meshes if isinstance(self.meshes, RenderedFolders) else None  # DALI decodes these too
        self._pool: ThreadPoolExecutor | None = None
        self._pipeline: Any = None
        self._turn = 0
        self._waiting: Iterator[Recipe] = iter(())
        self._rendered: MeshesAhead | None = None
        self._unreadable: Exception | None = None

    def _batches(self, recipes: list[Recipe]) -> Iterator[Batch]:
        self._turn += 1
        return self._follow(recipes, self._turn)

    def _follow(self, recipes: list[Recipe], turn: int) -> Iterator[Batch]:
        for number, recipe in enumerate(recipes):
            if turn != self._turn:
                raise RuntimeError("DaliLoader: this epoch ended when another was started or the loader closed")
            if number == 0:
                self._start(recipes)
            yield self._next(recipe)

    def _start(self, recipes: list[Recipe]) -> None:
        largest = max(len(r.indices) for r in recipes)
        if self._pipeline is not None and self._pipeline.max_batch_size < largest:
            self._stop()
        if self._pipeline is None:
            self._pipeline = self._build(largest)
            if self.meshes is not None and self._pictures is None:
                self._pool = ThreadPoolExecutor(max(1, self.workers), thread_name_prefix="meshes")
                self._rendered = MeshesAhead(self.meshes, self.records, self.chance, self._pool)
        else:
            self._drain()
            self._pipeline.reset()
        self._waiting, self._unreadable = iter(recipes), None

    def _next(self, recipe: Recipe) -> Batch:
        try:
            outputs = self._pipeline.run()
        except StopIteration:  # the source ended early: it could not read a file of this batch
            error, self._unreadable = self._unreadable, None
            self._stop()
            raise error or RuntimeError("DaliLoader: the pipeline ended before the epoch did") from None
        except RuntimeError as error:
            self._stop()
            raise OSError(self._name_broken(recipe, error)) from error
        tensors = [torch.from_dlpack(o.as_tensor()) for o in outputs]
        if self._rendered is not None:
            tensors += [self._send(m) for m in self._rendered.take(recipe)]
        image, mesh, mesh_novel = (*tensors, None, None)[:3]
        index = torch.from_numpy(recipe.indices.copy())
        return Batch(
            image=image,  # [B, 3, H, W]
            mesh=mesh,  # [B, 1, H, W]
            mesh_novel=mesh_novel,
            pid=self._send(self._pid[index]),
            camera=self._send(self._camera[index]),
            index=self._send(index),
        )

    def _send(self, tensor: Tensor) -> Tensor:
        return tensor.pin_memory().to(self.device, non_blocking=True) if self.device.type == "cuda" else tensor

    def _name_broken(self, recipe: Recipe, error: Exception) -> str:
        for path in self._files(recipe):
            reason = why_broken(path)
            if reason is not None:
                return f"cannot read image {path}: {reason}"
        return f"DALI cannot read a batch with {self.records[int(recipe.indices[0])].path}: {error}"

    def _files(self, recipe: Recipe) -> list[pathlib.Path]:
        """Every file of a batch: images, then pictures of the own views, then of the new ones."""
        chosen = [self.records[i] for i in recipe.indices.tolist()]
        files = [r.path for r in chosen]
        if self._pictures is not None:
            files += [self._pictures.path(r, 0.0) for r in chosen]
            files += [self._pictures.path(r, self.yaws[self.chance.yaw(recipe, row)]) for row, r in enumerate(chosen)]
        return files

    def _feed(self, info: Any) -> tuple[list[np.ndarray], ...]:
        """What DALI asks for: encoded files and drawn changes of the next batch."""
        del info
        recipe = next(self._waiting)  # StopIteration ends DALI's epoch
        if self._rendered is not None:
            self._rendered.request(recipe)
        try:
            encoded = [_read(path) for path in self._files(recipe)]
        except (OSError, ValueError) as error:  # raised when its batch is due
            self._unreadable, self._waiting = error, iter(())
            raise StopIteration from None
        batch = len(recipe.indices)
        fed = [encoded[at : at + batch] for at in range(0, len(encoded), batch)]
        if self.augment is not None:
            changes = [self.chance.change(recipe, row) for row in range(batch)]
            fed += [list(column) for column in zip(*(_numbers(c, self.augment.pad, self.image_size[1]) for c in changes), strict=True)]
        return tuple(fed)

    def _build(self, batch_size: int) -> Any:
        mixed = self.device.type == "cuda"
        device = (self.device.index or 0) if mixed else None
        pipeline = self._dali.Pipeline(
            batch_size=batch_size, num_threads=max(1, self.workers), device_id=device, prefetch_queue_depth=DEPTH
        )
        with pipeline:
            pipeline.set_outputs(*_graph(self._dali, self._feed, self.image_size, self.augment, self._pictures is not None, mixed))
        pipeline.build()
        return pipeline

    def _drain(self) -> None:
        """Take what DALI worked ahead for an epoch that was left."""
        self._waiting = iter(())
        if self._rendered is not None:
            self._rendered.forget()
        try:
            while True:
                self._pipeline.run()
        except StopIteration:
            return

    def _stop(self) -> None:
        self._pipeline, self._waiting = None, iter(())
        if self._rendered is not None:
            self._rendered.forget()
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)
        self._rendered = self._pool = None

    def close(self) -> None:
        self._turn += 1
        self._stop()


def _read(path: pathlib.Path) -> np.ndarray:
    try:
        encoded = np.fromfile(path, dtype=np.uint8)
    except FileNotFoundError:
        raise FileNotFoundError(f"cannot read image {path}: no such file") from None
    if encoded.size == 0:
        raise OSError(f"cannot read image {path}: empty file")
    return encoded


def _numbers(change: Change, pad: int, width: int) -> tuple[np.ndarray, ...]:
    """A change as DALI takes it. The flip comes last there, so columns are counted from the other side where it is set."""
    top, left, h, w = change.box or (0, 0, 0, 0)
    across = change.left - pad
    if change.flip:
        across, left = -across, width - left - w
    return (
        np.int32(change.flip), np.array([change.top - pad, across], np.int32), np.array(change.jitter or (1, 1, 1), np.float32),
        np.array([top, left], np.float32), np.array([h, w], np.float32),
    )  # fmt: skip


def _graph(
    dali: Any, feed: Callable, image_size: tuple[int, int], augment: Augment | None, pictures: bool, mixed: bool
) -> list[Any]:
    """The pipeline's operators, from the feed to what leaves it."""
    fn, types = dali.fn, dali.types
    counts = (1 + 2 * pictures, 5 if augment is not None else 0)
    fed = fn.external_source(source=feed, num_outputs=sum(counts), batch=True, batch_info=True, no_copy=True, cycle=None)
    files, drawn = fed[: counts[0]], fed[counts[0] :]

    def decode(encoded: Any, kind: Any) -> Any:
        # The orientation tag is left alone, as Pillow does; fancy upsampling is what every other decoder does.
        more = {"device": "mixed", "jpeg_fancy_upsampling": True} if mixed else {"device": "cpu"}
        picture = fn.decoders.image(encoded, output_type=kind, adjust_orientation=False, **more)
        return fn.resize(picture, size=image_size, interp_type=types.INTERP_CUBIC, antialias=True)

    flip = 0
    image = decode(files[0], types.RGB)  # [H, W, 3] uint8
    if augment is not None:
        flip, corner, factors, box, extent = drawn
        if augment.pad:
            image = fn.slice(
                image, start=corner, shape=image_size, axes=(0, 1), out_of_bounds_policy="pad", fill_values=[0]
            )
        if augment.color_jitter:
            image = _jitter(dali, image, factors)
        if augment.erase:
            image = fn.erase(image, anchor=box, shape=extent, axes=(0, 1), fill_value=FILL.astype(float).tolist())
    mean, std = ([255 * v for v in values] for values in (IMAGENET_MEAN, IMAGENET_STD))
    out = [fn.crop_mirror_normalize(image, mirror=flip, mean=mean, std=std, dtype=types.FLOAT, output_layout="CHW")]
    for encoded in files[1:]:
        grey = decode(encoded, types.GRAY)  # [H, W, 1] uint8
        out.append(fn.crop_mirror_normalize(grey, mean=[127.5], std=[127.5], dtype=types.FLOAT, output_layout="CHW"))
    return out


def _jitter(dali: Any, image: Any, factors: Any) -> Any:
    """`augment.jitter_colors` in DALI's arithmetic."""
    fn, types, clamp = dali.fn, dali.types, dali.math.clamp
    luma = types.Constant(LUMA.reshape(1, 1, 3))

    def grey(x: Any) -> Any:
        return fn.reductions.sum(x * luma, axes=[2], keep_dims=True)  # [H, W, 1]

    x = fn.cast(image, dtype=types.FLOAT) * factors[0]
    middle = fn.reductions.mean(grey(x), axes=[0, 1], keep_dims=True)
    x = clamp(middle + (x - middle) * factors[1], 0.0, 255.0)
    own = grey(x)
    x = clamp(own + (x - own) * factors[2], 0.0, 255.0)
    return fn.reshape(fn.cast(x, dtype=types.UINT8), layout="HWC")
