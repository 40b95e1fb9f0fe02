"""Decoded pictures in memory, for every loader that keeps them: read from disk once, ahead of the batches where threads may.

One kind of store serves both loaders that cache. The cached loader fills it by threads, on the host or a GPU, with meshes as
8-bit grey of every view; the torch loader's worker processes fill and read one together in shared memory, with the photo's own
view as floats, so that its batches stay the bits that they are without a cache.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from gcl_fast.errors import InputError
from gcl_fast.images import load_uint8, unit_to_levels
from gcl_fast.records import Record
from gcl_fast.transfer import send

if TYPE_CHECKING:
    from gcl_fast.meshes.sources import MeshSource

Load = Callable[[int, Sequence[int]], Tensor]


class Store:
    """Pictures by key, filled as they are first asked for.

    count   records; a key is record * views + view
    shape   of a picture, such as [3, H, W]
    load    (record, its views that are needed) -> [len(views), *shape] of `dtype`; may run in a thread
    views   pictures of a record
    device  where they are kept
    pool    threads that load ahead; None: loaded in the caller
    shared  in memory that worker processes fill and read together, each loading in itself
    """

    def __init__(
        self,
        count: int,
        shape: tuple[int, ...],
        load: Load,
        *,
        views: int = 1,
        dtype: torch.dtype = torch.uint8,
        device: torch.device | str = "cpu",
        pool: ThreadPoolExecutor | None = None,
        shared: bool = False,
    ) -> None:
        self.views, self.load, self.pool = views, load, pool
        self.pictures = torch.empty((count * views, *shape), dtype=dtype, device=device)  # [N * views, *shape]
        self.filled = torch.zeros(count * views, dtype=torch.bool)  # set after the pixels are written
        if shared:
            self.pictures.share_memory_()
            self.filled.share_memory_()
        self._ahead: dict[int, tuple[Future[Tensor], int]] = {}  # key -> what loads it, and its place in the result

    def request(self, keys: Iterable[int]) -> None:
        """Begin to load what is missing, where there are threads for it."""
        if self.pool is None:
            return
        missing = [key for key in self._missing(keys) if key not in self._ahead]
        for record, views in self._by_record(missing).items():
            future = self.pool.submit(self.load, record, views)
            self._ahead.update({record * self.views + view: (future, place) for place, view in enumerate(views)})

    def begin_anew(self, pool: ThreadPoolExecutor | None) -> None:
        """Load by other threads from now on; what the old ones have not brought is forgotten."""
        self.pool = pool
        self._ahead.clear()

    def fill(self, keys: Iterable[int]) -> None:
        """Have these pictures. Raises what loading one of them raised."""
        missing = self._missing(keys)
        if not missing:
            return
        loaded: list[int] = []
        pictures: list[Tensor] = []
        for record, views in self._by_record([key for key in missing if key not in self._ahead]).items():
            loaded += [record * self.views + view for view in views]
            pictures += list(self.load(record, views))
        waited = [key for key in missing if key in self._ahead]
        try:
            for key in waited:
                future, place = self._ahead[key]
                pictures.append(future.result()[place])
        finally:  # what failed is tried again when it is asked for again
            for key in waited:
                del self._ahead[key]
        self.put(loaded + waited, pictures)

    def put(self, keys: list[int], pictures: Sequence[Tensor]) -> None:
        """Keep pictures that were made elsewhere."""
        if self.pictures.device.type == "cpu":
            for key, picture in zip(keys, pictures, strict=True):
                self.pictures[key] = picture
        else:
            where = send(torch.tensor(keys), self.pictures.device)
            self.pictures[where] = send(torch.stack(list(pictures)), self.pictures.device)
        self.filled[keys] = True

    def gather(self, keys: np.ndarray) -> Tensor:
        """The pictures of keys [B], copied: [B, *shape] on the store's device."""
        self.fill(keys)
        index = torch.from_numpy(np.asarray(keys, dtype=np.int64))
        if self.pictures.device.type == "cuda":
            return self.pictures[send(index, self.pictures.device)]
        pinned = torch.cuda.is_available()
        out = torch.empty((len(keys), *self.pictures.shape[1:]), dtype=self.pictures.dtype, pin_memory=pinned)
        return torch.index_select(self.pictures, 0, index, out=out)

    def rows(self, keys: np.ndarray) -> list[Tensor]:
        """The pictures themselves, not copied: to be read only. For a store on the CPU."""
        self.fill(keys)
        return [self.pictures[key] for key in np.asarray(keys).tolist()]

    def _missing(self, keys: Iterable[int]) -> list[int]:
        filled = self.filled.numpy()
        return [key for key in dict.fromkeys(map(int, keys)) if not filled[key]]

    def _by_record(self, keys: Sequence[int]) -> dict[int, list[int]]:
        views: dict[int, list[int]] = {}
        for key in keys:
            views.setdefault(key // self.views, []).append(key % self.views)
        return views


class Stores:
    """The pictures of one list of records, for every loader that reads it: decoded once whatever the number of loaders.

    images  [3, H, W] of each record
    meshes  [H, W] of each record in the photo's own view (view 0) and turned to each of `yaws` (1, 2, ...), as 8-bit grey, which
            is what pictures on disk have (from vertices at most half a level from the exact grey), or as floats in [0, 1] with
            `exact_meshes`; None where no meshes are given or they are not to be kept
    workers threads that load ahead
    shared  for worker processes: see `Store`; refused where it does not fit
    """

    def __init__(
        self,
        records: Sequence[Record],
        image_size: tuple[int, int],
        *,
        meshes: MeshSource | None = None,
        yaws: Sequence[float] = (),
        exact_meshes: bool = False,
        device: torch.device | str = "cpu",
        workers: int = 0,
        shared: bool = False,
    ) -> None:
        self.records, self.image_size, self.device = list(records), image_size, torch.device(device)
        self.yaws = tuple(float(y) for y in yaws)
        self.source, self.exact_meshes = meshes, exact_meshes
        self.workers = workers
        self.pool = self._threads()
        count, views = len(self.records), 1 + len(self.yaws)
        pixel = 3 + (views * (4 if exact_meshes else 1) if meshes is not None else 0)
        self.bytes = count * image_size[0] * image_size[1] * pixel
        if shared:
            _check_shared_memory(self.bytes)
        self.images = Store(count, (3, *image_size), self._image, device=device, pool=self.pool, shared=shared)
        self.meshes: Store | None = None
        if meshes is not None:
            dtype = torch.float32 if exact_meshes else torch.uint8
            self.meshes = Store(
                count, image_size, self._views, views=views, dtype=dtype, device=device, pool=self.pool, shared=shared
            )

    def _image(self, record: int, views: Sequence[int]) -> Tensor:
        del views  # an image has one
        return load_planar(self.records[record], self.image_size)[None]

    def _views(self, record: int, views: Sequence[int]) -> Tensor:
        assert self.source is not None
        yaws = (0.0, *self.yaws)
        grey = render_views(self.source, self.records[record], [yaws[view] for view in views], self.image_size)  # [R, H, W]
        return grey if self.exact_meshes else unit_to_levels(grey)

    def _threads(self) -> ThreadPoolExecutor | None:
        return ThreadPoolExecutor(self.workers, thread_name_prefix="pictures") if self.workers else None

    def close(self) -> None:
        """Stop the threads; pictures that are asked for later start new ones."""
        if self.pool is None:
            return
        self.pool.shutdown(cancel_futures=True)
        self.pool = self._threads()  # none runs before there is something to load
        for store in (self.images, self.meshes):
            if store is not None:
                store.begin_anew(self.pool)


def load_planar(record: Record, image_size: tuple[int, int]) -> Tensor:
    """A decoded, resized photo as it is kept: uint8 [3, H, W]."""
    pixels = load_uint8(record.path, image_size)  # [H, W, 3]
    return torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1)))


def render_views(meshes: MeshSource, record: Record, yaws: Sequence[float], image_size: tuple[int, int]) -> Tensor:
    """[R, H, W] float32 in [0, 1] from a mesh source. ValueError where it gives anything else."""
    views = meshes.render(record, yaws)
    expected = (len(yaws), *image_size)
    if tuple(views.shape) != expected or views.dtype != torch.float32:
        got = f"{views.dtype} {list(views.shape)}"
        raise ValueError(f"mesh of {record.path}: expected float32 views {list(expected)}, got {got}")
    return views


def _check_shared_memory(needed: int) -> None:
    """A full /dev/shm kills the process with SIGBUS: say so before."""
    try:
        free = shutil.disk_usage("/dev/shm").free
    except OSError:
        return  # no such place on this system
    if needed > free:
        raise InputError(
            f"TorchLoader: cache=True with workers needs {needed / 2**20:.0f} MiB of shared memory, /dev/shm has "
            f"{free / 2**20:.0f} MiB free: use workers=0, cache=False, or give the container more (--shm-size)"
        )
