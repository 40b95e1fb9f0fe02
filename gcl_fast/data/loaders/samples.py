"""One batch from its recipe: decoding, augmentation, meshes, cache. Runs in the caller or in a worker process."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from gcl_fast.data.loaders.recipes import Chance, Recipe
from gcl_fast.images import load_uint8, normalise
from gcl_fast.records import Batch, Record

if TYPE_CHECKING:
    from gcl_fast.meshes.sources import MeshSource


class Cache:
    """Decoded images (uint8) and original-view meshes (float32), filled as they are first asked for.

    `shared` puts them where worker processes fill and read them together.
    """

    def __init__(self, num_samples: int, image_size: tuple[int, int], meshes: bool, shared: bool) -> None:
        self.bytes = cache_bytes(num_samples, image_size, meshes)
        if shared:
            _check_shared_memory(self.bytes)
        self.images = torch.empty((num_samples, *image_size, 3), dtype=torch.uint8)  # [N, H, W, 3]
        self.meshes = torch.empty((num_samples, *image_size)) if meshes else None  # [N, H, W]
        self.has_image = torch.zeros(num_samples, dtype=torch.bool)  # [N], set after the pixels are written
        self.has_mesh = torch.zeros(num_samples, dtype=torch.bool)  # [N]
        if shared:
            for tensor in (self.images, self.meshes, self.has_image, self.has_mesh):
                if tensor is not None:
                    tensor.share_memory_()


def cache_bytes(num_samples: int, image_size: tuple[int, int], meshes: bool) -> int:
    """Memory a full cache takes: 3 bytes a pixel and image, 4 more with meshes."""
    return num_samples * image_size[0] * image_size[1] * (7 if meshes else 3)


def _check_shared_memory(needed: int) -> None:
    """A full /dev/shm kills the process with SIGBUS: say so before."""
    try:
        free = shutil.disk_usage("/dev/shm").free
    except OSError:
        return  # no such place on this system
    if needed > free:
        raise ValueError(
            f"TorchLoader: cache=True with workers needs {needed / 2**20:.0f} MiB of shared memory, /dev/shm has "
            f"{free / 2**20:.0f} MiB free: use workers=0, cache=False, or give the container more (--shm-size)"
        )


class Samples(torch.utils.data.Dataset[Batch]):
    """Recipe -> Batch. Everything random is a function of (seed, epoch, position, row) alone."""

    def __init__(
        self,
        records: Sequence[Record],
        image_size: tuple[int, int],
        meshes: MeshSource | None,
        chance: Chance,
        cache: Cache | None,
    ) -> None:
        self.records = list(records)
        self.image_size = image_size
        self.meshes = meshes
        self.chance = chance
        self.cache = cache

    def __getitem__(self, recipe: Recipe) -> Batch:
        indices = recipe.indices.tolist()
        pixels = np.stack([self._image(i, recipe, row) for row, i in enumerate(indices)])  # [B, H, W, 3]
        mesh = mesh_novel = None
        if self.meshes is not None:
            both = torch.stack([self._meshes(i, recipe, row) for row, i in enumerate(indices)])  # [B, 2, H, W]
            both = both.sub_(0.5).div_(0.5)
            mesh, mesh_novel = both[:, :1].contiguous(), both[:, 1:].contiguous()  # [B, 1, H, W]
        chosen = [self.records[i] for i in indices]
        return Batch(
            image=normalise(pixels),  # [B, 3, H, W]
            mesh=mesh,
            mesh_novel=mesh_novel,
            pid=torch.tensor([r.pid for r in chosen], dtype=torch.int64),
            camera=torch.tensor([r.camera for r in chosen], dtype=torch.int64),
            index=torch.from_numpy(recipe.indices.copy()),
        )

    def _image(self, i: int, recipe: Recipe, row: int) -> np.ndarray:
        if self.cache is not None and self.cache.has_image[i]:
            pixels = self.cache.images[i].numpy()
        else:
            pixels = load_uint8(self.records[i].path, self.image_size)  # [H, W, 3]
            if self.cache is not None:
                self.cache.images[i] = torch.from_numpy(pixels)
                self.cache.has_image[i] = True
        augment = self.chance.augment
        return pixels if augment is None else augment.apply(pixels, self.chance.change(recipe, row))

    def _meshes(self, i: int, recipe: Recipe, row: int) -> Tensor:
        """[2, H, W] in [0, 1]: the photo's own view and one drawn from `yaws`."""
        yaw = self.chance.yaws[self.chance.yaw(recipe, row)]
        if self.cache is not None and self.cache.has_mesh[i]:
            return torch.cat([self.cache.meshes[i : i + 1], self._render(i, (yaw,))])
        views = self._render(i, (0.0, yaw))
        if self.cache is not None:
            self.cache.meshes[i] = views[0]
            self.cache.has_mesh[i] = True
        return views

    def _render(self, i: int, yaws: tuple[float, ...]) -> Tensor:
        return render_views(self.meshes, self.records[i], yaws, self.image_size)


def render_views(meshes: MeshSource, record: Record, yaws: Sequence[float], image_size: tuple[int, int]) -> Tensor:
    """[R, H, W] float32 in [0, 1] from a mesh source. Raises ValueError where it gives anything else."""
    views = meshes.render(record, yaws)
    expected = (len(yaws), *image_size)
    if tuple(views.shape) != expected or views.dtype != torch.float32:
        got = f"{views.dtype} {list(views.shape)}"
        raise ValueError(f"mesh of {record.path}: expected float32 views {list(expected)}, got {got}")
    return views
