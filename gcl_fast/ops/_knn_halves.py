"""Exact nearest neighbours from products in half precision: they choose candidates, float32 decides."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from gcl_fast import _native
from gcl_fast.ops._knn import Lists, Products
from gcl_fast.ops._knn_shared import fill, nearest, pair_products
from gcl_fast.ops._products import exact_products
from gcl_fast.ops._share import Share

FROM_ROWS = 4096  # fewer are quick in any way
FROM_NUMBERS = {"cpu": 1 << 21, "cuda": 0}  # in x; fewer: what half precision saves is less than its scores cost
LONGEST = 256  # k above: too many candidates to score again
SAMPLE = 128  # rows that tell whether bfloat16 settles enough of the rest
WIDTH = 64  # products have a multiple of it as columns: the kernels of sm_90 write lines of whole 16 bytes


def nearest_rows(x: Tensor, k: int, share: Share | None = None) -> Lists:
    """`_knn.nearest` in the way that is quickest on the device of x [N, D], unit rows; of several processes, each with its share
    of the rows, `_knn_shared.nearest`."""
    share = share or Share(x, alone=True)
    few = share.total < FROM_ROWS or share.total * x.shape[1] < FROM_NUMBERS.get(x.device.type, 0)
    if few or x.dtype != torch.float32 or not 1 < k <= LONGEST:
        return nearest(x, k, share)
    half = half_type(x.device)
    if not share.all_say(half is not None, x.device) or half is None:
        return nearest(x, k, share)
    return nearest_by_halves(x, k, half, share)


def half_type(device: torch.device) -> torch.dtype | None:
    """Of half precision, the type whose products are quick there and closest to float32's."""
    if device.type == "cuda":
        return torch.float16
    return torch.bfloat16 if device.type == "cpu" and _native.has_bfloat16_units() else None


def nearest_by_halves(x: Tensor, k: int, half: torch.dtype, share: Share | None = None) -> Lists:
    """`_knn_shared.nearest` of unit rows x [n, D] float32, k above 1: m > k candidates of each row by products in half precision,
    then the k best of those by float32 products. A row whose candidates might lack one of its neighbours is searched again.

    What rows have in common is taken off first: it says nothing of who is nearer, and half precision would spend its few digits
    on it. Let u be the mean row, c_i = x_i - u and h_i = half(c_i). As x_i . x_j = c_i . c_j + u . x_j + c_i . u, the score

        s_ij = h_i . h_j + u . x_j     orders the rows j for a row i,     x_i . x_j - s_ij - c_i . u     is small:

    `Halved` bounds it by an e_i. A row that is no candidate of i has a score of at most that of the last candidate, so a product
    of at most e_i more than it and c_i . u: where the k-th best candidate has more than that, no other row can come before it.
    Candidates whose product and score differ by more than e_i (no arithmetic described there gives that) have their row searched
    again as well. Where bfloat16 settles less than three quarters of a sample of the rows, all are searched in float32.
    """
    share = share or Share(x, alone=True)
    with torch.no_grad(), exact_products(x.device):
        halved = Halved.of(x, half, share)
        if halved.coarse:
            _, unsure = _search(x, k, halved, share, _spread(share, x.device))
            if float(share.gather(unsure).float().mean()) > 0.25:
                return nearest(x, k, share)
        result, unsure = _search(x, k, halved, share)
        count = int(share.gather(unsure).sum())
        if count > share.total // 2:  # then each pair once is less
            return nearest(x, k, share)
        if count:
            again = unsure.nonzero()[:, 0]
            value, index = nearest(x, k, share, which=again)
            result.value[again], result.index[again] = value, index
    return result


def _spread(share: Share, device: torch.device) -> Tensor:
    """This process's of some rows, from first to last, of which most of all can be told."""
    count = min(share.total, SAMPLE)
    rows = torch.arange(count, device=device) * (share.total - 1) // max(count - 1, 1)
    return rows[(rows >= share.first) & (rows < share.last)] - share.first


