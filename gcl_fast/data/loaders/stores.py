"""Decoded pictures in memory: read from disk once, by threads that work ahead of the batches."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from gcl_fast.data.loaders.samples import render_views
from gcl_fast.images import load_uint8
from gcl_fast.records import Record

if TYPE_CHECKING:
    from gcl_fast.meshes.sources import MeshSource

Load = Callable[[int, Sequence[int]], np.ndarray]


class Store:
    """uint8 pictures by key, filled as they are first asked for.

    count   records; a key is record * views + view
    shape   of a picture, such as [3, H, W]
    load    (record, its views that are needed) -> uint8 [len(views), *shape]; may run in a thread
    views   pictures of a record
    device  where they are kept
    pool    threads that load ahead; None: loaded in the caller
    """

    def __init__(
        self,
        count: int,
        shape: tuple[int, ...],
        load: Load,
        *,
        views: int = 1,
        device: torch.device | str = "cpu",
        pool: ThreadPoolExecutor | None = None,
    ) -> None:
        self.views, self.load, self.pool = views, load, pool
        self.pictures = torch.empty((count * views, *shape), dtype=torch.uint8, device=device)  # [N * views, *shape]
        self.filled = np.zeros(count * views, dtype=bool)
        self._ahead: dict[int, tuple[Future, int]] = {}  # key -> what loads it, and its place in the result

    def request(self, keys: Iterable[int]) -> None:
        """Begin to load what is missing, where there are threads for it."""
        if self.pool is None:
            return
        missing = [k for k in dict.fromkeys(map(int, keys)) if not self.filled[k] and k not in self._ahead]
        for record, views in self._by_record(missing).items():
            future = self.pool.submit(self.load, record, views)
            self._ahead.update({record * self.views + view: (future, place) for place, view in enumerate(views)})

    def fill(self, keys: Iterable[int]) -> None:
        """Have these pictures. Raises what loading one of them raised."""
        missing = [k for k in dict.fromkeys(map(int, keys)) if not self.filled[k]]
        if not missing:
            return
        keys, pictures = [], []
        for record, views in self._by_record([k for k in missing if k not in self._ahead]).items():
            keys += [record * self.views + view for view in views]
            pictures += list(self.load(record, views))
        waited = [k for k in missing if k in self._ahead]
        try:
            for key in waited:
                future, place = self._ahead[key]
                pictures.append(future.result()[place])
        finally:  # what failed is tried again when it is asked for again
            for key in waited:
                del self._ahead[key]
        self._put(keys + waited, pictures)

    def gather(self, keys: np.ndarray) -> Tensor:
        """uint8 [B, *shape] on the store's device; keys [B]."""
        self.fill(keys)
        index = torch.from_numpy(np.asarray(keys, dtype=np.int64))
        if self.pictures.device.type == "cuda":
            return self.pictures[index.pin_memory().to(self.pictures.device, non_blocking=True)]
        pinned = torch.cuda.is_available()
        out = torch.empty((len(keys), *self.pictures.shape[1:]), dtype=torch.uint8, pin_memory=pinned)
        return torch.index_select(self.pictures, 0, index, out=out)

    def rows(self, keys: np.ndarray) -> list[Tensor]:
        """The pictures themselves, not copied: to be read only. For a store on the CPU."""
        self.fill(keys)
        return [self.pictures[k] for k in np.asarray(keys).tolist()]

    def _by_record(self, keys: Sequence[int]) -> dict[int, list[int]]:
        found: dict[int, list[int]] = {}
        for key in keys:
            found.setdefault(key // self.views, []).append(key % self.views)
        return found

    def _put(self, keys: list[int], pictures: list[np.ndarray]) -> None:
        if self.pictures.device.type == "cpu":
            for key, picture in zip(keys, pictures, strict=True):
                self.pictures[key] = torch.from_numpy(picture)
        else:
            stacked = torch.from_numpy(np.stack(pictures)).to(self.pictures.device)
            self.pictures[torch.tensor(keys, device=self.pictures.device)] = stacked
        self.filled[keys] = True  # after the pixels


class Stores:
    """The pictures of one list of records, for every loader that reads it: decoded once whatever the number of loaders.

    images  [3, H, W] of each record
    meshes  [H, W] of each record in the photo's own view (view 0) and turned to each of `yaws` (1, 2, ...); None where
            no meshes are given or they are not to be kept
    """

    def __init__(
        self,
        records: Sequence[Record],
        image_size: tuple[int, int],
        *,
        meshes: MeshSource | None = None,
        yaws: Sequence[float] = (),
        device: torch.device | str = "cpu",
        workers: int = 0,
    ) -> None:
        self.records, self.image_size, self.device = list(records), image_size, torch.device(device)
        self.yaws = tuple(float(y) for y in yaws)
        self.pool = ThreadPoolExecutor(workers, thread_name_prefix="pictures") if workers else None
        count = len(self.records)
        self.images = Store(count, (3, *image_size), self._image, device=device, pool=self.pool)
        self.meshes: Store | None = None
        if meshes is not None:
            load = mesh_loader(meshes, self.records, (0.0, *self.yaws), image_size)
            self.meshes = Store(count, image_size, load, views=1 + len(self.yaws), device=device, pool=self.pool)

    def _image(self, record: int, views: Sequence[int]) -> np.ndarray:
        del views  # an image has one
        pixels = load_uint8(self.records[record].path, self.image_size)  # [H, W, 3]
        return np.ascontiguousarray(pixels.transpose(2, 0, 1))[None]

    def close(self) -> None:
        if self.pool is not None:
            self.pool.shutdown(cancel_futures=True)


def mesh_loader(meshes: MeshSource, records: Sequence[Record], yaws: Sequence[float], image_size: tuple[int, int]) -> Load:
    """Guides as 8-bit grey, which is what pictures on disk have; from vertices at most half a level from the exact grey."""

    def load(record: int, views: Sequence[int]) -> np.ndarray:
        grey = render_views(meshes, records[record], [yaws[v] for v in views], image_size)  # [R, H, W]
        return grey.mul(255).round_().to(torch.uint8).numpy()

    return load
