"""Nearest neighbours: blocks of the symmetric product, each handed to the running lists of its rows and of its columns."""

from __future__ import annotations

from itertools import combinations
from typing import NamedTuple

import torch
from torch import Tensor

from gcl_fast import _native
from gcl_fast.ops._products import exact_product, exact_products
from gcl_fast.packages import missing

SIDE = {"cpu": 1024, "cuda": 8192}  # rows and columns of a block
LONGEST = 1024  # k above: lists this long are slow to keep sorted, whole rows are sorted instead
BLOCK = 1 << 24  # similarities alive at once where whole rows are sorted
HASHED = 1 << 22  # numbers hashed at once
LEADING = 16  # numbers of a row that tell most rows apart
CLOSE = 4e-7  # cosines nearer than this may swap places by rounding


class Lists(NamedTuple):
    """The best so far of some rows: itself in column 0, then descending, ties by the lower index."""

    value: Tensor
    """[n, k], -inf where there is none yet"""
    index: Tensor  # type: ignore[assignment]  # it hides tuple.index
    """[n, k] int64, the largest number where there is none yet"""

    @classmethod
    def empty(cls, rows: int, k: int, like: Tensor) -> Lists:
        index = torch.full((rows, k), -1, dtype=torch.int64, device=like.device)
        index[:, 1:] = torch.iinfo(torch.int64).max
        return cls(like.new_full((rows, k), -torch.inf), index)

    def merged(self, other: Lists) -> Lists:
        """The best of both, which have no row in common but the row itself; itself from this one."""
        value, index = (torch.cat([mine, theirs[:, 1:]], 1) for mine, theirs in zip(self, other, strict=True))
        return Lists(value, index).best(self.value.shape[1])

    def best(self, k: int) -> Lists:
        """The first k in order of lists [n, more] in any order, but for column 0, which stays."""
        value, index = self
        by_index = index[:, 1:].argsort(dim=1) + 1
        order = by_index.gather(1, value.gather(1, by_index).sort(dim=1, descending=True, stable=True).indices)
        order = torch.cat([torch.zeros_like(index[:, :1]), order], 1)[:, :k]
        return Lists(value.gather(1, order), index.gather(1, order))


class Products:
    """Blocks of products of rows, each handed to the lists of its rows and of its columns."""

    def __init__(self, like: Tensor, copies: Copies | None = None, penalty: Tensor | None = None) -> None:
        self.side = SIDE.get(like.device.type, SIDE["cuda"])
        self.penalty, self.buffer = penalty, like.new_empty(0)
        self.nobody = torch.zeros(0, dtype=torch.int64, device=like.device)
        self.table = (self.nobody,) * 3 if copies is None else copies.table

    def _update(self, block: Tensor, lists: Lists, at: int, row: int, column: int, names: Tensor | None = None) -> None:
        """block [b, c], on the CPU bfloat16 too: of rows `row` and on, or `names`, whose lists are `lists` from `at` on; of
        columns `column` and on."""
        none, mine = lists.value.new_zeros(0), slice(at, at + block.shape[0])
        taken = none if self.penalty is None else self.penalty[column : column + block.shape[1]]
        names = self.nobody if names is None else names
        torch.ops.gcl_fast.knn_update_(block, names, row, column, taken, *self.table, lists.value[mine], lists.index[mine])

    def _block(self, left: Tensor, right: Tensor) -> Tensor:
        if len(self.buffer) < len(left) * len(right):
            self.buffer = self.buffer.new_empty(len(left) * len(right))
        block = self.buffer[: len(left) * len(right)].view(len(left), len(right))
        torch.mm(left, right.T, out=block)
        return block

    def within(self, x: Tensor, first: int, lists: Lists) -> None:
        """Rows of x, the first of which has the number `first`, among themselves: each pair is multiplied once.

        The blocks on the diagonal come first: from then on every list is full, and few similarities get past its last."""
        starts = range(0, len(x), self.side)
        for row in starts:
            left = x[row : row + self.side]
            self._update(self._block(left, left), lists, row, first + row, first + row)
        for row, column in combinations(starts, 2):
            block = self._block(x[row : row + self.side], x[column : column + self.side])
            self._update(block, lists, row, first + row, first + column)
            self._update(block.T, lists, column, first + column, first + row)

    def between(self, left: Tensor, first: int, lists: Lists, right: Tensor, right_first: int, right_lists: Lists) -> None:
        """Two runs of rows: each pair is multiplied once, for the lists of both."""
        for row in range(0, len(left), self.side):
            for column in range(0, len(right), self.side):
                block = self._block(left[row : row + self.side], right[column : column + self.side])
                self._update(block, lists, row, first + row, right_first + column)
                self._update(block.T, right_lists, column, right_first + column, first + row)

    def of_some(self, x: Tensor, which: Tensor, first: int, right: Tensor, right_first: int, lists: Lists) -> None:
        """Rows `which` of x with all of `right`; the first rows of the two have the numbers `first` and `right_first`."""
        for row in range(0, len(which), self.side):
            part = which[row : row + self.side]
            left, names = x[part], part + first
            for column in range(0, len(right), self.side):
                block = self._block(left, right[column : column + self.side])
                self._update(block, lists, row, 0, right_first + column, names)


