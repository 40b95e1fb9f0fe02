"""Every public op as a case: inputs drawn from a seed, a call on any device, what it promises. For tests that run all ops alike.

`CASES` are small enough for emulated threads; `LARGE` take the paths that only large inputs reach.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from gcl_fast import ops
from gcl_fast.ops import _knn_halves, camera, centroids
from gcl_fast.ops._walk import mutual_walk
from gcl_fast.ops.rasterize import Method
from tests.toy_meshes import WEAK, ellipsoid

Tensors = dict[str, Tensor]

# Beside what gcl_fast.ops exports.
MORE = {"turn": camera.turn, "project": camera.project, "centroid_cross_entropy": centroids.centroid_cross_entropy}
PUBLIC = {name: getattr(ops, name) for name in ops.__all__ if inspect.isfunction(getattr(ops, name))} | MORE


@dataclass(frozen=True)
class Case:
    """One call of a public op.

    inputs: seed -> tensors on the CPU, of the same shapes for every seed. run: tensors on one device -> results by name.
    exact: results that have the same bits on CPU and CUDA; the others agree to `near`, relative to the largest entry.
    waits: why a CUDA graph cannot hold the call, empty where it can.
    """

    op: str
    inputs: Callable[[int], Tensors]
    run: Callable[[Tensors], Tensors]
    exact: frozenset[str] = frozenset()
    near: float = 0.0
    waits: str = ""
    variant: str = ""

    @property
    def name(self) -> str:
        return f"{self.op}: {self.variant}" if self.variant else self.op


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normal(g: torch.Generator, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=g)


def unit(g: torch.Generator, *shape: int) -> Tensor:
    return torch.nn.functional.normalize(normal(g, *shape), dim=-1)


def with_gradients(results: Tensors, **inputs: Tensor) -> Tensors:
    """The results with gradients of their sum, weighted unlike, to the named inputs: grad_<name>."""
    total = torch.zeros((), device=next(iter(inputs.values())).device)
    for value in results.values():
        if value.requires_grad:
            weight = torch.linspace(0.5, 1.5, value.numel(), device=value.device, dtype=value.dtype).view(value.shape)
            total = total + torch.where(value.isfinite(), value * weight, 0).sum().float()  # depth is inf on background
    gradients = torch.autograd.grad(total, list(inputs.values()))
    detached = {name: value.detach() for name, value in results.items()}
    return detached | {f"grad_{name}": gradient for name, gradient in zip(inputs, gradients, strict=True)}


def leaf(x: Tensor) -> Tensor:
    return x.detach().clone().requires_grad_()


# Meshes: a body seen in pixels, shaken by the seed.

SIZE = (20, 14)
TALL = (110, 60)  # more shared memory than a block has without asking


def screen(seed: int, batch: int = 2) -> Tensors:
    verts, faces = ellipsoid(dtype=torch.float32)
    g = generator(seed)
    shaken = verts + 0.03 * normal(g, batch, *verts.shape)
    pixels = shaken * torch.tensor([20.0, 9.0, 1.0]) + torch.tensor([7.0, 10.0, 3.0])
    return {"verts": pixels, "faces": faces}


def rasterize(size: tuple[int, int], method: Method) -> Callable[[Tensors], Tensors]:
    def run(t: Tensors) -> Tensors:
        verts = leaf(t["verts"])
        seen = ops.rasterize(verts, t["faces"], size, method=method)
        return with_gradients({"face_id": seen.face_id, "depth": seen.depth, "bary": seen.bary}, verts=verts)

    return run


def interpolate_inputs(seed: int) -> Tensors:
    t = screen(seed)
    seen = ops.rasterize(t["verts"], t["faces"], SIZE)
    table = normal(generator(seed + 50), 2, t["verts"].shape[1], 3)
    return {"attributes": table, "faces": t["faces"], "face_id": seen.face_id, "bary": seen.bary}


def interpolate(t: Tensors) -> Tensors:
    attributes, bary = leaf(t["attributes"]), leaf(t["bary"])
    values = ops.interpolate(attributes, t["faces"], t["face_id"], bary)
    return with_gradients({"values": values}, attributes=attributes, bary=bary)


def maps(channels: int, last: bool, dtype: torch.dtype) -> Callable[[int], Tensors]:
    form = torch.channels_last if last else torch.contiguous_format
    return lambda seed: {"x": normal(generator(seed), 2, channels, 9, 7).to(dtype).contiguous(memory_format=form)}


def reflect_pad(t: Tensors) -> Tensors:
    x = leaf(t["x"])
    return with_gradients({"padded": ops.reflect_pad(x, 3)}, x=x)


def body(seed: int) -> Tensors:
    verts, faces = ellipsoid(dtype=torch.float32)
    shaken = verts + 0.02 * normal(generator(seed), 2, *verts.shape)
    yaw = torch.tensor([0.0, 90.0, 200.0]) + seed
    return {"verts": shaken, "faces": faces, "camera": WEAK.float().repeat(2, 1), "yaw": yaw}


def render(method: Method) -> Callable[[Tensors], Tensors]:
    return lambda t: {"image": ops.render_mesh(t["verts"], t["faces"], t["camera"], t["yaw"], SIZE, method=method)}


def render_listed(t: Tensors) -> Tensors:
    yaws = [45.0 * n for n in range(10)]  # in a list they travel with the launch, a few at a time
    return {"image": ops.render_mesh(t["verts"], t["faces"], t["camera"], yaws, SIZE)}


def two_views(seed: int) -> Tensors:
    source = screen(seed)
    moved = screen(seed + 100)["verts"]
    image = normal(generator(seed + 200), 2, 3, *SIZE)
    return {"src": source["verts"], "dst": moved, "faces": source["faces"], "image": image}


def flow(t: Tensors) -> Tensors:
    found = ops.mesh_flow(t["src"], t["dst"], t["faces"], SIZE)
    return {"grid": found.grid, "visibility": found.visibility}


def flow_of_rasters(t: Tensors) -> Tensors:
    views = (ops.rasterize(t[name], t["faces"], SIZE) for name in ("src", "dst"))
    found = ops.mesh_flow_of_rasters(t["src"], t["faces"], *views)
    return {"grid": found.grid, "visibility": found.visibility}


def warp(t: Tensors) -> Tensors:
    image = leaf(t["image"])
    found = ops.mesh_warp(image, t["src"], t["dst"], t["faces"], fill=0.5)
    return with_gradients({"warped": found.warped, "visibility": found.visibility}, image=image)


# The memory bank.


def bank(seed: int, b: int = 5, n: int = 60, d: int = 24, classes: int = 7) -> Tensors:
    g = generator(seed)
    return {
        "f": unit(g, b, d),
        "f_nv": unit(g, b, d),
        "bank": unit(g, n, d),
        "labels": torch.randint(-1, classes, (n,), generator=g),
        "index": torch.randint(0, n, (b,), generator=g),
        "seed": torch.tensor(seed),
    }


def nce(negatives: int | None) -> Callable[[Tensors], Tensors]:
    def run(t: Tensors) -> Tensors:
        query, own = leaf(t["f"]), leaf(torch.stack([t["f_nv"], t["f"]], 1))
        positive = torch.stack([t["index"], t["index"].flip(0)], 1)
        options = {"positive_query": own, "temperature": 0.1, "num_negatives": negatives, "seed": t["seed"]}
        return with_gradients({"loss": ops.bank_nce(query, t["bank"], t["labels"], positive, **options)}, query=query, own=own)

    return run


def memory_loss(t: Tensors) -> Tensors:
    f, f_nv = leaf(t["f"]), leaf(t["f_nv"])
    terms = ops.gcl_memory_loss(f, f_nv, t["bank"], t["labels"], t["index"], num_negatives=20, seed=t["seed"])
    return with_gradients({"terms": terms}, f=f, f_nv=f_nv)


def memory_loss_of_doubles(t: Tensors) -> Tensors:
    """Types that the op in one step does not take: a loss without side effects, then the update."""
    f, f_nv = leaf(t["f"].double()), leaf(t["f_nv"].double())
    terms = ops.gcl_memory_loss(f, f_nv, t["bank"].double(), t["labels"], t["index"], num_negatives=20, seed=t["seed"])
    return with_gradients({"terms": terms}, f=f, f_nv=f_nv)


def memory_step(t: Tensors) -> Tensors:
    f, f_nv, moved = leaf(t["f"]), leaf(t["f_nv"]), t["bank"].clone()
    sample = {"num_negatives": 20, "seed": t["seed"]}
    terms = ops.gcl_memory_step_(f, f_nv, moved, t["labels"], t["index"], momentum=0.2, **sample)
    return {**with_gradients({"terms": terms}, f=f, f_nv=f_nv), "bank": moved}


def update(t: Tensors) -> Tensors:
    moved = ops.bank_update_(t["bank"].clone(), t["index"], t["f"], 0.3)
    return {"bank": moved, "hard": ops.bank_update_(t["bank"].clone(), t["index"], t["f"], 0.3, hard=True)}


def draw(t: Tensors) -> Tensors:
    return {"drawn": ops.draw_positives(t["labels"], t["index"], seed=t["seed"])}


def centroid(t: Tensors) -> Tensors:
    query = leaf(t["f"])
    return with_gradients({"loss": centroids.centroid_cross_entropy(query, t["bank"], t["index"], 0.1)}, query=query)


# Neighbours and ranking.


def crowd(seed: int, n: int = 48, d: int = 16) -> Tensors:
    g = generator(seed)
    people = normal(g, max(1, n // 6), d)
    return {"x": people[torch.randint(0, len(people), (n,), generator=g)] + 0.4 * normal(g, n, d)}


def near(seed: int, n: int = 48, k: int = 9) -> Tensors:
    return {"index": ops.knn(crowd(seed, n)["x"], k).index}


def chosen_scores(t: Tensors) -> Tensors:
    """What processes that share the neighbours ask of each other: products of chosen rows, and their softmax."""
    row = torch.arange(12, device=t["x"].device).repeat_interleave(4)
    scores = torch.ops.gcl_fast.row_products(t["x"], t["x"], row, row.flip(0))
    weights, start = scores.clone(), torch.arange(0, 49, 4, device=t["x"].device)
    torch.ops.gcl_fast.softmax_rows_(start, weights)
    return {"scores": scores, "weights": weights}


def by_halves(t: Tensors) -> Tensors:
    """What few rows are not searched by: candidates from products of halves, float32 products of those, the best of them."""
    x = torch.nn.functional.normalize(t["x"], dim=1)
    found = _knn_halves.nearest_by_halves(x, 9, torch.float16)
    return {"similarity": found.value, "own": found.index[:, 0]}


def jaccard(t: Tensors, k1: int = 9, k2: int = 3) -> Tensors:
    found = ops.jaccard_distance(t["x"] if "x" in t else t["index"], k1, k2)
    return {"indptr": found.indptr, "indices": found.indices, "values": found.values}


def graph(seed: int) -> Tensors:
    return jaccard(crowd(seed, 300), 9, 3)  # more points than a block has threads


def chain(seed: int, links: int = 199) -> Tensors:
    """Points that others join to two chains in any order: each union counts, and many threads want the same roots."""
    order, total = torch.randperm(links + 1, generator=generator(seed)), 2 * links + 1
    joined = torch.zeros(total, total, dtype=torch.bool)
    for ends in (order[:-1], order[1:]):
        joined[torch.arange(links + 1, total), ends] = True
    joined[links + 1 + links // 2, order[links // 2 + 1]] = False  # which points lie before the gap hangs on the seed
    joined |= joined.T.clone()
    indptr = torch.cat([torch.zeros(1, dtype=torch.int64), joined.sum(1).cumsum(0)])
    indices = joined.nonzero()[:, 1].int()
    return {"indptr": indptr, "indices": indices, "values": torch.full((len(indices),), 0.1)}


def dbscan(t: Tensors) -> Tensors:
    total = len(t["indptr"]) - 1
    distance = ops.SparseDistance(t["indptr"], t["indices"], t["values"], (total, total))
    return {"labels": ops.dbscan(distance, 0.6, 3)}


def walk(t: Tensors) -> Tensors:
    """What MLC asks for its labels."""
    x = torch.nn.functional.normalize(t["x"], dim=1)
    index = torch.arange(0, len(x), 5, device=x.device)
    similarity = (x[index] @ x.T).scatter_(1, index[:, None], torch.inf)
    order = similarity.sort(dim=1, descending=True, stable=True).indices
    near = (similarity > 0.3).sum(1)
    return {"steps": mutual_walk(x, index, order, near, near)}


def knn(t: Tensors) -> Tensors:
    found = ops.knn(t["x"], 7)
    return {"similarity": found.similarity, "own": found.index[:, :1].contiguous()}


def gallery(seed: int) -> Tensors:
    g = generator(seed)
    people, cameras = (torch.randint(0, most, (42,), generator=g) for most in (6, 3))
    return {"query": unit(g, 12, 16).double(), "gallery": unit(g, 30, 16).double(), "people": people, "cameras": cameras}


def ids(t: Tensors) -> tuple[Tensor, ...]:
    return t["people"][:12], t["people"][12:], t["cameras"][:12], t["cameras"][12:]


def metrics(found: ops.RankMetrics) -> Tensors:
    return {"mAP": torch.tensor([found.mAP, found.mINP]), "cmc": found.cmc, "num_valid": torch.tensor(found.num_valid)}


def rank(t: Tensors) -> Tensors:
    return metrics(ops.rank_metrics(t["query"], t["gallery"], *ids(t), max_rank=10))


def rank_distances(t: Tensors) -> Tensors:
    return metrics(ops.rank_metrics_from_distances(1 - t["query"] @ t["gallery"].T, *ids(t), max_rank=10))


def rerank(t: Tensors) -> Tensors:
    return {"distance": ops.rerank(t["query"], t["gallery"], k1=6, k2=3)}


HALVES = "it counts the rows to search again"
HOST = "the result has numbers of the host"
RANGE = "it looks whether distances lie in [0, 1]"
SIZES = "sizes of results are read on the host"
RASTER = frozenset({"face_id", "depth"})
ALL = frozenset({"image", "grid", "visibility", "warped", "grad_image", "values", "grad_attributes", "grad_bary"})
PADDED = frozenset({"padded", "grad_x"})
FLOAT32 = 2e-5  # sums of some tens of numbers in another order, through a softmax at temperature 0.04

CASES = (
    Case("rasterize", screen, rasterize(SIZE, "plain"), RASTER, near=FLOAT32),
    Case("rasterize", screen, rasterize(SIZE, "fused"), RASTER, near=FLOAT32, variant="fused"),
    Case("rasterize", screen, rasterize(TALL, "fused"), RASTER, near=FLOAT32, variant="fused, a tall image"),
    Case("interpolate", interpolate_inputs, interpolate, ALL),
    Case("reflect_pad", maps(16, True, torch.bfloat16), reflect_pad, PADDED, variant="bfloat16, channels last"),
    Case("reflect_pad", maps(5, True, torch.float16), reflect_pad, PADDED, variant="float16, no whole vectors"),
    Case("reflect_pad", maps(5, False, torch.float32), reflect_pad, PADDED, variant="float32, channels first"),
    Case("render_mesh", body, render("plain"), ALL, variant="plain, angles on the device"),
    Case("render_mesh", body, render("fused"), ALL, variant="fused, angles on the device"),
    Case("render_mesh", body, render_listed, ALL, variant="angles in a list"),
    Case("mesh_flow", two_views, flow, ALL),
    Case("mesh_flow_of_rasters", two_views, flow_of_rasters, ALL),
    Case("mesh_warp", two_views, warp, ALL),
    Case("turn", body, lambda t: {"turned": camera.turn(t["verts"], t["yaw"])}, near=FLOAT32),
    Case("project", body, lambda t: {"pixels": camera.project(t["verts"], t["camera"], SIZE)}, near=FLOAT32),
    Case("bank_nce", bank, nce(20), near=FLOAT32, variant="a sample"),
    Case("bank_nce", bank, nce(None), near=FLOAT32, variant="all negatives"),
    Case("gcl_memory_loss", bank, memory_loss, near=FLOAT32),
    Case("gcl_memory_loss", bank, memory_loss_of_doubles, near=1e-12, variant="of doubles"),
    Case("gcl_memory_step_", bank, memory_step, near=FLOAT32),
    Case("bank_update_", bank, update, near=FLOAT32),
    Case("draw_positives", bank, draw, frozenset({"drawn"})),
    Case("centroid_cross_entropy", bank, centroid, near=FLOAT32),
    Case("knn", crowd, knn, frozenset({"own"}), near=FLOAT32, waits=HOST),
    Case("knn", crowd, by_halves, frozenset({"own"}), near=FLOAT32, waits=HALVES, variant="by halves"),
    Case("knn", crowd, chosen_scores, near=FLOAT32, variant="scores of chosen pairs"),
    Case("jaccard_distance", near, jaccard, frozenset({"indptr", "indices", "values"}), waits=SIZES, variant="of neighbours"),
    Case("jaccard_distance", crowd, jaccard, frozenset({"indptr", "indices"}), FLOAT32, SIZES, "of features"),
    Case("dbscan", graph, dbscan, frozenset({"labels"}), waits=RANGE),
    Case("dbscan", chain, dbscan, frozenset({"labels"}), waits=RANGE, variant="a chain"),
    Case("knn", crowd, walk, frozenset({"steps"}), variant="how far neighbours are mutual"),
    Case("rank_metrics", gallery, rank, near=1e-12, waits=HOST),
    Case("rank_metrics_from_distances", gallery, rank_distances, near=1e-12, waits=HOST),
    Case("rerank", gallery, rerank, near=1e-9, waits=HOST),
)

LARGE = (
    Case(
        "jaccard_distance",
        lambda seed: near(seed, 4500, 8),
        lambda t: jaccard(t, 8, 3),
        frozenset({"indptr", "indices", "values"}),
        waits=SIZES,
        variant="more than 4,096 rows",
    ),
    Case("bank_nce", lambda seed: bank(seed, 4, 70_000, 8), nce(500), near=FLOAT32, variant="more than 65,536 rows"),
    Case("bank_nce", lambda seed: bank(seed, 5, 200, 5000), nce(50), near=FLOAT32, variant="rows of more than 4,096"),
)
