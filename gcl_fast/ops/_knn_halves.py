"""Exact nearest neighbours from products in half precision: tensor cores choose candidates, float32 decides."""

from __future__ import annotations

import torch
from torch import Tensor

from gcl_fast.ops._knn import Lists, Products, nearest

FROM_ROWS = 4096  # fewer are quick in any way
LONGEST = 256  # k above: too many candidates to score again
PAIRS = 1 << 22  # scored at a time
WIDTH = 64  # products have a multiple of it as columns: the kernels of sm_90 write lines of whole 16 bytes


def nearest_rows(x: Tensor, k: int) -> Lists:
    """`_knn.nearest` in the way that is quickest on the device of x [N, D], unit rows."""
    suits = x.device.type == "cuda" and x.dtype == torch.float32 and len(x) >= FROM_ROWS and 1 < k <= LONGEST
    return nearest_by_halves(x, k) if suits else nearest(x, k)


def nearest_by_halves(x: Tensor, k: int) -> Lists:
    """`_knn.nearest` of unit rows x [N, D] float32, k above 1: m > k candidates of each row by the products of h = float16(x),
    then the k best of those by float32 products. A row whose candidates might lack one of its neighbours is searched again.

    Why that is exact, up to float32's rounding. Let d_i = |x_i - h_i|. Then

        x_i . x_j - h_i . h_j = x_i . (x_j - h_j) + (x_i - h_i) . h_j,  at most |x_i| d_j + d_i |h_j| in size (Cauchy-Schwarz).

    Products of two float16 have 22 bits: float32 holds them. D of them summed in float32, in any order, rounded or cut off after
    every addition, are off by at most D 2^-22 sum_d |h_id h_jd| <= D 2^-22 |h_i| |h_j|; the float32 products that decide, by less
    than D 2^-22 |x_i| |x_j|. So the two scores of a pair differ by no more than

        e_i = |x_i| max d + d_i max |h| + D 2^-22 (|h_i| max |h| + |x_i| max |x|).

    A row that is no candidate of i has a half score of at most that of the last candidate, and a float32 score of at most e_i
    more: where the k-th best candidate has more than that, no other row can come before it. float16 rounds to 11 bits, so d is
    about 2e-4 and e about 1.4e-3 at D = 2048. Candidates whose two scores differ by more than e_i (no arithmetic described above
    gives that) have their row searched again as well.
    """
    total = len(x)
    m = min(total, k + max(8, k // 2))
    halves = x.half()
    found = Lists.empty(total, m, x)
    with torch.no_grad(), torch.autocast(x.device.type, enabled=False):
        HalfProducts(x).within(halves, 0, found)
        bound = _bound(x, halves.float())
        exact = torch.empty_like(found.value)
        step = max(1, PAIRS // m)
        for first in range(0, total, step):
            part = slice(first, min(first + step, total))
            row = torch.arange(part.start, part.stop, device=x.device).repeat_interleave(m)
            exact[part] = torch.ops.gcl_fast.row_products(x, x, row, found.index[part].reshape(-1)).view(-1, m)
        result = Lists(exact, found.index).best(k)
        unsure = ((exact - found.value).abs() > bound[:, None]).any(dim=1)
        if m < total:
            unsure |= ~(result.value[:, -1] > found.value[:, -1] + bound)
        again = unsure.nonzero()[:, 0]
        if len(again) > total // 2:  # then each pair once is less
            return nearest(x, k)
        if len(again):
            value, index = nearest(x, k, which=again)
            result.value[again], result.index[again] = value, index
    return result


class HalfProducts(Products):
    """Products of float16 rows, summed in float32."""

    def _block(self, left: Tensor, right: Tensor) -> Tensor:
        if left.device.type == "cuda":
            missing = -len(right) % WIDTH
            wide = torch.nn.functional.pad(right, (0, 0, 0, missing)) if missing else right
            product: Tensor = torch.mm(left, wide.T, out_dtype=torch.float32)
            return product[:, : len(right)]
        return super()._block(left.float(), right.float())  # the same numbers, without tensor cores


def _bound(x: Tensor, halves: Tensor) -> Tensor:
    """e [N] of `nearest_by_halves`, with what computing it may take off."""
    lost, length, half_length = (torch.linalg.vector_norm(rows, dim=1) for rows in (x - halves, x, halves))
    rounding = x.shape[1] * 2.0**-22
    scores = half_length * half_length.max() + length * length.max()
    bound: Tensor = length * lost.max() + lost * half_length.max() + rounding * scores
    return bound * 1.01