def _search(x: Tensor, k: int, halved: Halved, share: Share, which: Tensor | None = None) -> tuple[Lists, Tensor]:
    """Lists of every row of this process, or of its rows `which`, and [n] where the bound does not settle them."""
    ops, m = torch.ops.gcl_fast, min(share.total, k + max(8, k // 2))
    found = Lists.empty(len(x) if which is None else len(which), m, x)
    fill(halved.rows, which, HalfProducts(halved), found, share)
    numbers = slice(share.first, share.last) if which is None else which + share.first
    offset, bound = halved.offset[numbers], halved.bound[numbers]
    if share.world == 1:
        some = found.index.new_empty(0) if which is None else which
        product = ops.candidate_products(x, some, found.index, found.value, bound, k)
    else:
        rows = torch.arange(len(x), device=x.device) if which is None else which
        product = pair_products(x, rows.repeat_interleave(m), found.index.reshape(-1), share).view(-1, m)
    value, index, unsure = ops.best_candidates(found.index, product, found.value, offset, bound, m == share.total, k)
    return Lists(value, index), unsure


class Halved(NamedTuple):
    """Unit rows x_i less their mean u, in half precision, and how far scores made of them are from products of x.

    Let c_i = x_i - u, h_i = half(c_i) and d_i = |c_i - h_i|. By Cauchy and Schwarz

        c_i . c_j - h_i . h_j = c_i . (c_j - h_j) + (c_i - h_i) . h_j,  at most |c_i| d_j + d_i |h_j| in size.

    Products of two halves have 22 bits or fewer: float32 holds them. D of them summed in float32, in any order, rounded or cut
    off after every addition, are off by at most D 2^-22 |h_i| |h_j|. Where the sum is rounded to bfloat16 (8 bits), it moves by
    at most 2^-8 |h_i| |h_j|, twice what rounding to nearest gives. u . x_i, u . x_j, u . u and x_i . x_j are float32's, rounded
    to nearest: off by D 2^-24 times the two lengths, whatever the order. The differences c and the sums of those numbers round
    less than eight times more. So, where r = 2^-8 or 0,

        e_i = |c_i| max d + d_i max |h| + (r + D 2^-22) |h_i| max |h| + (D + 8) 2^-24 (3 |u| + 1 + |h_i| max |h|)

    with |c_i| + d_i for |h_i|, which is no less. For rows spread all around (u = 0, D = 2048) that is 1.2e-3 with float16,
    8e-3 with bfloat16.
    """

    rows: Tensor
    """[n, D] h, of this process's rows"""
    common: Tensor
    """[N] u . x_j"""
    offset: Tensor
    """[N] c_i . u, as u . x_i - u . u"""
    bound: Tensor
    """[N] e_i"""
    coarse: bool
    """whether products are rounded to bfloat16: then e is so large that it may settle few rows"""

    @classmethod
    def of(cls, x: Tensor, half: torch.dtype, share: Share) -> Halved:
        mean = share.gather(x.sum(dim=0, keepdim=True)).sum(dim=0) / share.total
        rows, *numbers = torch.ops.gcl_fast.halve_rows(x, mean, half == torch.bfloat16)
        common, length, lost = (share.gather(n) for n in numbers)
        size, half_length = mean.norm(), length + lost
        halves, width = half_length * half_length.max(), x.shape[1]
        coarse = x.device.type == "cpu" and half == torch.bfloat16
        bound = length * lost.max() + lost * half_length.max() + (2.0**-8 * coarse + width * 2.0**-22) * halves
        bound += (width + 8) * 2.0**-24 * (3 * size + 1 + halves)
        return cls(rows, common, common - size.square(), bound * 1.01, coarse)  # 1.01: what computing it may take off


class HalfProducts(Products):
    """Products of rows in half precision, summed in float32. torch's of bfloat16 on the CPU are rounded to it."""

    def __init__(self, halved: Halved) -> None:
        super().__init__(halved.common, penalty=-halved.common)
        if halved.coarse:
            self.buffer = halved.rows.new_empty(0)

    def _block(self, left: Tensor, right: Tensor) -> Tensor:
        if left.device.type == "cuda":
            missing = -len(right) % WIDTH
            wide = torch.nn.functional.pad(right, (0, 0, 0, missing)) if missing else right
            product: Tensor = torch.mm(left, wide.T, out_dtype=torch.float32)
            return product[:, : len(right)]
        if left.dtype == torch.float16:
            left, right = left.float(), right.float()  # the same products: nothing is quicker there
        return super()._block(left, right)


def _fake_halves(x: Tensor, mean: Tensor, bfloat16: bool) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    half = torch.empty_like(x, dtype=torch.bfloat16 if bfloat16 else torch.float16)
    return half, x.new_empty(len(x)), x.new_empty(len(x)), x.new_empty(len(x))


def _fake_products(x: Tensor, rows: Tensor, index: Tensor, score: Tensor, bound: Tensor, k: int) -> Tensor:
    return torch.empty_like(score)


def _fake_best(
    index: Tensor, product: Tensor, score: Tensor, offset: Tensor, bound: Tensor, whole: bool, k: int
) -> tuple[Tensor, Tensor, Tensor]:
    rows = index.shape[0]
    return score.new_empty(rows, k), index.new_empty(rows, k), index.new_empty(rows, dtype=torch.bool)


if _native.loaded:
    torch.library.register_fake("gcl_fast::halve_rows", _fake_halves)
    torch.library.register_fake("gcl_fast::candidate_products", _fake_products)
    torch.library.register_fake("gcl_fast::best_candidates", _fake_best)
