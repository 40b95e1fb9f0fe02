"""What neighbours, Jaccard distances and labels must be at sizes where the definition cannot be run whole: some rows of it."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from gcl_fast._op_types import SparseDistance
from gcl_fast.reference.neighbors import expanded_set

BLOCK = 1 << 16  # rows of a float64 product
MOST_PAIRS = 300_000_000  # of which the labels are computed a second time


def sample(total: int, count: int, device: torch.device) -> Tensor:
    """Some rows, the first and the last among them."""
    inner = torch.randperm(total, generator=torch.Generator().manual_seed(5))[:count]
    return torch.cat([inner, torch.tensor([0, total - 1])]).unique().to(device)


def check_neighbors(x: Tensor, similarity: Tensor, index: Tensor, rows: Tensor, tolerance: float = 1e-5) -> None:
    """Sampled rows against a float64 product with every row: AssertionError where a neighbour is not among the nearest."""
    k = index.shape[1]
    unit = torch.nn.functional.normalize(x[rows].double(), dim=1)
    best = unit.new_full((len(rows), k), -2.0)
    for first in range(0, len(x), BLOCK):
        block = unit @ torch.nn.functional.normalize(x[first : first + BLOCK].double(), dim=1).T
        block.masked_fill_(rows[:, None] == torch.arange(first, first + block.shape[1], device=x.device), 2.0)  # itself first
        best = torch.cat([best, block], 1).topk(k, dim=1).values
    best[:, 0] = 1.0
    assert torch.equal(index[rows, 0], rows), "a row is not its own first neighbour"
    exact = (torch.nn.functional.normalize(x[index[rows]].double(), dim=2) * unit[:, None]).sum(2)  # of the rows it names
    for name, got in (("similarity", similarity[rows].double()), ("similarity of the rows named", exact)):
        assert float((got[:, 1:] - best[:, 1:]).abs().max()) <= tolerance, f"{name} differs from the nearest ones'"
    ordered = index[rows].sort(dim=1).values
    assert bool((ordered[:, 1:] != ordered[:, :-1]).all()), "a neighbour is named twice"


class JaccardRows:
    """Distances between single rows straight from the definition, given everyone's neighbours."""

    def __init__(self, index: Tensor, x: Tensor, k1: int, k2: int) -> None:
        self.index, self.x, self.k1, self.k2 = index[:, :k1].cpu().numpy(), x, k1, k2
        self._spread: dict[int, dict[int, float]] = {}

    def spread(self, i: int) -> dict[int, float]:
        """The softmax over the expanded set of i."""
        if i not in self._spread:
            members = np.array(sorted(expanded_set(self.index, i, self.k1, int(np.around(self.k1 / 2)))))
            rows = torch.nn.functional.normalize(
                self.x[torch.from_numpy(np.append(members, i)).to(self.x.device)].double(), dim=1
            )
            logit = (2 * rows[:-1] @ rows[-1]).cpu().numpy()
            weight = np.exp(logit - logit.max())
            self._spread[i] = dict(zip(members.tolist(), (weight / weight.sum()).tolist(), strict=True))
        return self._spread[i]

    def mean(self, i: int) -> dict[int, float]:
        """That of i's first k2 neighbours, averaged."""
        near = self.index[i, : self.k2].tolist()
        total: dict[int, float] = {}
        for j in near:
            for column, value in self.spread(j).items():
                total[column] = total.get(column, 0.0) + value / len(near)
        return total

    def distance(self, i: int, j: int) -> float:
        if i == j:
            return 0.0
        a, b = self.mean(i), self.mean(j)
        shared = sum(min(value, b[column]) for column, value in a.items() if column in b)
        return max(0.0, 1 - shared / (2 - shared))


def check_jaccard(
    distance: SparseDistance, oracle: JaccardRows, rows: Tensor, *, most: int = 30, beyond: float = 1.0, tolerance: float = 1e-5
) -> int:
    """Sampled rows' stored distances, and some pairs that are not stored (at least `beyond` apart); how many were compared."""
    rng = np.random.default_rng(7)
    total, compared = distance.shape[0], 0
    for i in rows.tolist():
        begin, end = (int(distance.indptr[n]) for n in (i, i + 1))
        columns = distance.indices[begin:end].cpu().numpy().astype(np.int64)
        values = distance.values[begin:end].double().cpu().numpy()
        assert i in columns and (np.diff(columns) > 0).all(), f"row {i}: columns are not sorted, or itself is not among them"
        chosen = rng.permutation(len(columns))[:most]
        for place in chosen.tolist():
            want = oracle.distance(i, int(columns[place]))
            assert abs(values[place] - want) <= tolerance, f"d({i}, {columns[place]}) is {values[place]}, defined as {want}"
        stored = set(columns.tolist())
        others = [j for j in rng.integers(0, total, 3 * most).tolist() if j not in stored][:most]
        for j in others:
            assert oracle.distance(i, j) >= beyond - tolerance, f"d({i}, {j}) is not stored but less than {beyond}"
        compared += len(chosen) + len(others)
    return compared


def expected_labels(distance: SparseDistance, eps: float, min_samples: int) -> Tensor | None:
    """DBSCAN by propagating the least core point through torch's own operations; None where the pairs are too many."""
    if len(distance.values) > MOST_PAIRS:
        return None
    total = distance.shape[0]
    row = torch.repeat_interleave(torch.arange(total, device=distance.indptr.device), distance.indptr.diff())
    near = distance.values <= torch.tensor(eps, dtype=distance.values.dtype, device=row.device)
    row, column = row[near], distance.indices[near].long()
    core = torch.bincount(row, minlength=total) >= min_samples
    between = core[row] & core[column]
    a, b = row[between], column[between]
    root = torch.arange(total, device=row.device)
    while True:
        lower = root.scatter_reduce(0, a, root[b], "amin")
        lower = lower[lower]
        if torch.equal(lower, root):
            break
        root = lower
    first = core & (root == torch.arange(total, device=row.device))
    number = first.long().cumsum(0) - 1
    none = total + 1
    labels = torch.where(core, number[root], none)
    reached = core[column] & ~core[row]
    labels = labels.scatter_reduce(0, row[reached], labels[column[reached]], "amin")
    return torch.where(labels == none, -1, labels)
