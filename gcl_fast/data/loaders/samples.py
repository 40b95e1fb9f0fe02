"""One batch from its recipe, for the torch loader. Runs in the caller or in a worker process."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from gcl_fast.data.loaders.assembly import Assembly
from gcl_fast.data.loaders.recipes import Chance, Recipe
from gcl_fast.data.loaders.stores import Stores, load_planar, render_views
from gcl_fast.images import mesh_from_unit
from gcl_fast.records import Batch, Record

if TYPE_CHECKING:
    from gcl_fast.meshes.sources import MeshSource


class Samples(torch.utils.data.Dataset[Batch]):
    """Recipe -> Batch. Everything random is a function of (seed, epoch, position, row) alone.

    cache  pictures kept from one epoch to the next, None: every one is read anew
    """

    def __init__(
        self,
        records: Sequence[Record],
        image_size: tuple[int, int],
        meshes: MeshSource | None,
        chance: Chance,
        cache: Stores | None,
    ) -> None:
        self.records, self.image_size = list(records), image_size
        self.meshes, self.chance, self.cache = meshes, chance, cache
        self.assembly = Assembly(self.records, chance)

    def __getitem__(self, recipe: Recipe) -> Batch:
        mesh = mesh_novel = None
        if self.cache is not None:
            pictures = self.cache.images.rows(recipe.indices)  # B of [3, H, W]
        else:
            pictures = [load_planar(self.records[i], self.image_size) for i in recipe.indices.tolist()]
        if self.meshes is not None:
            rows = [self._views(self.meshes, i, recipe, row) for row, i in enumerate(recipe.indices.tolist())]
            views = mesh_from_unit(torch.stack(rows))  # [B, 2, H, W]
            mesh, mesh_novel = views[:, :1].contiguous(), views[:, 1:].contiguous()  # [B, 1, H, W]
        return self.assembly.batch(recipe, pictures, mesh, mesh_novel)

    def _views(self, meshes: MeshSource, i: int, recipe: Recipe, row: int) -> Tensor:
        """[2, H, W] in [0, 1]: the photo's own view and one drawn from `yaws`."""
        yaw = self.chance.yaws[self.chance.yaw(recipe, row)]
        kept = None if self.cache is None else self.cache.meshes
        if kept is not None and kept.filled[i]:
            return torch.cat([kept.pictures[i : i + 1], render_views(meshes, self.records[i], (yaw,), self.image_size)])
        views = render_views(meshes, self.records[i], (0.0, yaw), self.image_size)  # in one call: the file is read once
        if kept is not None:
            kept.put([i], [views[0]])
        return views
