"""Batches through NVIDIA DALI: its threads decode ahead, or the GPU does."""

from __future__ import annotations

import pathlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from gcl_fast.data.datasets.readable import why_broken
from gcl_fast.data.loaders.assembly import Assembly
from gcl_fast.data.loaders.finish import finish_meshes
from gcl_fast.data.loaders.loader_base import Loader, LoaderOptions
from gcl_fast.data.loaders.meshes_ahead import MeshesAhead
from gcl_fast.data.loaders.recipes import Recipe
from gcl_fast.errors import FileError, MissingFileError
from gcl_fast.images import encoded_plainly, open_image, orientation_of
from gcl_fast.meshes.sources import RenderedFolders
from gcl_fast.packages import missing
from gcl_fast.records import Batch, Record

if TYPE_CHECKING:
    from typing_extensions import Unpack

DEPTH = 2  # batches that DALI works ahead


def dali() -> Any:
    """nvidia.dali, or an error that says what to install."""
    try:
        import nvidia.dali.fn
        import nvidia.dali.types
    except ImportError as error:
        raise missing("nvidia.dali", "the DALI loader", error) from error
    return nvidia.dali


class DaliLoader(Loader):
    """One DALI pipeline that lives as long as the loader. Arguments as `Loader` has them, and:

    workers  threads of DALI, and as many that render meshes; 0: one of each
    device   "cpu", or a CUDA device: then the last part of decoding and all that follows happens there (`mixed`)

    The batches are the torch loader's: same order, same random choices. DALI decodes upright JPEG, PNG and BMP files of 8 bits;
    what it would read in another way than Pillow (16 bits, transparency, an orientation tag, other formats) `images` decodes
    for it. On the CPU DALI only decodes, which gives Pillow's
    pixels; torch resizes: its 8-bit bicubic takes a third of the time of DALI's, and was within 1 of 255 levels of Pillow's
    at the sizes of person crops (4 on pictures of ten pixels).
    On a GPU DALI resizes too, in two passes (within 2 levels on a CPU; not run again on a GPU). Crops, flips, erasing and
    normalisation are those of the cached loader. Meshes rendered from vertices are the same bits.

    Nothing is asked of DALI before an epoch begins, so a plan may come out of the features of the epoch before; an epoch
    that is left half way is drained when the next one starts. Batches are on `device`. One epoch at a time.
    """

    def __init__(
        self,
        records: Sequence[Record],
        image_size: tuple[int, int],
        *,
        device: torch.device | str = "cpu",
        **options: Unpack[LoaderOptions],
    ) -> None:
        super().__init__(records, image_size, **options)
        self._dali = dali()
        self.device = torch.device(device)
        self._assembly = Assembly(self.records, self.chance, device)
        self._pictures = self.meshes if isinstance(self.meshes, RenderedFolders) else None  # DALI decodes these too
        self._pool: ThreadPoolExecutor | None = None
        self._pipeline: Any = None
        self._turn = 0
        self._waiting: Iterator[Recipe] = iter(())
        self._rendered: MeshesAhead | None = None
        self._unreadable: Exception | None = None
        self._plain: dict[pathlib.Path, bool] = {}  # of the files read so far

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
            outputs = self._run()
        except StopIteration:  # the source ended early: it could not read a file of this batch
            error, self._unreadable = self._unreadable, None
            self._stop()
            raise error or RuntimeError("DaliLoader: the pipeline ended before the epoch did") from None
        except RuntimeError as error:
            self._stop()
            raise FileError(self._name_broken(recipe, error)) from error
        pictures = [_resized(output, self.image_size) for output in outputs]  # [B, 3 or 1, H, W] uint8
        mesh = mesh_novel = None
        if self._pictures is not None:
            mesh, mesh_novel = (finish_meshes(grey.squeeze(1)) for grey in pictures[1:])
        elif self._rendered is not None:
            mesh, mesh_novel = (self._assembly.send(m) for m in self._rendered.take(recipe))  # [B, 1, H, W]
        return self._assembly.batch(recipe, pictures[0], mesh, mesh_novel)

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
        """What DALI asks for: the encoded files of the next batch."""
        del info
        recipe = next(self._waiting)  # StopIteration ends DALI's epoch
        if self._rendered is not None:
            self._rendered.request(recipe)
        try:
            files, images = self._files(recipe), len(recipe.indices)
            encoded = [self._read(path, "RGB" if i < images else "L") for i, path in enumerate(files)]
        except (OSError, ValueError) as error:  # raised when its batch is due
            self._unreadable, self._waiting = error, iter(())
            raise StopIteration from None
        batch = len(recipe.indices)
        return tuple(encoded[at : at + batch] for at in range(0, len(encoded), batch))

    def _read(self, path: pathlib.Path, mode: str) -> np.ndarray:
        """An encoded file that DALI decodes as the other loaders do."""
        if path not in self._plain:
            self._plain[path] = _is_plain(path)
        if not self._plain[path]:
            return np.frombuffer(encoded_plainly(path, mode), np.uint8)
        try:
            return np.fromfile(path, dtype=np.uint8)
        except FileNotFoundError:
            raise MissingFileError(f"cannot read image {path}: no such file") from None

    def _build(self, batch_size: int) -> Any:
        mixed = self.device.type == "cuda"
        device = (self.device.index or 0) if mixed else None
        pipeline = self._dali.Pipeline(
            batch_size=batch_size,
            num_threads=max(1, self.workers),
            device_id=device,
            prefetch_queue_depth=DEPTH,
            exec_dynamic=True,  # the executor whose outputs may belong to a stream
        )
        with pipeline:
            pipeline.set_outputs(*self._graph(mixed))
        pipeline.build()
        return pipeline

    def _graph(self, mixed: bool) -> list[Any]:
        """From the encoded files to uint8 [H, W, C] of each, resized where the GPU does it."""
        fn, types = self._dali.fn, self._dali.types
        kinds = [types.RGB] if self._pictures is None else [types.RGB, types.GRAY, types.GRAY]
        files = fn.external_source(source=self._feed, num_outputs=len(kinds), batch=True, batch_info=True, no_copy=True)
        # A file with an orientation tag comes upright; fancy upsampling is what every other decoder does.
        place = {"device": "mixed", "jpeg_fancy_upsampling": True} if mixed else {"device": "cpu"}
        decoded = [
            fn.decoders.image(encoded, output_type=kind, adjust_orientation=False, **place)
            for encoded, kind in zip(files, kinds, strict=True)
        ]
        if not mixed:
            return decoded
        return [resized(fn, types, pictures, self.image_size) for pictures in decoded]

    def _drain(self) -> None:
        """Take what DALI worked ahead for an epoch that was left."""
        self._waiting = iter(())
        if self._rendered is not None:
            self._rendered.forget()
        try:
            while True:
                self._run()
        except StopIteration:
            return

    def _run(self) -> Any:
        """The next outputs of the pipeline. Errors: StopIteration at the end of an epoch.

        On a GPU they belong to torch's current stream: their decoding comes before what torch queues there next, and DALI
        decodes into a buffer again only after what was queued there until the buffer was let go. Host-synchronous outputs would
        have the second promise for the host alone, whose work is over long before the kernels' that read the buffer.
        """
        if self.device.type != "cuda":
            return self._pipeline.run()
        return self._pipeline.run(torch.cuda.current_stream(self.device))

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


