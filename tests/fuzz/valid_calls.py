"""A valid call of each public op, with sizes from a hat that holds 0 and 1 more often than chance would."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from gcl_fast import compat, ops
from gcl_fast.ops._jaccard import _packed as packed
from gcl_fast.ops._knn_halves import nearest_by_halves
from gcl_fast.ops._rows import normalised
from gcl_fast.ops._walk import mutual_walk

SIZES = (0, 0, 1, 1, 2, 3, 5, 17, 33)
METHODS = ("auto", "plain", "fused")  # to draw
FLOATS = (torch.float32, torch.float32, torch.float64, torch.bfloat16, torch.float16)
REALS = (torch.float32, torch.float64)


@dataclass
class Call:
    """function(*args, **kwargs)"""

    name: str
    function: Callable[..., Any]
    args: list[Any]
    kwargs: dict[str, Any] = field(default_factory=dict)

    def __call__(self) -> Any:
        return self.function(*self.args, **self.kwargs)


class Draw:
    """Numbers of one case: the same for the same seed."""

    def __init__(self, seed: int) -> None:
        self.generator = torch.Generator().manual_seed(seed)

    def below(self, n: int) -> int:
        return int(torch.randint(n, (), generator=self.generator))

    def of(self, items: Any) -> Any:
        return items[self.below(len(items))]

    def size(self) -> int:
        return int(self.of(SIZES))

    def chance(self, probability: float) -> bool:
        return float(torch.rand((), generator=self.generator)) < probability

    def real(self, *shape: int, dtypes: tuple[torch.dtype, ...] = FLOATS) -> Tensor:
        return torch.randn(shape, generator=self.generator).to(self.of(dtypes))

    def rows(self, high: int, *shape: int) -> Tensor:
        """Integers in [0, high), or of no number of them where there is none."""
        rows = torch.randint(max(high, 1), shape, generator=self.generator)
        return rows if self.chance(0.5) else rows.int()


def _mesh(draw: Draw) -> tuple[Tensor, Tensor, tuple[int, int]]:
    batch, vertices, faces = draw.size(), draw.size(), draw.size()
    real = draw.of(REALS)
    verts = draw.real(batch, vertices, 3, dtypes=(real,)) * 8 + 8
    return verts, draw.rows(vertices, faces if vertices else 0, 3), (draw.size(), draw.size())


def rasterize(draw: Draw) -> Call:
    verts, faces, image_size = _mesh(draw)
    return Call(
        "rasterize", ops.rasterize, [verts, faces, image_size], {"cull_backfaces": draw.chance(0.3), "method": draw.of(METHODS)}
    )


def interpolate(draw: Draw) -> Call:
    batch, vertices, faces, channels = (draw.size() for _ in range(4))
    height, width, real = draw.size(), draw.size(), draw.of(REALS)
    shape = (vertices, channels) if draw.chance(0.4) else (batch, vertices, channels)
    face_id = draw.rows(faces + 1, batch, height, width) - 1
    bary = torch.rand(batch, height, width, 3, generator=draw.generator).to(real)
    arguments = [draw.real(*shape, dtypes=(real,)), draw.rows(vertices, faces if vertices else 0, 3), face_id, bary]
    if not vertices or not faces:
        arguments[2] = torch.full_like(face_id, -1)
    return Call("interpolate", ops.interpolate, arguments)


def reflect_pad(draw: Draw) -> Call:
    height, width = max(1, draw.size()), max(1, draw.size())
    x = draw.real(draw.size(), draw.size(), height, width)
    if draw.chance(0.5):
        x = x.contiguous(memory_format=torch.channels_last)
    return Call("reflect_pad", ops.reflect_pad, [x, draw.below(min(height, width))])


def render_mesh(draw: Draw) -> Call:
    verts, faces, image_size = _mesh(draw)
    camera = draw.real(len(verts), draw.of((3, 6)), dtypes=(verts.dtype,))
    yaws = [45.0 * n for n in range(draw.size() % 5)]
    return Call("render_mesh", ops.render_mesh, [verts, faces, camera, yaws, image_size], {"method": draw.of(METHODS)})


def mesh_flow(draw: Draw) -> Call:
    verts, faces, image_size = _mesh(draw)
    return Call("mesh_flow", ops.mesh_flow, [verts, verts + 1, faces, image_size])


def mesh_warp(draw: Draw) -> Call:
    verts, faces, image_size = _mesh(draw)
    image = draw.real(len(verts), draw.size(), *image_size)
    return Call("mesh_warp", ops.mesh_warp, [image, verts, verts - 1, faces], {"fill": 0.5})


def bank_nce(draw: Draw) -> Call:
    batch, rows, width = draw.size(), draw.size(), draw.size()
    batch = batch if rows else 0
    positives = () if draw.chance(0.4) else (1 + draw.below(3),)
    query, bank = draw.real(batch, width), draw.real(rows, width)
    kwargs = {"temperature": 0.07, "num_negatives": draw.of((None, 1, 4, 4096)), "seed": draw.below(100)}
    if draw.chance(0.3):
        kwargs["positive_query"] = draw.real(batch, *positives, width)
    return Call("bank_nce", ops.bank_nce, [query, bank, draw.rows(3, rows) - 1, draw.rows(rows, batch, *positives)], kwargs)


def draw_positives(draw: Draw) -> Call:
    rows = draw.size()
    index = draw.rows(rows, draw.size() if rows else 0)
    return Call("draw_positives", ops.draw_positives, [draw.rows(3, rows) - 1, index], {"seed": draw.below(100)})


def gcl_memory_loss(draw: Draw) -> Call:
    batch, rows, width = draw.size(), draw.size(), draw.size()
    batch = batch if rows else 0
    arguments = [draw.real(batch, width), draw.real(batch, width), draw.real(rows, width), draw.rows(3, rows) - 1]
    kwargs = {"num_negatives": draw.of((None, 1, 4, 4096)), "seed": 1}
    return Call("gcl_memory_loss", ops.gcl_memory_loss, [*arguments, draw.rows(rows, batch)], kwargs)


def gcl_memory_step(draw: Draw) -> Call:
    loss = gcl_memory_loss(draw)
    arguments = loss.args
    if draw.chance(0.5):  # of the types that a training step has: one op takes them
        arguments = [a.float().contiguous() if a.is_floating_point() else a.long() for a in arguments]
    return Call("gcl_memory_step_", ops.gcl_memory_step_, arguments, {**loss.kwargs, "momentum": 0.2})


def bank_update(draw: Draw) -> Call:
    batch, rows, width = draw.size(), draw.size(), draw.size()
    index = draw.rows(rows, batch if rows else 0)
    kwargs = {"normalise": draw.chance(0.5), "hard": draw.chance(0.5)}
    return Call("bank_update_", ops.bank_update_, [draw.real(rows, width), index, draw.real(len(index), width), 0.2], kwargs)


def knn(draw: Draw) -> Call:
    rows = draw.size()
    return Call("knn", ops.knn, [draw.real(rows, draw.size()), min(rows, 1 + draw.below(4))], {"backend": "torch"})


def shared_products(draw: Draw) -> Call:
    """What processes that share the neighbours ask of each other: products of chosen rows, and their softmax."""

    def work(features: Tensor, k: int) -> Tensor:
        found = ops.knn(features, k, backend="torch")
        rows = normalised("knn", "features", features)
        row = torch.arange(len(rows), device=rows.device).repeat_interleave(k)
        scores: Tensor = torch.ops.gcl_fast.row_products(rows, rows, row, found.index.flatten())
        torch.ops.gcl_fast.softmax_rows_(torch.arange(0, len(scores) + 1, k, device=rows.device), scores)
        return scores

    rows = draw.size()
    return Call("shared_products", work, [draw.real(rows, draw.size()), min(rows, 1 + draw.below(4))])


def halved_neighbours(draw: Draw) -> Call:
    """`knn` of many rows: candidates by half precision."""

    def work(features: Tensor, k: int) -> Tensor:
        ops.knn(features, k, backend="torch")  # says what is wrong with them
        rows = normalised("knn", "features", features).float()
        return nearest_by_halves(rows, k, torch.float16).index if k > 1 and len(rows) else rows

    rows = draw.size()
    return Call("halved_neighbours", work, [draw.real(rows, draw.size()), min(rows, 2 + draw.below(4))])


def packed_rows(draw: Draw) -> Call:
    """What a GPU does with the rows of a distance that it wrote with gaps."""

    def work(features: Tensor) -> Tensor:
        found = ops.jaccard_distance(features, k1=4, k2=2)
        return packed(found.indptr, found.indptr.diff(), found.indices, found.values).values

    return Call("packed_rows", work, [draw.real(draw.size(), draw.size())])


def jaccard_distance(draw: Draw) -> Call:
    rows = draw.size()
    kwargs = {"k1": 1 + draw.below(8), "k2": 1 + draw.below(4)}
    features = draw.real(rows, draw.size())
    if draw.chance(0.5) or not rows:
        return Call("jaccard_distance", ops.jaccard_distance, [features], kwargs)
    near = ops.knn(features, min(rows, 8), backend="torch").index
    if draw.chance(0.5):
        kwargs["features"] = features
    return Call("jaccard_distance", ops.jaccard_distance, [near], kwargs)


def dbscan(draw: Draw) -> Call:
    rows = draw.size()
    distance = ops.jaccard_distance(draw.real(rows, 4), k1=4, k2=2)

    def labels(indptr: Tensor, indices: Tensor, values: Tensor, eps: float, min_samples: int) -> Tensor:
        return ops.dbscan(ops.SparseDistance(indptr, indices, values, (rows, rows)), eps, min_samples)

    return Call("dbscan", labels, [distance.indptr, distance.indices, distance.values, 0.5, 1 + draw.below(3)])


def walk(draw: Draw) -> Call:
    """How far the neighbours of rows have them among their own: what labels of MLC ask on a GPU."""

    def work(features: Tensor, k: int) -> Tensor:
        ops.knn(features, k, backend="torch")  # says what is wrong with them
        rows = normalised("knn", "features", features)
        order = (rows @ rows.T).fill_diagonal_(torch.inf).sort(dim=1, descending=True, stable=True).indices
        index = torch.arange(len(rows), device=rows.device)
        return mutual_walk(rows, index, order, torch.full_like(index, k), torch.full_like(index, k))

    rows = draw.size()
    return Call("mutual_walk", work, [draw.real(rows, draw.size()), min(rows, 1 + draw.below(9))])


def _ids(draw: Draw) -> tuple[int, int, list[Tensor]]:
    query, gallery = draw.size(), draw.size()
    return query, gallery, [draw.rows(4, query), draw.rows(4, gallery), draw.rows(3, query), draw.rows(3, gallery)]


def rank_metrics(draw: Draw) -> Call:
    query, gallery, ids = _ids(draw)
    width, real = draw.size(), draw.of(FLOATS)
    features = [draw.real(query, width, dtypes=(real,)), draw.real(gallery, width, dtypes=(real,))]
    return Call("rank_metrics", ops.rank_metrics, [*features, *ids], {"max_rank": 1 + draw.below(20)})


def rank_metrics_from_distances(draw: Draw) -> Call:
    query, gallery, ids = _ids(draw)
    name = "rank_metrics_from_distances"
    return Call(name, ops.rank_metrics_from_distances, [draw.real(query, gallery), *ids], {"max_rank": 1 + draw.below(20)})


def rerank(draw: Draw) -> Call:
    width, real = draw.size(), draw.of(FLOATS)
    query, gallery = draw.real(draw.size(), width, dtypes=(real,)), draw.real(draw.size(), width, dtypes=(real,))
    return Call("rerank", ops.rerank, [query, gallery], {"k1": 1 + draw.below(6), "k2": 1 + draw.below(4)})


def memory(draw: Draw) -> Call:
    rows, width = draw.size(), draw.size()
    batch = draw.size() if rows else 0

    def forward(f: Tensor, f_nv: Tensor, indexes: Tensor) -> Tensor:
        return compat.Memory(width, rows, K=4)(f, f_nv, indexes)

    features = [draw.real(batch, width, dtypes=(torch.float32,)) for _ in range(2)]
    return Call("compat.Memory", forward, [*features, draw.rows(rows, batch)])


def cluster_memory(draw: Draw) -> Call:
    rows, width = draw.size(), draw.size()
    batch, hard = draw.size() if rows else 0, draw.chance(0.5)

    def forward(inputs: Tensor, targets: Tensor) -> Tensor:
        return compat.ClusterMemory(width, rows, use_hard=hard)(inputs, targets)

    return Call("compat.ClusterMemory", forward, [draw.real(batch, width, dtypes=(torch.float32,)), draw.rows(rows, batch)])


def compute_jaccard_distance(draw: Draw) -> Call:
    features = draw.real(draw.size(), draw.size(), dtypes=(torch.float32,))
    kwargs = {"k1": 1 + draw.below(6), "k2": 1 + draw.below(4), "print_flag": False}
    return Call("compat.compute_jaccard_distance", compat.compute_jaccard_distance, [features], kwargs)


def evaluate_rank(draw: Draw, name: str = "evaluate_rank") -> Call:
    query, gallery, ids = _ids(draw)
    distances = draw.real(query, gallery, dtypes=(torch.float32,)).numpy()
    arguments = [distances, *(n.numpy() for n in ids)]
    return Call(f"compat.{name}", getattr(compat, name), arguments, {"max_rank": 1 + draw.below(20)})


def evaluate_rank_fastreid(draw: Draw) -> Call:
    return evaluate_rank(draw, "evaluate_rank_fastreid")


def evaluate_rank_fastreid_means(draw: Draw) -> Call:
    return evaluate_rank(draw, "evaluate_rank_fastreid_means")


def re_ranking(draw: Draw) -> Call:
    query, gallery = draw.size(), draw.size()
    arguments = [draw.real(*shape, dtypes=REALS).abs() for shape in ((query, gallery), (query, query), (gallery, gallery))]
    kwargs = {"k1": 1 + draw.below(6), "k2": 1 + draw.below(4)}
    return Call("compat.re_ranking", compat.re_ranking, [a.numpy() for a in arguments], kwargs)


CALLS: tuple[Callable[[Draw], Call], ...] = (
    rasterize,
    interpolate,
    reflect_pad,
    render_mesh,
    mesh_flow,
    mesh_warp,
    bank_nce,
    draw_positives,
    gcl_memory_loss,
    gcl_memory_step,
    bank_update,
    knn,
    shared_products,
    halved_neighbours,
    packed_rows,
    jaccard_distance,
    dbscan,
    walk,
    rank_metrics,
    rank_metrics_from_distances,
    rerank,
    memory,
    cluster_memory,
    compute_jaccard_distance,
    evaluate_rank,
    evaluate_rank_fastreid,
    evaluate_rank_fastreid_means,
    re_ranking,
)
