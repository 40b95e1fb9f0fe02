"""Meshes rendered for one batch and not kept, by threads that work ahead of the batches."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from gcl_fast.data.loaders.recipes import Chance, Recipe
from gcl_fast.data.loaders.stores import render_views
from gcl_fast.images import mesh_from_unit
from gcl_fast.records import Record

if TYPE_CHECKING:
    from gcl_fast.meshes.sources import MeshSource

AHEAD = 2  # batches that are begun before they are asked for


class MeshesAhead:
    """The photo's own view and the new one of each row, the same bits as the torch loader's."""

    def __init__(self, meshes: MeshSource, records: Sequence[Record], chance: Chance, pool: ThreadPoolExecutor | None) -> None:
        self.meshes, self.records, self.chance, self.pool = meshes, records, chance, pool
        self._ahead: dict[int, list[Future[Tensor]]] = {}  # by the recipe's identity: the epoch that runs holds its recipes

    def request(self, recipe: Recipe) -> None:
        if self.pool is not None and id(recipe) not in self._ahead:
            rows = range(len(recipe.indices))
            self._ahead[id(recipe)] = [self.pool.submit(self._render, recipe, row) for row in rows]

    def take(self, recipe: Recipe) -> tuple[Tensor, Tensor]:
        """mesh and mesh_novel, float32 [B, 1, H, W] in [-1, 1]."""
        futures = self._ahead.pop(id(recipe), None)
        rows = range(len(recipe.indices))
        views = [f.result() for f in futures] if futures else [self._render(recipe, row) for row in rows]
        both = mesh_from_unit(torch.stack(views))  # [B, 2, H, W]
        return both[:, :1].contiguous(), both[:, 1:].contiguous()

    def forget(self) -> None:
        """Drop what was begun for an epoch that ended early."""
        for futures in self._ahead.values():
            for future in futures:
                future.cancel()
        self._ahead.clear()

    def _render(self, recipe: Recipe, row: int) -> Tensor:
        yaws = (0.0, self.chance.yaws[self.chance.yaw(recipe, row)])
        return render_views(self.meshes, self.records[int(recipe.indices[row])], yaws, self.chance.image_size)
