"""Pseudo-labels by the processes that torchrun started: python tests/shared_labels_worker.py OUT writes what each rank found."""

from __future__ import annotations

import sys
from pathlib import Path

import torch

from gcl_fast import distributed
from gcl_fast.ops import _shared_neighbors as shared
from gcl_fast.ops._rows import unit
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


def main(out: Path) -> None:
    torch.set_num_threads(1)
    found: dict[str, object] = {}
    with distributed.session(torch.device("cpu")) as rank:
        for name, (x, rule) in CASES.items():
            result = cluster(x, **rule, cameras=torch.arange(len(x)) % 2, share=True)
            found[name] = (result.labels, result.eps, result.camera_agreement)
        x = unit(signs(61, 16, seed=1))  # products are exact, so ties are ties
        own = x[distributed.fair_share(len(x))]
        found["nearest"] = tuple(shared.nearest(own, 9, shared.Share(own)))
        size = (5, 0, 2, 7)[rank]  # shares of any length
        found["gathered"] = distributed.gather_uneven(torch.full((size, 2), rank))
        try:
            labels_of_shares(torch.full((2, 3), torch.nan if rank == 1 else 1.0))
        except ValueError as error:
            found["error"] = str(error)
        torch.save(found, out / f"rank{rank}.pt")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
