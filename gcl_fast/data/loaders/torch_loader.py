"""Batches of images and meshes through torch's DataLoader."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from gcl_fast.data.loaders.loader_base import Loader, LoaderOptions
from gcl_fast.data.loaders.recipes import Recipe
from gcl_fast.data.loaders.samples import Samples
from gcl_fast.data.loaders.stores import Stores
from gcl_fast.errors import GclError
from gcl_fast.records import Batch, Record

if TYPE_CHECKING:
    from typing_extensions import Unpack


class TorchLoader(Loader):
    """The plain loader, whose batches the others are measured against. Arguments as `Loader` has them, and:

    workers     processes that make batches ahead and stay between epochs. They are started clean (forkserver, or spawn
                where there is none), never forked from the caller, which may have CUDA and threads up; a script that
                uses them needs the usual `if __name__ == "__main__":`
    cache       keep decoded, resized images and yaw-0 meshes in memory once read: H * W * 3 bytes an image, H * W * 4
                more with meshes (1,200 images of 128x64: 28 MiB, 66 MiB with meshes; Market-1501's training set at
                256x128: 1.2 GiB, 2.8 GiB); the same batches as without

    Batches are on the CPU.
    """

    def __init__(
        self, records: Sequence[Record], image_size: tuple[int, int], *, cache: bool = False, **options: Unpack[LoaderOptions]
    ) -> None:
        super().__init__(records, image_size, **options)
        self.cache: Stores | None = None
        if cache:
            self.cache = Stores(self.records, self.image_size, meshes=self.meshes, exact_meshes=True, shared=self.workers > 0)
        self.samples = Samples(self.records, self.image_size, self.meshes, self.chance, self.cache)
        self._order = _Order()
        self._loader: DataLoader[Batch | GclError] | None = None
        self._turn = 0

    def _batches(self, recipes: list[Recipe]) -> Iterator[Batch]:
        return self._with_workers(recipes) if self.workers else map(self.samples.__getitem__, recipes)

    def close(self) -> None:
        """Stop the workers, if any; the next epoch starts new ones."""
        self._turn += 1
        self._loader = None

    def _with_workers(self, recipes: list[Recipe]) -> Iterator[Batch]:
        if self._loader is None:
            self._loader = DataLoader(
                _WithErrors(self.samples),
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
        batches: Iterator[Batch | GclError] | None = None
        for _ in recipes:
            if turn != self._turn or self._loader is None:
                raise RuntimeError("TorchLoader: this epoch ended when another was started or the loader closed")
            if batches is None:
                self._order.recipes = recipes
                batches = iter(self._loader)
            batch = next(batches)
            if isinstance(batch, GclError):
                raise batch
            yield batch


class _WithErrors(Dataset[Batch | GclError]):
    """Samples of a worker, whose errors come as values: torch would put the worker's traceback into their message."""

    def __init__(self, samples: Samples) -> None:
        self.samples = samples

    def __getitem__(self, recipe: Recipe) -> Batch | GclError:
        try:
            return self.samples[recipe]
        except GclError as error:
            return error.with_traceback(None)


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


def _as_it_is(batch: Any) -> Any:  # without batch_size it is given one sample, which the stubs do not know
    return batch
