"""Where the photos of a data set show their person."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from gcl_fast.meshes.sources import MeshSource
from gcl_fast.records import Record

PERSON = 0.5  # a mask's level from which a pixel shows the person


def read_people(source: MeshSource, records: Sequence[Record], *, progress: Callable[[int, int], None] | None = None) -> Tensor:
    """[N, 1, H, W] bool on the CPU: the person's mask where the mesh file of a record holds one, else the body's silhouette.

    Memory: a byte a pixel (Market-1501's training set at 256x128: 424 MB).
    Errors: those of `source`, naming the file.
    """
    people = []
    for row, record in enumerate(records):
        mask = source.mask(record)
        person = source.render(record, [0.0])[0] > 0 if mask is None else mask > PERSON  # [H, W]
        people.append(person[None])
        if progress is not None:
            progress(row + 1, len(records))
    return torch.stack(people) if people else torch.zeros(0, 1, 1, 1, dtype=torch.bool)
