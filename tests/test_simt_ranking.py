"""The ranking kernel's CUDA source on emulated threads: the bits of the CPU op in every thread order."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.simt.harness import KERNEL_ORDERS, run
from tests.test_ranking import identities


def arguments(queries: int, gallery: int, people: int, dtype: torch.dtype, levels: int, seed: int) -> dict[str, torch.Tensor]:
    rng = np.random.default_rng(seed)
    qp, gp, qc, gc = identities(queries, gallery, people, 3, rng)
    qp[:1] = -1  # a person that none may match
    distances = torch.from_numpy(rng.integers(0, levels, (queries, gallery)) / 8).to(dtype)
    distances.flatten()[::11] = float("inf")
    pids, order = torch.sort(gp, stable=True)
    begin, end = (torch.searchsorted(pids, qp, right=right) for right in (False, True))
    return {
        "distances": distances,
        "query_pids": qp,
        "gallery_pids": gp,
        "query_camids": qc,
        "gallery_camids": gc,
        "gallery_order": order,
        "begin": begin,
        "end": end,
    }


CASES = {
    "float": (5, 300, 9, torch.float32, 10000, 0),
    "double": (4, 150, 5, torch.float64, 10000, 1),
    "ties": (4, 200, 3, torch.float32, 2, 2),  # more matches than a tile holds
    "wide": (2, 2100, 40, torch.float32, 40, 6),  # more images than a block of threads looks at in one go, many ties
    "few": (3, 4, 2, torch.float32, 5, 3),
    "no gallery": (2, 0, 2, torch.float32, 5, 4),
    "no query": (0, 5, 2, torch.float64, 5, 5),
}


@pytest.mark.parametrize("order", KERNEL_ORDERS)
@pytest.mark.parametrize(("case", "race"), [*((name, False) for name in CASES), ("float", True), ("ties", True)])
def test_the_kernel_gives_the_bits_of_the_cpu_op(case: str, race: bool, order: str) -> None:
    given = arguments(*CASES[case])
    want = torch.ops.gcl_fast.ranking_scores(*given.values())
    out = run("ranking", "scores", order, 3, race=race, **{name: value.numpy() for name, value in given.items()})
    for name, expected in zip(("precision", "places"), want, strict=True):
        assert out[name].dtype == expected.numpy().dtype and out[name].tobytes() == expected.numpy().tobytes(), name
    if case in ("float", "ties"):
        assert (want[1][1:, 0] > 0).all() and int(want[1][0, 0]) == 0


@pytest.mark.parametrize("order", KERNEL_ORDERS)
def test_rows_that_do_not_exist_are_passed_over(order: str) -> None:
    given = arguments(*CASES["float"])
    want = torch.ops.gcl_fast.ranking_scores(*given.values())
    wrong = {name: value.numpy().copy() for name, value in given.items()}
    last = len(wrong["gallery_order"])
    wrong["end"] = np.where(wrong["end"] == wrong["end"].max(), last + 100, wrong["end"])
    got = run("ranking", "scores", order, **wrong)
    same = wrong["end"] == given["end"].numpy()
    assert got["precision"][same].tobytes() == want[0].numpy()[same].tobytes()
