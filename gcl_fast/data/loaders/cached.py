"""Batches from decoded pictures that stay in memory: the fastest loader where they fit."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from gcl_fast.data.loaders.assembly import Assembly
from gcl_fast.data.loaders.finish import finish_meshes
from gcl_fast.data.loaders.loader_base import Loader, LoaderOptions
from gcl_fast.data.loaders.meshes_ahead import AHEAD, MeshesAhead
from gcl_fast.data.loaders.recipes import Recipe
from gcl_fast.data.loaders.stores import Store, Stores
from gcl_fast.records import Batch, Record

if TYPE_CHECKING:
    from typing_extensions import Unpack


class CachedLoader(Loader):
    """Every picture is decoded and resized once, by `workers` threads as it is first asked for, and kept as uint8; a batch
    is then a copy out of memory, cropped, flipped, erased and normalised together. Arguments as `Loader` has them, and:

    stores  the pictures, to be shared by loaders of the same records; None: its own, with the meshes kept too
    device  where batches are made: on a CUDA device all but the copy of bytes happens there, and nothing waits for it

    Memory: 3 bytes a pixel and image, and one more for each of the 1 + len(yaws) views where meshes are kept (Market-1501's
    training set at 256x128: 1.2 GiB, 4.3 GiB with seven yaws); `free_memory.cached_bytes` counts them.

    Against the torch loader: images on the CPU the same bits, augmented or not; kept meshes are 8-bit grey, so the same
    bits where they come from pictures of that size and within 1/255 (half a grey level) where they are rendered from
    vertices; meshes that are not kept the same bits. On CUDA the last bit of a normalised value may differ, and colour
    jitter by one grey level. Batches are on `device`. One epoch at a time.
    """

    def __init__(
        self,
        records: Sequence[Record],
        image_size: tuple[int, int],
        *,
        stores: Stores | None = None,
        device: torch.device | str = "cpu",
        **options: Unpack[LoaderOptions],
    ) -> None:
        super().__init__(records, image_size, **options)
        self.device = torch.device(device)
        self._close_stores = stores is None
        if stores is None:
            stores = Stores(
                self.records, self.image_size, meshes=self.meshes, yaws=self.yaws, device=device, workers=self.workers
            )
        self.stores = stores
        if stores.image_size != self.image_size or stores.records != self.records:
            raise ValueError(
                f"CachedLoader: stores must hold these {len(self.records)} records at {self.image_size}, "
                f"got {len(stores.records)} at {stores.image_size}"
            )
        kept = stores.meshes if self.meshes is not None else None
        if kept is not None and stores.yaws != self.yaws:
            raise ValueError(f"CachedLoader: stores must hold the yaws {self.yaws}, got {stores.yaws}")
        self._kept = kept
        self._rendered: MeshesAhead | None = None
        if self.meshes is not None and kept is None:
            self._rendered = MeshesAhead(self.meshes, self.records, self.chance, stores.pool)
        self._assembly = Assembly(self.records, self.chance, device)

    def _batches(self, recipes: list[Recipe]) -> Iterator[Batch]:
        begun: deque[tuple[Recipe, np.ndarray | None]] = deque()
        waiting = iter(recipes)
        try:
            for _ in recipes:
                for recipe in islice(waiting, 1 + AHEAD - len(begun)):
                    begun.append((recipe, self._begin(recipe)))
                yield self._batch(*begun.popleft())
        finally:
            if self._rendered is not None:
                self._rendered.forget()

    def _begin(self, recipe: Recipe) -> np.ndarray | None:
        """Have the threads read what is missing; the keys of both kept views of each row [2, B]: the photo's, then the new."""
        self.stores.images.request(recipe.indices)
        if self._rendered is not None:
            self._rendered.request(recipe)
        if self._kept is None:
            return None
        first = recipe.indices * (1 + len(self.yaws))
        keys = np.stack([first, first + [1 + self.chance.yaw(recipe, row) for row in range(len(first))]])
        self._kept.request(keys.T.flatten())  # the views of a record side by side
        return keys

    def _batch(self, recipe: Recipe, views: np.ndarray | None) -> Batch:
        mesh = mesh_novel = None
        if self._kept is not None and views is not None:
            self._kept.fill(views.T.flatten())  # both views of a record in one reading
            mesh, mesh_novel = (finish_meshes(self._pictures(self._kept, keys)) for keys in views)
        elif self._rendered is not None:
            mesh, mesh_novel = (self._assembly.send(m) for m in self._rendered.take(recipe))  # [B, 1, H, W]
        return self._assembly.batch(recipe, self._pictures(self.stores.images, recipe.indices), mesh, mesh_novel)

    def _pictures(self, store: Store, keys: np.ndarray) -> Tensor | list[Tensor]:
        if self.device.type == "cpu" and store.pictures.device.type == "cpu":
            return store.rows(keys)
        return store.gather(keys).to(self.device, non_blocking=True)

    def close(self) -> None:
        """Stop the threads, if they are this loader's own (the next epoch starts new ones); what was read stays."""
        if self._close_stores:
            self.stores.close()
