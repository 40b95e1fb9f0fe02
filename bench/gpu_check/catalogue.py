"""The numbers that gpu-check measures: what each is, its goal, and how long it takes to measure.

Sizes are Market-1501's (12,936 training images, 3,368 queries, 15,913 in the gallery), MSMT17's (32,621; 11,659; 82,161), 200,000
and 1,000,000 images; pictures of 256x128, bodies of 13,464 triangles. A toy list rehearses the same numbers on a CPU in seconds.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from itertools import product
from typing import Any

PARTS = ("targets", "train")
SIZE, RINGS, DIM = (256, 128), 103, 2048
MICRO, MILLI = 1e-6, 1e-3
TOY_LIMIT = 900.0  # seconds: a rehearsal may run on a busy machine


@dataclass(frozen=True)
class Number:
    """One number.

    key             its name in results and tables; "knn 12936" or, of a rival, "knn 12936 / faiss"
    part            targets or train
    family          which module makes it ready
    case            its sizes
    implementation  native, or a rival's name
    goal            seconds a call; None where none is set
    images          images (or pictures) in a call, where that is a rate of interest
    expected        seconds that measuring it takes on an H100: what is quick comes first
    limit           seconds after which its process is ended
    """

    key: str
    part: str
    family: str
    case: dict[str, Any] = field(hash=False)
    implementation: str = "native"
    goal: float | None = None
    images: int = 0
    expected: float = 2.0
    limit: float = 60.0


def _with_rivals(base: Number, *rivals: str, expected: float = 3.0, **changed: float) -> Iterable[Number]:
    yield base
    for rival in rivals:
        seconds = changed.get(rival, expected)
        yield Number(
            f"{base.key} / {rival}", base.part, base.family, base.case, rival, None, base.images, seconds, max(60.0, 3 * seconds)
        )


def ceilings(toy: bool) -> Iterable[Number]:
    side, size = (64, 1 << 12) if toy else (8192, 1 << 30)
    for what in ("copy", "read", "fp32 product", "tf32 product", "bf16 product"):
        yield Number(f"ceiling {what}", "targets", "ceilings", {"what": what, "bytes": size, "side": side}, expected=0.5)


def meshes(toy: bool) -> Iterable[Number]:
    size, rings = ((32, 16), 11) if toy else (SIZE, RINGS)
    shape = {"size": size, "rings": rings}
    for batch in (2,) if toy else (16, 64, 512):
        goal = batch * (0.5 if batch >= 512 else 1.0) * MICRO
        case = {"op": "rasterize", "batch": batch, **shape}
        number = Number(f"rasterize {batch}", "targets", "meshes", case, goal=goal, images=batch)
        yield from _with_rivals(number, "plain", "fused", *(("drtk", "pytorch3d") if batch != 64 else ()))
    for batch, views in ((1, 2),) if toy else ((16, 1), (8, 8), (16, 8), (64, 8)):
        case, pictures = {"op": "render", "batch": batch, "views": views, "camera": "perspective", **shape}, batch * views
        number = Number(
            f"render {batch}x{views}", "targets", "meshes", case, goal=0.3 * pictures * MICRO, images=pictures, expected=2.5
        )
        yield from _with_rivals(number, *(("plain", "fused") if views == 8 else ()))
    batch = 2 if toy else 16
    for op, goal in (("flow", 16.0), ("warp", 16.0), ("interpolate", 10.0)):
        case = {"op": op, "batch": batch, "views": 1, "channels": 3, **shape}
        number = Number(f"{op} {batch}", "targets", "meshes", case, goal=goal * MICRO, images=batch, expected=2.5)
        yield from _with_rivals(number, "pytorch")
    # What the generator's middle is padded from and to, in a pass of three views and back: bfloat16, channels last.
    case = {"op": "pad", "batch": batch, "views": 3, "channels": 8 if toy else 256, "size": (16, 8) if toy else (64, 32)}
    number = Number(f"pad {batch}", "targets", "meshes", case, images=3 * batch, expected=2.5)
    yield from _with_rivals(number, "pytorch")


def bank(toy: bool) -> Iterable[Number]:
    rows, dim, negatives = (200, 32, 64) if toy else (12936, DIM, 8192)
    goals = {(16, "float32"): 75 * MICRO, (16, "bfloat16"): 45 * MICRO}
    for batch in (2,) if toy else (16, 64):
        for dtype in ("float32", "bfloat16"):
            case = {"kind": "images", "batch": batch, "rows": rows, "dim": dim, "negatives": negatives, "dtype": dtype}
            rivals = ("eager", *(() if toy else ("compiled",)), *(("official",) if dtype == "float32" else ()))
            rivals = () if batch == 64 else rivals
            number = Number(
                f"bank {batch} {'fp32' if dtype == 'float32' else 'bf16'}",
                "targets",
                "bank",
                case,
                goal=goals.get((batch, dtype)),
                images=batch,
            )
            yield from _with_rivals(number, *rivals, compiled=45.0)


def neighbors(toy: bool) -> Iterable[Number]:
    sizes = (120,) if toy else (12936, 32621, 200_000, 1_000_000)
    seconds = dict(zip(sizes, ((1,) if toy else (3, 5, 15, 90)), strict=True))
    goals = {("labels", 12936): 10 * MILLI, ("labels", 1_000_000): 15.0, ("knn", 12936): 3 * MILLI, ("knn", 1_000_000): 10.0}
    goals[("jaccard", 12936)] = 1 * MILLI
    for rows in sizes:
        for op in ("knn", "jaccard", "dbscan", "labels"):
            case = {"op": op, "rows": rows, "dim": 16 if toy else DIM}
            number = Number(
                f"{op} {rows}",
                "targets",
                "neighbors",
                case,
                goal=goals.get((op, rows)),
                images=rows,
                expected=float(seconds[rows]) * (1.5 if op == "labels" else 1.0),
                limit=max(60.0, 3.0 * seconds[rows]),
            )
            rivals = ("faiss", "product") if op == "knn" and rows <= 200_000 else ()
            yield from _with_rivals(number, *rivals, expected=float(seconds[rows]) + 1)


def rank(toy: bool) -> Iterable[Number]:
    sizes = {"market": (10, 60)} if toy else {"market": (3368, 15913), "msmt17": (11659, 82161)}
    for name, (queries, gallery) in sizes.items():
        goal = 4.5 * MILLI if name == "market" and not toy else None
        case = {"queries": queries, "gallery": gallery, "dim": 16 if toy else DIM}
        number = Number(f"ranking {name}", "targets", "ranking", case, goal=goal, images=queries, expected=4.0)
        yield from _with_rivals(number, "product", "argsort")


def loaders(toy: bool) -> Iterable[Number]:
    for loader, meshes in (("cached", "rendered"), ("dali", "rendered"), ("cached", "vertices"), ("dali", "none")):
        if toy and (loader, meshes) != ("cached", "rendered"):
            continue
        case = {"loader": loader, "meshes": meshes, "toy": toy}
        rivals = ("reference",) if (loader, meshes) == ("cached", "rendered") else ()
        number = Number(f"loader {loader} {meshes}", "targets", "loader", case, images=-1, expected=6.0)
        yield from _with_rivals(number, *rivals, expected=6.0)


def training(toy: bool) -> Iterable[Number]:
    """Stages 1 to 3, plain against fast, every stage at batch 16 first; "graphs" compiles for minutes, so it comes last."""
    ways = {"fast": 40.0, "step graph": 40.0, "plain": 40.0, "fast fp32": 40.0, "graphs": 150.0}  # most: the first iteration
    stages, batches = ((1, 3), (4,)) if toy else ((3, 1, 2), (16, 64))
    for batch, (way, seconds), stage in product(batches, ways.items(), stages):
        if (toy and way not in ("fast", "plain")) or (way == "fast fp32" and batch == 64):
            continue
        case = {"stage": stage, "batch": batch, "size": (64, 40) if toy else SIZE, "way": way}
        case["backbone"] = "resnet18" if toy else "resnet50"
        yield Number(
            f"stage{stage} batch {batch} {way}",
            "train",
            "training",
            case,
            images=batch,
            implementation=way,
            expected=seconds,
            limit=240.0 if way == "graphs" else 120.0,
        )


def numbers(*, toy: bool = False) -> list[Number]:
    """All of them: the ceilings first, then from quick to long within each part."""
    first = list(ceilings(toy))
    rest = [number for make in (meshes, bank, neighbors, rank, loaders) for number in make(toy)]
    rest.sort(key=lambda number: number.expected)  # stable: a family stays together
    last = sorted(training(toy), key=lambda number: number.expected)
    every = [*first, *rest, *last]
    return [replace(number, goal=None, expected=0.1, limit=TOY_LIMIT) for number in every] if toy else every
