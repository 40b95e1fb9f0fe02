"""Pseudo-labels and their parts: kNN, Jaccard distance, DBSCAN, all of it; rivals faiss and the bare product.

Each is called as a user calls it. `jaccard` is given the neighbours; `labels` begins with the features.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from bench import floors, neighbors
from bench.gpu_check import oracles
from bench.gpu_check.catalogue import Number
from bench.gpu_check.measuring import Prepared
from gcl_fast import ops, pseudo_labels

K1, K2, EPS, MIN_SAMPLES = neighbors.K1, neighbors.K2, neighbors.EPS, neighbors.MIN_SAMPLES
BLOCK = 1 << 16
BOUND = "nothing is compared: the product alone, with no neighbours taken from it"
HOST = "it reads sizes back to the host"
_kept: dict[tuple[int, int, str], World] = {}


class World:
    """Features of one size and what is made of them, each once; only the last size is kept."""

    def __init__(self, rows: int, dim: int, device: torch.device) -> None:
        self.x = features(rows, dim, device)

    @cached_property
    def neighbors(self) -> Any:
        return ops.knn(self.x, K1)

    @cached_property
    def distance(self) -> ops.SparseDistance:
        return jaccard(self.neighbors.index, features=self.x)

    @cached_property
    def labels(self) -> Tensor:
        return ops.dbscan(self.distance, EPS, MIN_SAMPLES)

    def keep(self, name: str, make: Callable[[], Any]) -> Any:
        """What `make` gives, kept under this name in place of what was: the check looks at what was timed."""
        self.__dict__.pop(name, None)
        self.__dict__[name] = result = make()
        return result


def world(case: dict[str, Any], device: torch.device) -> World:
    key = (case["rows"], case["dim"], str(device))
    if key not in _kept:
        _kept.clear()
        _kept[key] = World(case["rows"], case["dim"], device)
    return _kept[key]


def features(rows: int, dim: int, device: torch.device) -> Tensor:
    """Unit rows [N, D] as `bench/neighbors.py` makes them, made on the device: about 40 a cluster, clusters that overlap."""
    rng = torch.Generator(device).manual_seed(0)
    latent = min(dim, 32)
    centre = torch.randn(max(rows // 40, 1), latent, generator=rng, device=device)
    lift = torch.randn(latent, dim, generator=rng, device=device)
    x = torch.empty(rows, dim, device=device)
    for first in range(0, rows, BLOCK):
        part = x[first : first + BLOCK]
        member = torch.randint(0, len(centre), (len(part),), generator=rng, device=device)
        low = torch.randn(len(part), latent, generator=rng, device=device).mul_(0.7).add_(centre[member])
        torch.mm(low, lift, out=part)
        part /= part.norm(dim=1, keepdim=True)
    return x


def jaccard(x: Tensor, **options: Any) -> ops.SparseDistance:
    """As clustering calls it: pairs further than eps are not kept, where the op can leave them out."""
    if "max_distance" in inspect.signature(ops.jaccard_distance).parameters:
        options["max_distance"] = EPS
    return ops.jaccard_distance(x, K1, K2, **options)


def prepare(number: Number, device: torch.device) -> Prepared:
    data, op = world(number.case, device), number.case["op"]
    if number.implementation != "native":
        return _rival(number, data)
    makers: dict[str, Callable[[Number, World], Prepared]] = {
        "knn": _knn,
        "jaccard": _jaccard,
        "dbscan": _dbscan,
        "labels": _labels,
    }
    return makers[op](number, data)


def _knn(number: Number, data: World) -> Prepared:
    x = data.x

    def check() -> str:
        rows = oracles.sample(len(x), 64, x.device)
        oracles.check_neighbors(x, data.neighbors.similarity, data.neighbors.index, rows)
        return f"{len(rows)} rows: neighbours and similarities within 1e-5 of a float64 product with every row"

    call = lambda: data.keep("neighbors", lambda: ops.knn(x, K1))  # noqa: E731
    return Prepared([call], check, floors.knn(*x.shape, K1), HOST, profiled=_profiled(number))


def _profiled(number: Number) -> bool:
    """A call of more than a few seconds is not run again for the profiler."""
    return bool(number.case["rows"] <= 200_000)


def _jaccard(number: Number, data: World) -> Prepared:
    x, index = data.x, data.neighbors.index

    def check() -> str:
        rows = oracles.sample(len(x), 4, x.device)
        beyond = EPS if "max_distance" in inspect.signature(ops.jaccard_distance).parameters else 1.0
        oracle = oracles.JaccardRows(index, x, K1, K2)
        count = oracles.check_jaccard(data.distance, oracle, rows, beyond=beyond)
        return f"{count} pairs of {len(rows)} rows within 1e-5 of the definition in float64"

    prepared = Prepared([], check, None, HOST, profiled=_profiled(number))

    def call() -> Any:
        distance = data.keep("distance", lambda: jaccard(index, features=x))
        pairs = len(distance.values)
        prepared.extra["pairs"], prepared.work = pairs, floors.jaccard(*x.shape, K1, pairs)
        return distance

    prepared.calls = [call]
    return prepared


def _dbscan(number: Number, data: World) -> Prepared:
    distance = data.distance

    def check() -> str:
        labels, want = data.labels, oracles.expected_labels(distance, EPS, MIN_SAMPLES)
        if want is None:
            assert int(labels.max()) > 0 and len(labels) == distance.shape[0]
            return f"clusters found; {len(distance.values)} pairs are too many to label them a second time"
        assert torch.equal(labels, want), f"{int((labels != want).sum())} labels differ"
        return "every label equals those of components by propagation"

    call = lambda: data.keep("labels", lambda: ops.dbscan(distance, EPS, MIN_SAMPLES))  # noqa: E731
    return Prepared([call], check, floors.dbscan(distance.shape[0], len(distance.values)), HOST, profiled=_profiled(number))


def _labels(number: Number, data: World) -> Prepared:
    x, want = data.x, data.labels
    if len(x) > 200_000:  # room for a second one
        data.__dict__.pop("distance", None)
    last: list[pseudo_labels.PseudoLabels] = []

    def call() -> Any:
        last[:] = [pseudo_labels.cluster(x, k1=K1, k2=K2, eps=EPS, min_samples=MIN_SAMPLES)]
        return last[0].labels

    def check() -> str:
        got = last[0]
        assert torch.equal(got.labels, want), f"{int((got.labels != want).sum())} labels differ from those of the three calls"
        assert got.num_clusters > 0
        return f"the labels of kNN, Jaccard and DBSCAN called one after the other; {got.num_clusters} clusters"

    return Prepared([call], check, floors.pseudo_labels(*x.shape, K1), HOST, profiled=_profiled(number))


def _rival(number: Number, data: World) -> Prepared:
    x = data.x
    if number.implementation == "product":
        return Prepared([lambda: neighbors.bare_product(x, 8192)], lambda: BOUND, floors.knn(*x.shape, K1), HOST, profiled=False)
    faiss = importlib.import_module("faiss")
    cuda = x.device.type == "cuda"
    if cuda and not hasattr(faiss, "StandardGpuResources"):
        raise ModuleNotFoundError("No module named 'faiss' with GPU support", name="faiss")
    rows = x.cpu().numpy()
    resources = faiss.StandardGpuResources() if cuda else None

    def search() -> Any:
        index = faiss.GpuIndexFlatIP(resources, x.shape[1]) if cuda else faiss.IndexFlatIP(x.shape[1])
        index.add(rows)
        return index.search(rows, K1)

    def check() -> str:
        similarity = torch.from_numpy(search()[0]).to(x.device)
        assert float((similarity - data.neighbors.similarity).abs().max()) <= 1e-3
        return "similarities within 1e-3 of ours; features are copied from the host in each call"

    return Prepared([search], check, floors.knn(*x.shape, K1), "a rival's own code", profiled=False)
