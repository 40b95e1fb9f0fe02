"""Memory-based multi-labels of MMCL (Wang and Zhang, CVPR 2020: MPLP, eq. 3-5)."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from gcl_fast.ops._products import exact_product
from gcl_fast.transfer import Asked

BLOCK = 1 << 24  # similarities alive at once
FIRST_STEPS = 16  # candidates of each query looked at in the first go; doubled from go to go


class LabelWalk:
    """Positives of each query among the memory rows: made, the walk's first round is queued at once; `positive` gives the labels.
    Deterministic.

    Arguments:
        bank: [N, D], L2-normalised.
        index: [B] int64, the memory rows that ask (their current rows are the queries).
        threshold: a cosine. A query has n = rows more similar to it than threshold, t = max(n, min_neighbors) (at most N).
        min_neighbors: at least 1.
        walk: "mutual", as below; "released": as the authors' code has it, the nearest other row is a positive always (where it is
            above the threshold), and the query may also be the first row after a neighbour's own t nearest.

    A query's neighbours are walked from the nearest (itself first; the lower row wins a tie), and the walk stops at the first
    whose own t nearest do not hold the query. Positives are those before it, the first n of them at most; itself always. Memory:
    B x N, and blocks of similarities of the candidates that the walks reach; never N x N.

    On a GPU each round asks of all queries alike for so many neighbours, reached or not, so that no size depends on data; whether
    any walk goes on is asked for with the round and read in `positive`; then there is another, of twice as many.

    Source: Wang and Zhang, CVPR 2020, eq. 3-5.
    """

    def __init__(
        self, bank: Tensor, index: Tensor, threshold: float, min_neighbors: int, walk: Literal["released", "mutual"]
    ) -> None:
        self.bank, self.index, self.released = bank, index, walk == "released"
        self.threshold, self.min_neighbors = threshold, min_neighbors
        self.on_host = bank.device.type == "cpu"
        if not self.on_host:
            self._begin()

    @torch.no_grad()
    def positive(self) -> Tensor:
        """[B, N] bool."""
        if self.on_host:
            return _walked(self.bank, self.index, self.threshold, self.min_neighbors, self.released)
        while self.stop < len(self.bank) and bool(self.more.get()):
            self._round()
        return self._positive

    @torch.no_grad()
    def _begin(self) -> None:
        bank, index, total = self.bank, self.index, len(self.bank)
        similarity = exact_product(bank[index], bank)  # [B, N]
        similarity.scatter_(1, index[:, None], torch.inf)  # itself first
        self.near = (similarity > self.threshold).sum(1)  # [B], itself counted
        self.reach = self.near.clamp_min(self.min_neighbors).clamp_max(total)  # [B] t
        self.order = similarity.sort(dim=1, descending=True, stable=True).indices  # [B, N]
        self.walking = torch.ones_like(self.near, dtype=torch.bool)
        self._positive = torch.zeros_like(similarity, dtype=torch.bool).scatter_(1, index[:, None], True)
        if self.released:  # the nearest other row
            self._add(slice(1, 2), (self.near > 1)[:, None])
        self.stop, self.steps = 1, FIRST_STEPS
        self._round()

    def _add(self, places: slice, chosen: Tensor) -> None:
        """Make those of the neighbours at these places positive that are chosen [B, places]."""
        rows = self.order[:, places]
        self._positive.scatter_(1, rows, self._positive.gather(1, rows) | chosen)

    def _round(self) -> None:
        start, self.stop = self.stop, min(self.stop + self.steps, len(self.bank))
        places = slice(start, self.stop)
        turn = torch.arange(start, self.stop, device=self.bank.device)
        asked = self.walking[:, None] & (turn < self.near[:, None])  # [B, steps]
        query = self.index[:, None].expand_as(asked).reshape(-1)
        rank = _ranks(self.bank, self.order[:, places].reshape(-1), query).view_as(asked)
        passed = (rank < self.reach[:, None] + self.released) | ~asked
        self._add(places, passed.cumprod(1).bool() & asked)  # no stop up to here
        self.walking &= passed.all(1) & (self.near > self.stop)
        self.more, self.steps = Asked(self.walking.any()), 2 * self.steps


def _walked(bank: Tensor, index: Tensor, threshold: float, min_neighbors: int, released: bool) -> Tensor:
    """The walk on the CPU, of the neighbours alone that it reaches."""
    batch, total = len(index), len(bank)
    similarity = exact_product(bank[index], bank)  # [B, N]
    similarity.scatter_(1, index[:, None], torch.inf)  # itself first
    near = (similarity > threshold).sum(1)  # [B], itself counted
    reach = near.clamp_min(min_neighbors).clamp_max(total)  # [B] t
    positive = torch.zeros(batch, total, dtype=torch.bool, device=bank.device)
    positive.scatter_(1, index[:, None], True)
    limit = int(near.max()) if batch else 0  # no walk need go further
    if limit <= 1:
        return positive
    _, order = similarity.sort(dim=1, descending=True, stable=True)
    order = order[:, :limit]  # [B, limit]
    walking = torch.ones(batch, dtype=torch.bool, device=bank.device)
    start, steps = 1, FIRST_STEPS
    while start < limit:
        stop = min(start + steps, limit)
        turn = torch.arange(start, stop, device=bank.device)
        asked = walking[:, None] & (turn[None] < near[:, None])  # [B, steps]
        if not bool(asked.any()):
            break
        query, column = asked.nonzero(as_tuple=True)
        candidate = order[query, start + column]  # [P]
        mutual = torch.zeros_like(asked)
        mutual[query, column] = _rank(bank, candidate, index[query]) < reach[query] + released
        reached = (mutual | ~asked).cumprod(1).bool() & asked  # no stop up to here
        row, column = reached.nonzero(as_tuple=True)
        positive[row, order[row, start + column]] = True
        walking &= (mutual | ~asked).all(1) & (near > stop)
        start, steps = stop, 2 * steps
    if released:
        query = (near > 1).nonzero().flatten()
        positive[query, order[query, 1]] = True
    return positive


def _ranks(bank: Tensor, candidate: Tensor, query: Tensor) -> Tensor:
    """`_rank` without a size that depends on data."""
    columns = torch.arange(len(bank), device=bank.device)
    ranks = []
    for rows, asking in zip(*(torch.split(t, max(1, BLOCK // len(bank))) for t in (candidate, query)), strict=True):
        block = exact_product(bank[rows], bank)  # [p, N]
        block.scatter_(1, rows[:, None], torch.inf)
        own = block.gather(1, asking[:, None])  # [p, 1]
        ranks.append(((block > own) | ((block == own) & (columns < asking[:, None]))).sum(1))
    return torch.cat(ranks) if ranks else query.new_zeros(0)


def _rank(bank: Tensor, candidate: Tensor, query: Tensor) -> Tensor:
    """Place of memory row query[p] in the neighbour list of row candidate[p], whose first (0) is itself: [P] int64."""
    unique, place = torch.unique(candidate, return_inverse=True)  # [U]: a candidate of several queries is multiplied once
    order = place.argsort(stable=True)
    rank = torch.empty_like(query)
    sizes = torch.bincount(place, minlength=len(unique))
    ends = sizes.cumsum(0).tolist()
    step = max(1, BLOCK // len(bank))
    columns = torch.arange(len(bank), device=bank.device)
    for first in range(0, len(unique), step):
        last = min(first + step, len(unique))
        block = exact_product(bank[unique[first:last]], bank)  # [u, N]
        block.scatter_(1, unique[first:last, None], torch.inf)
        pairs = order[(ends[first - 1] if first else 0) : ends[last - 1]]
        for part in torch.split(pairs, step):
            row = block[place[part] - first]  # [p, N]
            asking = row.gather(1, query[part, None])  # [p, 1]
            before = (row > asking) | ((row == asking) & (columns[None] < query[part, None]))
            rank[part] = before.sum(1)
    return rank
