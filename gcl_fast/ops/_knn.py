"""Nearest neighbours: blocks of the symmetric product, each handed to the running lists of its rows and of its columns."""

from __future__ import annotations

import torch
from torch import Tensor

from gcl_fast import _native
from gcl_fast.ops._products import exact_products
from gcl_fast.packages import missing

SIDE = {"cpu": 1024, "cuda": 8192}  # rows and columns of a block
LONGEST = 1024  # k above: lists this long are slow to keep sorted, whole rows are sorted instead
BLOCK = 1 << 24  # similarities alive at once where whole rows are sorted, or hashed
CLOSE = 4e-7  # cosines nearer than this may swap places by rounding


def nearest(x: Tensor, k: int, penalty: Tensor | None = None, which: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Rows of x [N, D] with the largest product (less their penalty [N]) for each row, or each of the rows `which` [n].

    value [n, k], itself first, then descending, ties by the lower index; index [n, k] int64.
    """
    copies = _Copies(x)
    if k > LONGEST:
        return _by_sorting(x, k, torch.arange(len(x), device=x.device) if which is None else which, penalty, copies)
    rows = len(x) if which is None else len(which)
    value = x.new_full((rows, k), -torch.inf)
    index = torch.full((rows, k), -1, dtype=torch.int64, device=x.device)
    index[:, 1:] = torch.iinfo(torch.int64).max
    none, nobody = x.new_zeros(0), index.new_zeros(0)
    side = SIDE.get(x.device.type, SIDE["cuda"])
    buffer = x.new_empty(min(side, rows) * min(side, len(x)))

    def update(block: Tensor, row: int, column: int, names: Tensor = nobody) -> None:
        mine = slice(row, row + block.shape[0])
        taken = none if penalty is None else penalty[column : column + block.shape[1]]
        torch.ops.gcl_fast.knn_update_(block, names, row, column, taken, *copies.table, value[mine], index[mine])

    with torch.no_grad(), exact_products(x.device):
        for row in range(0, rows, side):
            left = x[row : row + side] if which is None else x[which[row : row + side]]
            for column in range(row if which is None else 0, len(x), side):
                right = x[column : column + side]
                block = buffer[: len(left) * len(right)].view(len(left), len(right))
                torch.mm(left, right.T, out=block)
                if which is not None:
                    update(block, row, column, which[row : row + side])
                    continue
                update(block, row, column)
                if column > row:
                    update(block.T, column, row)
    return value, index


class _Copies:
    """Rows of x that equal a row before them: a product may round equal columns differently, so originals stand for them.

    table: original [N], copy_start [N + 1], copies; empty tensors where all rows differ.
    """

    def __init__(self, x: Tensor) -> None:
        self.copies, self.originals = _duplicates(x)
        nobody = torch.zeros(0, dtype=torch.int64, device=x.device)
        self.table = (nobody, nobody, nobody)
        if not len(self.copies):
            return
        original = torch.arange(len(x), device=x.device)
        original[self.copies] = self.originals
        order = torch.argsort(self.originals * len(x) + self.copies)
        start = torch.zeros(len(x) + 1, dtype=torch.int64, device=x.device)
        start[1:] = torch.bincount(self.originals, minlength=len(x)).cumsum(0)
        self.table = (original, start, self.copies[order])


def _duplicates(x: Tensor) -> tuple[Tensor, Tensor]:
    """Rows that equal a row before them, and the first such row of each."""
    bits = x.contiguous().view(torch.int32 if x.dtype == torch.float32 else torch.int64)
    generator = torch.Generator().manual_seed(0)
    odd = torch.randint(-(2**62), 2**62, (bits.shape[1],), generator=generator).to(x.device) * 2 + 1
    step = max(1, BLOCK // max(x.shape[1], 1))
    hashed = torch.cat([(bits[i : i + step].long() * odd).sum(dim=1) for i in range(0, len(x), step)])  # wraps around
    value, order = torch.sort(hashed, stable=True)
    new = torch.ones_like(value, dtype=torch.bool)
    new[1:] = value[1:] != value[:-1]
    first = order[new][new.cumsum(0) - 1]  # of each run of equal hashes, in sorted order
    copies, originals = order[~new], first[~new]
    same = (x[copies] == x[originals]).all(dim=1)
    return copies[same], originals[same]


def _by_sorting(x: Tensor, k: int, which: Tensor, penalty: Tensor | None, copies: _Copies) -> tuple[Tensor, Tensor]:
    value, index = x.new_empty(len(which), k), torch.empty(len(which), k, dtype=torch.int64, device=x.device)
    step = max(1, BLOCK // len(x))
    for first in range(0, len(which), step):
        row = which[first : first + step]
        with exact_products(x.device):
            block = x[row] @ x.T  # [b, N]
        if penalty is not None:
            block -= penalty
        block[:, copies.copies] = block[:, copies.originals]
        at = torch.arange(len(row), device=x.device)
        itself = block[at, row]
        block[at, row] = torch.inf
        ordered, columns = block.sort(dim=1, descending=True, stable=True)
        value[first : first + step], index[first : first + step] = ordered[:, :k], columns[:, :k]
        value[first : first + step, 0] = itself
    return value, index


def by_faiss(x: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """`nearest` by faiss' exhaustive search on the CPU; rows whose order hangs on rounding are searched again."""
    try:
        import faiss
    except ImportError as error:
        raise missing("faiss", 'knn: backend "faiss"', error) from error
    rows = x.float().cpu().numpy()
    flat = faiss.IndexFlatIP(rows.shape[1])
    flat.add(rows)
    cosines, neighbours = flat.search(rows, min(k + 1, len(rows)))
    similarity, index = torch.from_numpy(cosines).to(x), torch.from_numpy(neighbours).to(x.device)
    unsure = ((similarity[:, :-1] - similarity[:, 1:]) <= CLOSE).any(dim=1)
    unsure |= index[:, 0] != torch.arange(len(x), device=x.device)
    again = unsure.nonzero()[:, 0]
    similarity, index = similarity[:, :k].contiguous(), index[:, :k].contiguous()
    if len(again):
        similarity[again], index[again] = nearest(x, k, which=again)
    return similarity, index


def _fake_update(
    block: Tensor,
    rows: Tensor,
    first_row: int,
    first_column: int,
    penalty: Tensor,
    original: Tensor,
    copy_start: Tensor,
    copies: Tensor,
    value: Tensor,
    index: Tensor,
) -> None:
    return None


if _native.loaded:
    torch.library.register_fake("gcl_fast::knn_update_", _fake_update)
