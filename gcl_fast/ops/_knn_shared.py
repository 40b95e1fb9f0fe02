"""Nearest neighbours of rows that several processes share."""

from __future__ import annotations

import torch
from torch import Tensor

from gcl_fast import distributed
from gcl_fast.ops import _knn
from gcl_fast.ops._knn import Copies, Lists, Products, repeated, row_hashes
from gcl_fast.ops._products import exact_products
from gcl_fast.ops._share import Share


def nearest(own: Tensor, k: int, share: Share, which: Tensor | None = None) -> Lists:
    """`_knn.nearest` of all rows for this process's, unit rows [n, D], or for `which` of them: value, index [n, k], numbers among
    all. Equal rows are told by 128 bits of hash where no process has them all.
    """
    if share.world == 1:
        return _knn.nearest(own, k, which=which)
    products = Products(own, _copies(own, share))
    with torch.no_grad(), exact_products(own.device):
        lists = Lists.empty(len(own) if which is None else len(which), k, own)
        fill(own, which, products, lists, share)
    return lists


def fill(own: Tensor, which: Tensor | None, products: Products, lists: Lists, share: Share) -> None:
    """Lists of this process's rows, or of `which` of them, from products with the rows of all."""
    if which is None:
        _all(own, products, lists, share)
        return
    for first, rows in share.everyone(own):
        products.of_some(own, which, share.first, rows, first, lists)


def _all(own: Tensor, products: Products, lists: Lists, share: Share) -> None:
    """Each pair of rows is multiplied once, by one process. Rows go half the way round; the lists that others made for them come
    back. Where the two halves meet, each of two processes takes half of their pairs.
    """
    products.within(own, share.first, lists)
    for away, (source, rows) in enumerate(share.rounds(own, share.world // 2), start=1):
        found = Lists.empty(len(rows), lists.value.shape[1], lists.value)
        mine, theirs = _part(share, source, len(own), len(rows), both=2 * away == share.world)
        taken = Lists(lists.value[mine], lists.index[mine]), Lists(found.value[theirs], found.index[theirs])
        begin = share.first + (mine.start or 0), share.starts[source] + (theirs.start or 0)
        products.between(own[mine], begin[0], taken[0], rows[theirs], begin[1], taken[1])
        back, maker = source, (share.rank - away) % share.world
        returned = (distributed.exchange(part, back, maker, len(own)) for part in found)
        for kept, best in zip(lists, lists.merged(Lists(*returned)), strict=True):
            kept.copy_(best)


def _part(share: Share, other: int, mine: int, theirs: int, *, both: bool) -> tuple[slice, slice]:
    """Which of this process's rows meet which of the other's; `both`: the other has this one's rows too."""
    if not both:
        return slice(0, mine), slice(0, theirs)
    if share.rank < other:
        return slice(0, mine), slice(0, theirs // 2)
    return slice(mine // 2, mine), slice(0, theirs)


def _copies(own: Tensor, share: Share) -> Copies:
    numbers = [share.gather(row_hashes(own, seed)) for seed in (0, 1)]
    copies, originals = repeated(numbers[0])
    same = numbers[1][copies] == numbers[1][originals]
    return Copies(copies[same], originals[same], share.total)


def pair_products(own: Tensor, row: Tensor, other: Tensor, share: Share) -> Tensor:
    """x_row . x_other [pairs] of rows of this process and, by their numbers among all [pairs], of any."""
    if share.world == 1:
        return torch.ops.gcl_fast.row_products(own, own, row, other)  # type: ignore[no-any-return]
    result = own.new_empty(len(row))
    for first, rows in share.everyone(own):
        asked = ((other >= first) & (other < first + len(rows))).nonzero()[:, 0]
        result[asked] = torch.ops.gcl_fast.row_products(own, rows, row[asked], other[asked] - first)
    return result
