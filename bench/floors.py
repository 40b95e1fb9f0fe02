"""The floor of an op's time on a GPU: the bytes it must move and the operations it must do, from sizes and the GPU's ceilings.

    python bench/floors.py [--device H100] [--bandwidth 3.35e12 --fp32 67e12 --bf16 989e12]

prints the floors of the sizes that gpu-check measures. They are counted, not measured: what no implementation can be faster
than, each input read once, each output written once, nothing else. Beside them stand the times that gpu-check measures and the
instructions that `bench/machine_code.py` counts.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from dataclasses import dataclass

INT32, INT64, FLOAT = 4, 8, 4  # bytes
SPLIT = 3  # TF32 products that give one float32 product: high x high, high x low, low x high


@dataclass(frozen=True)
class Ceilings:
    """What a GPU can do at most in a second.

    bandwidth   bytes read and written
    fp32        float32 operations outside of tensor cores (a multiply-add is two)
    bf16        dense bfloat16 operations of tensor cores; TF32 does half as many
    """

    bandwidth: float
    fp32: float
    bf16: float


# From NVIDIA's data sheets of the SXM boards; "dense" figures.
PUBLISHED = {
    "H100": Ceilings(3.35e12, 67e12, 989e12),
    "H200": Ceilings(4.8e12, 67e12, 989e12),
    "A100": Ceilings(2.039e12, 19.5e12, 312e12),
}


def published(device: str) -> Ceilings | None:
    """The ceilings of a GPU by the name that torch gives it; None for one not in the table."""
    return next((ceilings for name, ceilings in PUBLISHED.items() if name in device), None)


@dataclass(frozen=True)
class Work:
    """What an op must do.

    bytes    to read and to write
    fp32     float32 operations; `split`: those among them that products on tensor cores may do, three TF32 ones for each
    bf16     operations for which bfloat16 products are enough
    """

    bytes: float
    fp32: float = 0.0
    split: float = 0.0
    bf16: float = 0.0

    def floor(self, ceilings: Ceilings) -> float:
        """Seconds: the slowest of memory and arithmetic, as if they overlapped wholly."""
        split = self.split * min(1 / ceilings.fp32, SPLIT / (ceilings.bf16 / 2))
        return max(self.bytes / ceilings.bandwidth, self.fp32 / ceilings.fp32 + split + self.bf16 / ceilings.bf16)

    def as_dict(self) -> dict[str, float]:
        return {"bytes": self.bytes, "operations": self.fp32 + self.split + self.bf16}


def rasterize(batch: int, vertices: int, faces: int, size: tuple[int, int]) -> Work:
    """Vertices and faces in; face_id, bary and depth out: 20 bytes a pixel."""
    return Work(batch * vertices * 3 * FLOAT + faces * 3 * INT32 + batch * math.prod(size) * (INT32 + 4 * FLOAT))


def render(batch: int, views: int, vertices: int, faces: int, size: tuple[int, int]) -> Work:
    """Vertices and faces in; one grey float a pixel and view out."""
    return Work(batch * vertices * 3 * FLOAT + faces * 3 * INT32 + batch * views * math.prod(size) * FLOAT)


def flow(batch: int, vertices: int, faces: int, size: tuple[int, int]) -> Work:
    """Two bodies and the faces in; grid and visibility out: 9 bytes a pixel."""
    return Work(2 * batch * vertices * 3 * FLOAT + faces * 3 * INT32 + batch * math.prod(size) * (2 * FLOAT + 1))


def warp(batch: int, vertices: int, faces: int, size: tuple[int, int], channels: int = 3) -> Work:
    """The image and two bodies in; the warped image and visibility out."""
    pixels = batch * math.prod(size)
    return Work(2 * batch * vertices * 3 * FLOAT + faces * 3 * INT32 + pixels * (2 * channels * FLOAT + 1))


def interpolate(batch: int, vertices: int, faces: int, size: tuple[int, int], channels: int) -> Work:
    """Attributes, faces, face_id and bary in; values out."""
    pixels = batch * math.prod(size)
    moved = batch * vertices * channels * FLOAT + faces * 3 * INT32 + pixels * (INT32 + 3 * FLOAT + channels * FLOAT)
    return Work(moved, fp32=pixels * channels * 6)


def pad(batch: int, channels: int, size: tuple[int, int], border: int, element: int) -> Work:
    """Maps in, padded maps out; then their gradient in, the maps' out. element: bytes of a number."""
    height, width = size
    padded = (height + 2 * border) * (width + 2 * border)
    return Work(2 * batch * channels * (height * width + padded) * element)


