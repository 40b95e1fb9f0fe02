"""Recipes: what a batch is made of, and the chance that belongs to it: the same for every loader."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from gcl_fast.data.augment import Augment, Change

_AUGMENT, _YAW = 0, 1  # independent streams of chance


class Recipe(NamedTuple):
    """What a batch is made of, and where in the run it stands (which decides its chance)."""

    epoch: int
    position: int
    indices: np.ndarray  # [B] int64, positions in the records
    first_row: int = 0  # of these in the joint batch, where several processes share it


@dataclass(frozen=True)
class Chance:
    """Everything random of a batch: a function of (seed, epoch, position, row of the joint batch) alone."""

    seed: int
    yaws: tuple[float, ...]
    augment: Augment | None
    image_size: tuple[int, int]
    turns: bool  # whether a row has a new view at all

    def change(self, recipe: Recipe, row: int) -> Change:
        """How the image in this row is augmented; `augment` must not be None."""
        assert self.augment is not None
        return self.augment.choose(self.image_size, self._generator(_AUGMENT, recipe, row))

    def yaw(self, recipe: Recipe, row: int) -> int:
        """Which of `yaws` the new view of this row has."""
        return int(self._generator(_YAW, recipe, row).integers(len(self.yaws)))

    def _generator(self, stream: int, recipe: Recipe, row: int) -> np.random.Generator:
        # Philox is a keyed function of a counter: the lowest word counts the draws of this row
        key = np.array([self.seed, stream], dtype=np.uint64)
        counter = np.array([0, recipe.first_row + row, recipe.position, recipe.epoch], dtype=np.uint64)
        return np.random.Generator(np.random.Philox(key=key, counter=counter))
