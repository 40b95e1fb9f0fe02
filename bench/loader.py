"""The loaders against the official way of loading, on a Market-1501 layout with photos of 128x64 and their meshes.

A case times some batches of an epoch; "reference" is the official way in the same run: one photo and two mesh pictures a
sample through Pillow and torchvision, collated by torch's DataLoader. No workers: give it one core (`taskset -c 0`).
"""

from __future__ import annotations

import atexit
import itertools
import shutil
import tempfile
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import numpy as np
import torch

from gcl_fast.constants import ALL_YAWS, NOVEL_YAWS
from gcl_fast.data import CachedLoader, DaliLoader, TorchLoader, load_dataset, shuffled
from gcl_fast.data.loaders.loader_base import Loader
from gcl_fast.meshes.mesh_files import write_faces, write_mesh
from gcl_fast.meshes.sources import open_mesh_source

OP = "loader"
CHECK = (
    "batches hold the official way's samples in its order, images within 8 of 255 levels of it and 0.5 on average, meshes from "
    "pictures within 8"
)
SIZE, IMAGES, BATCH, BATCHES = (256, 128), 128, 16, 4
QUICK = {"loader": ["cached", "dali"], "meshes": ["rendered"]}
FULL = {"loader": ["cached", "dali", "torch"], "meshes": ["rendered", "vertices", "none"]}


def body(rings: int = 103, columns: int = 66) -> tuple[np.ndarray, np.ndarray]:
    """A bumpy ellipsoid of a person's size with 13,464 faces, as many as SMPL's body has."""
    polar = np.linspace(0, np.pi, rings)[:, None]
    around = np.arange(columns) * (2 * np.pi / columns)
    radius = 1 + 0.15 * np.sin(5 * polar) * np.sin(3 * around)
    x, z = radius * np.sin(polar) * np.cos(around), radius * np.sin(polar) * np.sin(around)
    vertices = np.stack(np.broadcast_arrays(0.3 * x, -0.85 * np.cos(polar), 0.2 * z), -1).reshape(-1, 3)
    ring, column = (m.ravel() for m in np.meshgrid(np.arange(rings - 1), np.arange(columns), indexing="ij"))
    a, b = ring * columns + column, ring * columns + (column + 1) % columns
    faces = np.concatenate([np.stack((a, b, a + columns), 1), np.stack((b, b + columns, a + columns), 1)])
    return vertices.astype(np.float32), faces.astype(np.int32)


@cache
def world() -> Path:
    """Photos of coloured shapes with grain (about 3 kB each, as Market-1501's), their meshes as vertices and as pictures."""
    from PIL import Image

    root = Path(tempfile.mkdtemp(prefix="gcl_bench_"))
    atexit.register(shutil.rmtree, root, ignore_errors=True)
    rng, (vertices, faces) = np.random.default_rng(0), body()
    folder, meshes = root / "market1501" / "bounding_box_train", root / "mesh" / "market" / "train" / "vertices"
    folder.mkdir(parents=True)
    for name in ("query", "bounding_box_test"):
        (folder.parent / name).mkdir()
    for i in range(IMAGES):
        name = f"{i // 8 + 1:04d}_c{i % 6 + 1}s1_{i * 25:06d}_00"
        coarse = Image.fromarray(rng.integers(0, 256, (12, 6, 3), dtype=np.uint8)).resize((64, 128), Image.Resampling.BICUBIC)
        pixels = np.asarray(coarse) + rng.normal(0, 8, (128, 64, 3))
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(folder / f"{name}.jpg", quality=85)
        write_mesh(meshes / f"{name}.npz", vertices * rng.uniform(0.9, 1.0), np.array([1.0, 0.0, 0.0], np.float32))
    write_faces(meshes, faces)
    Image.new("RGB", (64, 128)).save(folder.parent / "query" / "0900_c1s1_000000_00.jpg")
    Image.new("RGB", (64, 128)).save(folder.parent / "bounding_box_test" / "0900_c2s1_000000_00.jpg")
    source = open_mesh_source(root / "mesh", "market1501", "train", (128, 64), "vertices")
    for record in load_dataset("market1501", root).train:
        for yaw, view in zip(ALL_YAWS, source.render(record, ALL_YAWS), strict=True):
            target = meshes.parent / (f"render_{yaw}" if yaw else "render") / record.path.name
            target.parent.mkdir(exist_ok=True)
            Image.fromarray((view * 255).round().to(torch.uint8).numpy()).save(target, quality=95)
    return root


