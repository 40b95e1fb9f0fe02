"""Pseudo-labels by the processes that torchrun started: python tests/shared_labels_worker.py OUT writes what each rank found."""

from __future__ import annotations

import sys
from pathlib import Path
from unittest import mock

import torch

from gcl_fast import _native, distributed
from gcl_fast.ops import _knn_halves, _knn_shared
from gcl_fast.ops._rows import unit
from gcl_fast.ops._share import Share
from gcl_fast.pseudo_labels import cluster, labels_of_shares
from tests.test_neighbors import crowd, signs


def loose(n: int, d: int, seed: int) -> torch.Tensor:
    """Features of a few people, no two alike. With k2 = 1, no distance is 0 but for rounding, which `rho` would count or not."""
    generator = torch.Generator().manual_seed(seed)
    people = torch.randn(n // 6, d, generator=generator)
    return people[torch.arange(n) % len(people)] + 0.7 * torch.randn(n, d, generator=generator)


CASES = {  # features, and how they are clustered
    "plain": (crowd(203, 12, seed=4, spread=0.6), {"k1": 12, "k2": 4, "eps": 0.6}),
    "alone": (crowd(90, 12, seed=5, spread=0.6), {"k1": 9, "k2": 1, "eps": 0.5, "min_samples": 1}),
    "rho": (loose(120, 12, seed=6).double(), {"k1": 12, "k2": 1, "rho": 0.02}),
    "copies": (signs(60, 4, seed=7), {"k1": 10, "k2": 3, "eps": 0.6}),  # at most 16 different rows
    "few": (crowd(3, 5, seed=8), {"k1": 4, "k2": 2, "eps": 0.5, "min_samples": 1}),  # fewer rows than processes
    "none": (torch.zeros(0, 4), {}),
    "all": (crowd(20, 5, seed=9), {"k1": 4, "k2": 2, "eps": 1.0}),
}


def twins(n: int, d: int, seed: int) -> torch.Tensor:
    """Rows apart, but for some that half precision does not tell from each other, all in the first process's share."""
    generator = torch.Generator().manual_seed(seed)
    x = unit(torch.randn(n, d, generator=generator))
    x[5:25] = unit(x[:1] + 1e-4 * torch.randn(20, d, generator=generator))
    return x


HALVED = {  # rows and how many neighbours
    "apart": (twins(203, 32, seed=3), 7),
    "unsure": (torch.randn(150, 4096, generator=torch.Generator().manual_seed(3)), 12),  # all alike far from each other
    "few": (crowd(3, 5, seed=8), 3),  # fewer than processes
}


def halved(own: torch.Tensor, k: int, half: torch.dtype, share: Share) -> list[object]:
    """Neighbours by candidates in half precision, and how many rows of this process float32 looked at after them."""
    counts: list[int] = []

    def counting(x, k, share, which=None):
        counts.append(len(x) if which is None else len(which))
        return _knn_shared.nearest(x, k, share, which)

    with mock.patch.object(_knn_halves, "nearest", counting):
        return [*_knn_halves.nearest_by_halves(own, k, half, share), counts]


def some_of(own: torch.Tensor, rank: int) -> torch.Tensor:
    """Rows of the first process alone: the others take part all the same."""
    return torch.arange(len(own)).flip(0)[: 5 if rank == 0 else 0]


def chosen(own: torch.Tensor) -> list[bool]:
    """Whether halves are taken where all processors have units for bfloat16, and where all but one have."""
    taken = []
    many = {"FROM_ROWS": 1, "FROM_NUMBERS": {"cpu": 0}}
    for units in (True, distributed.rank() != 1):
        with (
            mock.patch.multiple(_knn_halves, **many),
            mock.patch.object(_native, "has_bfloat16_units", lambda units=units: units),
            mock.patch.object(_knn_halves, "nearest_by_halves", side_effect=_knn_halves.nearest_by_halves) as by_halves,
        ):
            _knn_halves.nearest_rows(own, 3, Share(own))
            taken.append(by_halves.called)
    return taken


def precision(own: torch.Tensor) -> set[str]:
    """What products ask for while the program allows less."""
    seen = set()
    real = torch.mm
    torch.set_float32_matmul_precision("medium")
    with mock.patch.object(torch, "mm", lambda *a, **k: (seen.add(torch.get_float32_matmul_precision()), real(*a, **k))[1]):
        _knn_shared.nearest(own, 3, Share(own))
    torch.set_float32_matmul_precision("highest")
    return seen


def main(out: Path) -> None:
    torch.set_num_threads(1)
    found: dict[str, object] = {}
    with distributed.session(torch.device("cpu")) as rank:
        for name, (x, rule) in CASES.items():
            result = cluster(x, **rule, cameras=torch.arange(len(x)) % 2, share=True)
            found[name] = (result.labels, result.eps, result.camera_agreement)
        x = unit(signs(61, 16, seed=1))  # products are exact, so ties are ties
        own = x[distributed.fair_share(len(x))]
        found["nearest"] = tuple(_knn_shared.nearest(own, 9, Share(own)))
        found["some"] = tuple(_knn_shared.nearest(own, 9, Share(own), which=some_of(own, rank)))
        for name, (x, k) in HALVED.items():
            part = unit(x)[distributed.fair_share(len(x))]
            for half in (torch.float16, torch.bfloat16):
                found[f"{name} {half}"] = tuple(halved(part, k, half, Share(part)))
        same = signs(60, 4, seed=7)[distributed.fair_share(60)]
        found["copies of rows"] = _knn_shared._copies(same, Share(same)).table
        found["chosen"] = chosen(own)
        found["precision"] = precision(own)
        size = (5, 0, 2, 7)[rank]  # shares of any length
        found["gathered"] = distributed.gather_uneven(torch.full((size, 2), rank))
        try:
            labels_of_shares(torch.full((2, 3), torch.nan if rank == 1 else 1.0))
        except ValueError as error:
            found["error"] = str(error)
        torch.save(found, out / f"rank{rank}.pt")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
