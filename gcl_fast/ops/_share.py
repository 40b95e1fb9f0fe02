"""Rows shared by the processes of one run, each of which has a run of them."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import torch
from torch import Tensor

from gcl_fast import distributed


class Share:
    """This process's rows among those of all; `alone`: they are all there are, whatever other processes do.

    sizes   rows of every process
    first   number of this one's first row
    last    and of the one behind its last
    total   all rows
    """

    def __init__(self, rows: Tensor, *, alone: bool = False) -> None:
        self.rank, self.world = (0, 1) if alone else (distributed.rank(), distributed.world())
        self.sizes = distributed.share_sizes(rows) if self.world > 1 else [len(rows)]
        self.starts = [0, *itertools.accumulate(self.sizes)]
        self.first, self.last = self.starts[self.rank], self.starts[self.rank + 1]
        self.total = self.starts[-1]

    def gather(self, rows: Tensor) -> Tensor:
        """Those of all processes, in order."""
        return rows if self.world == 1 else distributed.gather_uneven(rows)

    def all_say(self, yes: bool, device: torch.device) -> bool:
        return yes if self.world == 1 else bool(distributed.gather_uneven(torch.tensor([yes], device=device)).all())

    def rounds(self, rows: Tensor, most: int) -> Iterator[tuple[int, Tensor]]:
        """The rows of the next process, of the one after it ... `most` of them: its rank and its rows."""
        for away in range(1, most + 1):
            to, source = (self.rank - away) % self.world, (self.rank + away) % self.world
            yield source, distributed.exchange(rows, to, source, self.sizes[source])

    def everyone(self, rows: Tensor) -> Iterator[tuple[int, Tensor]]:
        """The rows of each process, this one's before the others': the number of its first row, and its rows."""
        yield self.first, rows
        for source, theirs in self.rounds(rows, self.world - 1):
            yield self.starts[source], theirs