def plan():
    return shuffled(range(IMAGES), BATCH, seed=1, num_batches=BATCHES)


def make(case: dict, device: torch.device) -> Loader:
    records = load_dataset("market1501", world()).train
    options: dict = {}
    if case["meshes"] != "none":
        options["meshes"] = open_mesh_source(world() / "mesh", "market1501", "train", SIZE, case["meshes"])
    if case["loader"] == "torch":
        return TorchLoader(records, SIZE, **options)
    return (CachedLoader if case["loader"] == "cached" else DaliLoader)(records, SIZE, device=device, **options)


class Official(torch.utils.data.Dataset):
    """What the published training code does for a sample, written from its description."""

    def __init__(self, meshes: bool, draws: list[list[int]]) -> None:
        from torchvision import transforms as T

        def steps(mean, std):
            resize = T.Resize(SIZE, interpolation=T.InterpolationMode.BICUBIC)
            return T.Compose([resize, T.ToTensor(), T.Normalize(mean, std)])

        self.photo = steps([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
        self.guide = steps([0.5], [0.5])
        self.records, self.meshes = load_dataset("market1501", world()).train, meshes
        self.yaws = dict(enumerate(itertools.chain.from_iterable(draws)))

    def __getitem__(self, key: tuple[int, int]) -> tuple:
        from PIL import Image

        turn, i = key
        record = self.records[i]
        views = []
        if self.meshes:
            base = world() / "mesh" / "market" / "train"
            for folder in ("render", f"render_{NOVEL_YAWS[self.yaws[turn]]}"):
                views.append(self.guide(Image.open(base / folder / record.path.name).convert("L")))
        return (self.photo(Image.open(record.path).convert("RGB")), *views, record.pid, record.camera, i)


def official(meshes: bool) -> Callable[[], Iterator]:
    from gcl_fast.data.loaders.recipes import Chance, Recipe

    chance = Chance(0, NOVEL_YAWS, None, SIZE, turns=True)
    draws = [[chance.yaw(Recipe(0, p, b), row) for row in range(len(b))] for p, b in enumerate(plan())]
    order = [[(p * BATCH + row, int(i)) for row, i in enumerate(batch)] for p, batch in enumerate(plan())]
    loader = torch.utils.data.DataLoader(Official(meshes, draws), batch_sampler=order, num_workers=0)
    return lambda: iter(loader)


def check(case: dict, device: torch.device) -> None:
    level = 1 / 255 / 0.225
    want, got = official(case["meshes"] != "none")(), make(case, device).epoch(plan(), 0)
    for a, b in zip(want, got, strict=True):
        assert a[-1].tolist() == b.index.tolist()
        difference = (a[0] - b.image.cpu()).abs()
        assert difference.max() <= 8 * level and difference.mean() <= 0.5 * level
        if case["meshes"] == "rendered":
            for x, y in ((a[1], b.mesh), (a[2], b.mesh_novel)):
                assert (x - y.cpu()).abs().max() <= 8 / 127.5


def call(implementation: str, case: dict, device: torch.device) -> Callable[[], object]:
    if implementation == "reference":
        read = official(case["meshes"] != "none")
        return lambda: [None for _ in read()]
    loader, chosen = make(case, device), plan()
    return lambda: [None for _ in loader.epoch(chosen, 0)]


def test_loader(case, implementation, device, measure) -> None:
    measure()
