"""How far the neighbours of a row have it among their own: on a GPU without the host asking how far that is."""

from __future__ import annotations

import torch
from torch import Tensor

from gcl_fast import _native


def mutual_walk(bank: Tensor, index: Tensor, order: Tensor, near: Tensor, reach: Tensor) -> Tensor:
    """Steps [B] int64 of the walk along each row's neighbours, from the nearest on, up to the first that does not have the row
    among its own nearest. On a GPU nothing is read on the host. Deterministic, with the same bits on both devices.

    Arguments:
        bank: [N, D], float32 or float64.
        index: [B] int64, the rows that ask.
        order: [B, N] int64, all rows from the nearest on; the row that asks is the first. Its neighbours are the others.
        near: [B] int64 from 0 to N, how many of `order` may count: steps are from 0 to near - 1.
        reach: [B] int64 from 0 to N + 1, how many of a neighbour's own nearest, itself counted, must hold the row that asks (the
            lower row is nearer among equals).

    A round of neighbours is looked at at once, 16 and then twice as many each time; rounds that no walk reaches cost a launch.
    """
    return torch.ops.gcl_fast.mutual_walk(bank, index, order, near, reach)  # type: ignore[no-any-return]


def _fake_walk(bank: Tensor, index: Tensor, order: Tensor, near: Tensor, reach: Tensor) -> Tensor:
    return torch.empty_like(index)


if _native.loaded:
    torch.library.register_fake("gcl_fast::mutual_walk", _fake_walk)
