"""The last step of every loader: pictures of a batch in, the `Batch` out."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from gcl_fast.data.loaders.finish import finish_images
from gcl_fast.data.loaders.recipes import Chance, Recipe
from gcl_fast.records import Batch, Record
from gcl_fast.transfer import send


class Assembly:
    """Augments and normalises the pictures of a recipe and puts the labels beside them, on one device."""

    def __init__(self, records: Sequence[Record], chance: Chance, device: torch.device | str = "cpu") -> None:
        self.chance, self.device = chance, torch.device(device)
        self._pid = torch.tensor([r.pid for r in records], dtype=torch.int64)
        self._camera = torch.tensor([r.camera for r in records], dtype=torch.int64)

    def batch(
        self, recipe: Recipe, pictures: Tensor | Sequence[Tensor], mesh: Tensor | None = None, mesh_novel: Tensor | None = None
    ) -> Batch:
        """The batch of uint8 pictures [B, 3, H, W] (or B of [3, H, W]) and meshes [B, 1, H, W], all on the device."""
        augment, changes = self.chance.augment, None
        if augment is not None:
            changes = [self.chance.change(recipe, row) for row in range(len(recipe.indices))]
        index = torch.from_numpy(recipe.indices.copy())
        return Batch(
            image=finish_images(pictures, changes, augment.pad if augment else 0),  # [B, 3, H, W]
            mesh=mesh,
            mesh_novel=mesh_novel,
            pid=self.send(self._pid[index]),
            camera=self.send(self._camera[index]),
            index=self.send(index),
            yaw=self.send(self._yaws(recipe)) if self.chance.turns else None,
        )

    def _yaws(self, recipe: Recipe) -> Tensor:
        chosen = [self.chance.yaws[self.chance.yaw(recipe, row)] for row in range(len(recipe.indices))]
        return torch.tensor(chosen, dtype=torch.float32)

    def send(self, tensor: Tensor) -> Tensor:
        """To the device, without waiting for it."""
        return send(tensor, self.device)