def nearest(x: Tensor, k: int, penalty: Tensor | None = None, which: Tensor | None = None) -> Lists:
    """Rows of x [N, D] with the largest product (less their penalty [N]) for each row, or each of the rows `which` [n].

    value [n, k], itself first, then descending, ties by the lower index; index [n, k] int64.
    """
    copies = Copies.of(x)
    if k > LONGEST:
        rows = torch.arange(len(x), device=x.device) if which is None else which
        return Lists(*_by_sorting(x, k, rows, penalty, copies))
    lists = Lists.empty(len(x) if which is None else len(which), k, x)
    products = Products(x, copies, penalty)
    with torch.no_grad(), exact_products(x.device):
        if which is None:
            products.within(x, 0, lists)
        else:
            products.of_some(x, which, 0, x, 0, lists)
    return lists


class Copies:
    """Rows that equal a row before them: a product may round equal columns differently, so originals stand for them.

    table: original [N], copy_start [N + 1], copies; empty tensors where all rows differ.
    """

    def __init__(self, copies: Tensor, originals: Tensor, total: int) -> None:
        self.copies, self.originals = copies, originals
        device = copies.device
        nobody = torch.zeros(0, dtype=torch.int64, device=device)
        self.table = (nobody, nobody, nobody)
        if not len(copies):
            return
        original = torch.arange(total, device=device)
        original[copies] = originals
        order = torch.argsort(originals * total + copies)
        start = torch.zeros(total + 1, dtype=torch.int64, device=device)
        start[1:] = torch.bincount(originals, minlength=total).cumsum(0)
        self.table = (original, start, copies[order])

    @classmethod
    def of(cls, x: Tensor) -> Copies:
        alike = torch.unique(torch.cat(repeated(row_hashes(x[:, :LEADING]))))  # ascending
        copies, originals = (alike[rows] for rows in repeated(row_hashes(x[alike])))
        same = (x[copies] == x[originals]).all(dim=1)
        return cls(copies[same], originals[same], len(x))


def row_hashes(x: Tensor, seed: int = 0) -> Tensor:
    """A number [N] int64 of the bits of each row, by words of 32: no odd factor moves the sign of a word of 64. Equal rows have
    equal ones: -0 is hashed as 0."""
    word = torch.int32 if x.dtype == torch.float32 else torch.int64
    generator = torch.Generator().manual_seed(seed)
    odd = torch.randint(-(2**62), 2**62, (x.shape[1],), generator=generator, device="cpu").to(x.device) * 2 + 1
    step = max(1, HASHED // max(x.shape[1], 1))
    hashed = [((x[i : i + step] + 0.0).view(word).long() * odd).sum(dim=1) for i in range(0, len(x), step)]  # wraps around
    return torch.cat(hashed) if hashed else odd.new_zeros(0)


def repeated(numbers: Tensor) -> tuple[Tensor, Tensor]:
    """Where numbers [N] repeat one before them, and where each of those stood first."""
    value, order = torch.sort(numbers, stable=True)
    new = torch.ones_like(value, dtype=torch.bool)
    new[1:] = value[1:] != value[:-1]
    first = order[new][new.cumsum(0) - 1] if len(order) else order  # of each run of equal numbers, in sorted order
    return order[~new], first[~new]


def _by_sorting(x: Tensor, k: int, which: Tensor, penalty: Tensor | None, copies: Copies) -> tuple[Tensor, Tensor]:
    value, index = x.new_empty(len(which), k), torch.empty(len(which), k, dtype=torch.int64, device=x.device)
    step = max(1, BLOCK // len(x))
    for first in range(0, len(which), step):
        row = which[first : first + step]
        block = exact_product(x[row], x)  # [b, N]
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
