"""The choice of a loader for a data set: the one asked for, or the fastest that can."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch

from gcl_fast.data.loaders.cached import CachedLoader
from gcl_fast.data.loaders.dali import DaliLoader
from gcl_fast.data.loaders.free_memory import cached_bytes, may_take
from gcl_fast.data.loaders.loader_base import Loader, LoaderOptions
from gcl_fast.data.loaders.stores import Stores
from gcl_fast.data.loaders.torch_loader import TorchLoader
from gcl_fast.errors import InputError, TooLittleMemoryError
from gcl_fast.packages import missing
from gcl_fast.records import Record

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from gcl_fast.meshes.sources import MeshSource

KINDS = ("auto", "cached", "dali", "torch")


class Reader:
    """Makes the loaders of one list of records, all of one kind and sharing what is kept in memory.

    kind     "cached", "dali", "torch", or "auto": the first of these that can be used, which is the order of their speed
             (bench/loader.py); a line through `say` tells why it is not the first
    meshes   that some of the loaders will ask for; their views are kept too where they fit
    taken    bytes of host memory promised to other readers

    Cached pictures may take a quarter of what is free on the GPU, else half of what is free on the host. `cached` that does
    not fit is a TooLittleMemoryError with the numbers; `dali` without DALI a MissingPackageError that says how to install it.
    """

    def __init__(
        self,
        kind: str,
        records: Sequence[Record],
        image_size: tuple[int, int],
        *,
        meshes: MeshSource | None = None,
        yaws: Sequence[float] = (),
        workers: int = 0,
        seed: int = 0,
        device: torch.device | str = "cpu",
        cache: bool = False,
        taken: int = 0,
        say: Callable[[str], None] = print,
    ) -> None:
        if kind not in KINDS:
            raise InputError(f"loader must be one of {', '.join(KINDS)}, got {kind!r}")
        self.records, self.image_size, self.device, self.cache = list(records), image_size, torch.device(device), cache
        self.options: LoaderOptions = {"seed": seed, "workers": workers}
        self.yaws = tuple(float(y) for y in yaws)
        self.stores: Stores | None = None
        self.host_bytes = 0
        reasons = []
        self.kind = kind
        if kind in ("auto", "cached"):
            why = self._keep(meshes, workers, taken, say)
            if why is None:
                self.kind = "cached"
            elif kind == "cached":
                raise TooLittleMemoryError(f"loader cached: {why}; use dali or torch, or a smaller image size")
            else:
                reasons.append(f"cached: {why}")
        if self.kind == "auto":
            why = cannot_dali()
            self.kind = "dali" if why is None else "torch"
            reasons += [] if why is None else [f"dali: {why}"]
        if reasons:
            say(f"loader: {self.kind} ({'; '.join(reasons)})")

    def _keep(self, meshes: MeshSource | None, workers: int, taken: int, say: Callable[[str], None]) -> str | None:
        """Make the stores where they fit; else why they do not."""
        count, views = len(self.records), 1 + len(self.yaws) if meshes is not None else 0
        places = [(d, may_take(d) - (taken if d.type == "cpu" else 0)) for d in dict.fromkeys((self.device, torch.device("cpu")))]
        for kept in dict.fromkeys((views, 0)):  # better all of it on the host than a part on the GPU
            needed = cached_bytes(count, self.image_size, kept)
            for place, room in places:
                if needed <= room:
                    if kept < views:
                        say(
                            f"loader: cached, meshes not kept: with them {_mib(cached_bytes(count, self.image_size, views))}, "
                            f"{_mib(room)} may be taken"
                        )
                    self.stores = Stores(
                        self.records,
                        self.image_size,
                        meshes=meshes if kept else None,
                        yaws=self.yaws,
                        device=place,
                        workers=workers,
                    )
                    self.host_bytes = needed if place.type == "cpu" else 0
                    return None
        return f"needs {_mib(needed)}, {_mib(max(room for _, room in places))} may be taken"

    def loader(self, **more: Unpack[LoaderOptions]) -> Loader:
        """A loader of these records; `more` as `Loader` takes it (meshes, augment)."""
        options: LoaderOptions = {**self.options, **more}
        if more.get("meshes") is not None or more.get("turns"):
            options["yaws"] = self.yaws
        if self.kind == "cached":
            return CachedLoader(self.records, self.image_size, stores=self.stores, device=self.device, **options)
        if self.kind == "dali":
            return DaliLoader(self.records, self.image_size, device=self.device, **options)
        return TorchLoader(self.records, self.image_size, cache=self.cache, **options)


def cannot_dali() -> str | None:
    """Why DALI cannot read, or None where it can."""
    try:
        installed = importlib.util.find_spec("nvidia.dali") is not None
    except ModuleNotFoundError:
        installed = False
    return None if installed else str(missing("nvidia.dali", "it"))


def _mib(n: int) -> str:
    return f"{max(n, 0) / 2**20:,.0f} MiB"
