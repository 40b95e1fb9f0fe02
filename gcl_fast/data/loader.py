"""Batches of images and meshes through torch's DataLoader."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import torch
from torch.utils.data import DataLoader, Sampler

from gcl_fast.data.augment import Augment
from gcl_fast.data.batch import Batch
from gcl_fast.data.plans import Plan
from gcl_fast.data.readable import name_files
from gcl_fast.data.reid_data import Record
from gcl_fast.data.samples import Cache, Recipe, Samples

if TYPE_CHECKING:
    from gcl_fast.bodies.meshes import MeshSource

NOVEL_YAWS = (45.0, 90.0, 135.0, 180.0, 225.0, 270.0, 315.0)


class TorchLoader:
    """Reads the batches of a plan.

    records     images; `Batch.index` is the position in this list
    image_size  (height, width) in pixels
    meshes      a MeshSource: each batch then has `mesh` (yaw 0) and `mesh_novel` (a yaw drawn uniformly from `yaws`,
                degrees); without it both are None
    augment     random changes of the image (stage 1); not together with meshes, which would no longer fit the image
    workers     0: batches are made in the caller, when asked for. More: so many processes make them ahead and stay
                between epochs. They are started clean (forkserver, or spawn where there is none), never forked from
                the caller, which may have CUDA and threads up; a script that uses them needs the usual
                `if __name__ == "__main__":`
    cache       keep decoded, resized images and yaw-0 meshes in memory once read: H * W * 3 bytes an image, H * W * 4
                more with meshes (1,200 images of 128x64: 28 MiB, 66 MiB with meshes; Market-1501's training set at
                256x128: 1.2 GiB, 2.8 GiB); the same batches as without

    Augmentation and yaws are a function of (seed, epoch, batch position, row) alone: not of `workers`, `cache`, what
    was read before, or torch's and numpy's global generators. So `epoch(plan, e, start=k)` gives exactly the batches
    a full epoch gives from position k on, which is how a killed run resumes. Batches are on the CPU.
    """

    def __init__(
        self,
        records: Sequence[Record],
        image_size: tuple[int, int],
        *,
        meshes: MeshSource | None = None,
        augment: Augment | None = None,
        seed: int = 0,
        workers: int = 0,
        yaws: Sequence[float] = NOVEL_YAWS,
        cache: bool = False,
    ) -> None:
        if len(image_size) != 2 or any(not isinstance(n, int) or n < 1 for n in image_size):
            raise ValueError(f"TorchLoader: image_size must be (height, width), two integers of at least 1, got {image_size!r}")
        for name, value in (("seed", seed), ("workers", workers)):
            if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 2**63:
                raise ValueError(f"TorchLoader: {name} must be an integer of at least 0, got {value!r}")
        if meshes is not None and augment is not None:
            raise ValueError("TorchLoader: augment must be None where meshes are given: they would not fit the changed image")
        if meshes is not None and not yaws:
            raise ValueError("TorchLoader: yaws must name at least one angle where meshes are given, got none")
        if meshes is not None and (missing := meshes.missing(records)):
            where = getattr(meshes, "folder", None)
            title = f"TorchLoader: {len(missing)} of {len(records)} images have no mesh" + (f" below {where}" if where else "")
            raise FileNotFoundError(name_files(title, [str(r.path) for r in missing]))
        height, width = image_size
        self.num_records = len(records)
        self.workers = workers
        self.cache = Cache(len(records), (height, width), meshes is not None, shared=workers > 0) if cache else None
        self.samples = Samples(
            records, (height, width), meshes, augment, seed, tuple(float(y) for y in yaws), self.cache
        )
        self._order = _Order()
        self._loader: DataLoader[Batch] | None = None
        self._turn = 0

    def __len__(self) -> int:
        return self.num_records

    def epoch(self, plan: Plan, epoch: int, start: int = 0) -> Iterator[Batch]:
        """Batches `start`, `start` + 1, ... of `plan`, in order.

        With workers, one epoch at a time: starting another ends the one before. A broken image raises an OSError
        that names it when its batch is due.
        """
        if isinstance(epoch, bool) or not isinstance(epoch, int) or epoch < 0:
            raise ValueError(f"TorchLoader.epoch: epoch must be an integer of at least 0, got {epoch!r}")
        if not 0 <= start <= len(plan):
            raise ValueError(f"TorchLoader.epoch: start must be between 0 and the plan's {len(plan)} batches, got {start}")
        largest = max((int(b.max()) for b in plan), default=-1)
        if largest >= self.num_records:
            raise ValueError(f"TorchLoader.epoch: plan must hold positions below {self.num_records} (records), got {largest}")
        recipes = [Recipe(epoch, position, batch) for position, batch in enumerate(plan)][start:]
        return self._with_workers(recipes) if self.workers else map(self.samples.__getitem__, recipes)

    def close(self) -> None:
        """Stop the workers, if any; the next epoch starts new ones."""
        self._turn += 1
        self._loader = None

    def _with_workers(self, recipes: list[Recipe]) -> Iterator[Batch]:
        if self._loader is None:
            self._loader = DataLoader(
                self.samples,
                batch_size=None,  # a sample is a whole batch
                sampler=self._order,
                num_workers=self.workers,
                collate_fn=_as_it_is,
                persistent_workers=True,
                multiprocessing_context=_start_method(),
                generator=torch.Generator(),  # else each epoch would draw from torch's global generator
            )
        self._turn += 1
        return self._follow(recipes, self._turn)

    def _follow(self, recipes: list[Recipe], turn: int) -> Iterator[Batch]:
        batches: Iterator[Batch] | None = None
        for _ in recipes:
            if turn != self._turn or self._loader is None:
                raise RuntimeError("TorchLoader: this epoch ended when another was started or the loader closed")
            if batches is None:
                self._order.recipes = recipes
                batches = iter(self._loader)
            yield next(batches)


class _Order(Sampler[Recipe]):
    """Hands the current epoch's recipes to a DataLoader that outlives it."""

    def __init__(self) -> None:
        self.recipes: list[Recipe] = []

    def __iter__(self) -> Iterator[Recipe]:
        return iter(self.recipes)

    def __len__(self) -> int:
        return len(self.recipes)


def _start_method() -> str:
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return "spawn"
    # torch is imported once, by the server, not by each worker; no effect where a server already runs
    multiprocessing.get_context("forkserver").set_forkserver_preload(["__main__", Samples.__module__])
    return "forkserver"


def _as_it_is(batch: Batch) -> Batch:
    return batch
