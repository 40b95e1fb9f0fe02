"""The base of the loaders: what each is given, checks and promises."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, TypedDict

from gcl_fast.constants import NOVEL_YAWS
from gcl_fast.data.augment import Augment
from gcl_fast.data.datasets.readable import name_files
from gcl_fast.data.loaders.recipes import Chance, Recipe
from gcl_fast.data.plans import Plan
from gcl_fast.errors import InputError, MissingFileError
from gcl_fast.records import Batch, Record

if TYPE_CHECKING:
    from gcl_fast.meshes.sources import MeshSource


class LoaderOptions(TypedDict, total=False):
    """What every loader takes by name; see `Loader`."""

    meshes: MeshSource | None
    augment: Augment | None
    seed: int
    workers: int
    yaws: Sequence[float]
    turns: bool


class Loader(ABC):
    """Reads the batches of a plan.

    records     images; `Batch.index` is the position in this list
    image_size  (height, width) in pixels
    meshes      a MeshSource: each batch then has `mesh` (yaw 0) and `mesh_novel` (a yaw drawn uniformly from `yaws`,
                degrees); without it both are None
    turns       each batch has `yaw` though no meshes are given: for who has the bodies himself (`guides.Bodies`)
    augment     random changes of the image (stage 1); not together with meshes, which would no longer fit the image
    workers     0: everything is made in the caller, when asked for; more: so many threads or processes work ahead

    Augmentation and yaws are a function of (seed, epoch, batch position, row) alone, the same in every loader: not of
    `workers`, what was read before, or torch's and numpy's global generators. So `epoch(plan, e, start=k)` gives exactly
    the batches that a full epoch gives from position k on, which is how a killed run resumes.
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
        turns: bool = False,
    ) -> None:
        name = type(self).__name__
        if len(image_size) != 2 or any(not isinstance(n, int) or n < 1 for n in image_size):
            raise ValueError(f"{name}: image_size must be (height, width), two integers of at least 1, got {image_size!r}")
        for argument, value in (("seed", seed), ("workers", workers)):
            if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 2**63:
                raise ValueError(f"{name}: {argument} must be an integer of at least 0, got {value!r}")
        turns = turns or meshes is not None
        if turns and augment is not None:
            raise InputError(f"{name}: augment must be None where meshes are given: they would not fit the changed image")
        if turns and not yaws:
            raise InputError(f"{name}: yaws must name at least one angle where meshes are given, got none")
        if meshes is not None and (missing := meshes.missing(records)):
            where = getattr(meshes, "folder", None)
            title = f"{name}: {len(missing)} of {len(records)} images have no mesh" + (f" below {where}" if where else "")
            raise MissingFileError(name_files(title, [str(r.path) for r in missing]))
        self.records = list(records)
        self.image_size = (image_size[0], image_size[1])
        self.meshes, self.augment, self.workers = meshes, augment, workers
        self.yaws = tuple(float(y) for y in yaws)
        self.chance = Chance(seed, self.yaws, augment, self.image_size, turns)

    def __len__(self) -> int:
        return len(self.records)

    def epoch(self, plan: Plan, epoch: int, start: int = 0) -> Iterator[Batch]:
        """Batches `start`, `start` + 1, ... of `plan`, in order.

        One epoch at a time: starting another ends the one before (loaders that make batches when asked for allow more).
        A broken image raises an OSError that names it when its batch is due.
        """
        name = type(self).__name__
        if isinstance(epoch, bool) or not isinstance(epoch, int) or epoch < 0:
            raise ValueError(f"{name}.epoch: epoch must be an integer of at least 0, got {epoch!r}")
        if not 0 <= start <= len(plan):
            raise ValueError(f"{name}.epoch: start must be between 0 and the plan's {len(plan)} batches, got {start}")
        largest = max((int(b.max()) for b in plan), default=-1)
        if largest >= len(self):
            raise ValueError(f"{name}.epoch: plan must hold positions below {len(self)} (records), got {largest}")
        recipes = [Recipe(epoch, position, batch, plan.first_row(position)) for position, batch in enumerate(plan)]
        return self._batches(recipes[start:])

    @abstractmethod
    def _batches(self, recipes: list[Recipe]) -> Iterator[Batch]:
        """The batch of each recipe, in order."""

    def close(self) -> None:  # noqa: B027  a loader may hold nothing
        """Stop what works ahead and give its resources back; the next epoch starts anew."""