def bank_step(batch: int, rows: int, dim: int, negatives: int, element: int) -> Work:
    """Loss, gradient and update: the bank read once, its labels too, `batch` rows written; each sampled negative is one product
    for its logit and one for the gradient. element: bytes of a bank entry."""
    moved = rows * (dim * element + INT64) + batch * dim * (6 * FLOAT + 2 * element)
    return Work(moved, split=2 * 2 * batch * min(negatives, rows) * dim)


def knn(rows: int, dim: int, k: int) -> Work:
    """Each pair multiplied once (the product is symmetric), in bfloat16 where only candidates are sought; k neighbours out."""
    return Work(rows * dim * FLOAT + rows * k * (FLOAT + INT64), bf16=rows * (rows + 1.0) * dim)


def jaccard(rows: int, dim: int, k1: int, pairs: int) -> Work:
    """Neighbours and features in; `pairs` stored distances out, with their columns."""
    return Work(rows * k1 * INT64 + rows * dim * FLOAT + pairs * (INT64 + FLOAT) + rows * INT64, fp32=rows * k1 * dim * 2)


def dbscan(rows: int, pairs: int) -> Work:
    """Every stored pair read once, a label for each row out."""
    return Work(pairs * (INT64 + FLOAT) + 2 * rows * INT64)


def pseudo_labels(rows: int, dim: int, k1: int) -> Work:
    """Features in, labels out: what neighbours need; nothing of what passes between the ops has to reach memory."""
    neighbours = knn(rows, dim, k1)
    return Work(rows * dim * FLOAT + rows * INT64, fp32=rows * k1 * dim * 2, bf16=neighbours.bf16)


def ranking(queries: int, gallery: int, dim: int) -> Work:
    """Features in; every query multiplied with the gallery in float32 (ranks are exact)."""
    return Work((queries + gallery) * (dim * FLOAT + 2 * INT64) + queries * 32, split=2.0 * queries * gallery * dim)


CASES: dict[str, Work] = {
    **{f"rasterize {n}": rasterize(n, 6798, 13464, (256, 128)) for n in (16, 64, 512)},
    **{f"render {n}x{v}": render(n, v, 6798, 13464, (256, 128)) for n, v in ((16, 1), (8, 8), (16, 8), (64, 8))},
    "flow 16": flow(16, 6798, 13464, (256, 128)),
    "warp 16": warp(16, 6798, 13464, (256, 128)),
    "interpolate 16": interpolate(16, 6798, 13464, (256, 128), 3),
    "pad 16": pad(48, 256, (64, 32), 1, 2),
    **{f"bank {b} fp32": bank_step(b, 12936, 2048, 8192, 4) for b in (16, 64)},
    **{f"bank {b} bf16": bank_step(b, 12936, 2048, 8192, 2) for b in (16, 64)},
    **{f"knn {n}": knn(n, 2048, 30) for n in (12936, 32621, 200_000, 1_000_000)},
    **{f"labels {n}": pseudo_labels(n, 2048, 30) for n in (12936, 32621, 200_000, 1_000_000)},
    "ranking market": ranking(3368, 15913, 2048),
    "ranking msmt17": ranking(11659, 82161, 2048),
}


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=sorted(PUBLISHED), default="H100")
    for field in ("bandwidth", "fp32", "bf16"):
        parser.add_argument(f"--{field}", type=float, help="instead of the published one, a second")
    options = parser.parse_args(argv)
    known = PUBLISHED[options.device]
    ceilings = Ceilings(*(getattr(options, field) or getattr(known, field) for field in ("bandwidth", "fp32", "bf16")))
    print(f"{'':24}{'MB':>10}{'GFLOP':>12}{'floor us':>12}   ({options.device}, counted)")
    for name, work in CASES.items():
        counted = work.as_dict()
        print(f"{name:24}{counted['bytes'] / 1e6:10.1f}{counted['operations'] / 1e9:12.1f}{work.floor(ceilings) * 1e6:12.1f}")


if __name__ == "__main__":
    main()