def resized(fn: Any, types: Any, pictures: Any, size: tuple[int, int]) -> Any:
    """Resized by DALI across, then down, each to uint8, as Pillow does: bicubic weights overshoot at an edge, which is cut off
    after each. In one go a body's outline differs from the other loaders' by up to 15 levels, so by 2."""
    way = {"mode": "stretch", "interp_type": types.INTERP_CUBIC, "antialias": True}
    return fn.resize(fn.resize(pictures, resize_x=size[1], **way), resize_y=size[0], **way)


def _is_plain(path: pathlib.Path) -> bool:
    """Whether DALI reads a file as `images` does: 8 bits, grey or RGB, upright. Errors: MissingFileError, FileError."""
    try:
        with open_image(path) as image:
            plain = image.format in ("JPEG", "MPO", "PNG", "BMP") and image.mode in ("L", "RGB") and orientation_of(image) == 1
            png = image.format == "PNG"
    except FileNotFoundError:
        raise MissingFileError(f"cannot read image {path}: no such file") from None
    except Exception as error:  # a broken file may raise nearly anything
        raise FileError(f"cannot read image {path}: {error}") from error
    if not plain or not png:
        return plain
    with path.open("rb") as file:
        return file.read(25)[24] == 8  # bits a channel


def _resized(output: Any, image_size: tuple[int, int]) -> Tensor:
    """uint8 [B, C, H, W] from DALI's [h, w, C] pictures, in one operation where they are of one size."""

    def fit(x: Tensor) -> Tensor:  # [n, C, h, w], channels last
        if tuple(x.shape[2:]) == image_size:
            return x
        return interpolate(x, size=image_size, mode="bicubic", antialias=True)

    if output.is_dense_tensor():
        return fit(torch.from_dlpack(output.as_tensor()).movedim(-1, 1))
    return torch.cat([fit(torch.from_dlpack(picture).movedim(-1, 0)[None]) for picture in output])
