"""A data set for tests of whole runs: coloured people as boxes of noise, ellipsoids as their bodies."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from gcl_fast.meshes.mesh_files import write_faces, write_mesh

SIZE = (80, 40)  # the smallest the generator takes
SETTINGS = f"""
height: {SIZE[0]}
width: {SIZE[1]}
workers: 0
precision: fp32
device: cpu
tensorboard: false
checkpoint_every: 1
log_every: 1
picture_every: 1
model: {{backbone: resnet18, width: 8, generator_width: 4, generator_mlp: 8, discriminator_width: 4}}
stage1: {{epochs: 2, iters: 3, batch_size: 8, num_instances: 4, eval_every: 1,
  cluster: {{k1: 6, k2: 2, eps: 0.7, min_samples: 2}}, augment: {{pad: 2}}}}
stage2: {{epochs: 1, iters: 2, batch_size: 4}}
stage3: {{epochs: 2, iters: 3, batch_size: 4, eval_every: 1, num_negatives: 16,
  cluster: {{k1: 6, k2: 2, eps: 0.7, min_samples: 2}}}}
"""
MESH_FOLDER = {"market1501": "market", "dukemtmc": "dukeMTMC", "msmt17": "msmt17", "csv": "csv"}


def ellipsoid(rings: int = 8, around: int = 10) -> tuple[np.ndarray, np.ndarray]:
    """vertices [V, 3] of a person-sized ellipsoid about the origin, faces [F, 3]."""
    angle = np.linspace(0, np.pi, rings)[:, None]
    turn = np.linspace(0, 2 * np.pi, around, endpoint=False)[None]
    grid = np.stack(
        np.broadcast_arrays(
            0.3 * np.sin(angle) * np.cos(turn), -0.85 * np.cos(angle) + 0 * turn, 0.2 * np.sin(angle) * np.sin(turn)
        ),
        -1,
    )
    faces = []
    for r in range(rings - 1):
        for a in range(around):
            i, j, k, m = r * around + a, r * around + (a + 1) % around, (r + 1) * around + a, (r + 1) * around + (a + 1) % around
            faces += [(i, k, j), (j, k, m)]
    return grid.reshape(-1, 3).astype(np.float32), np.array(faces, dtype=np.int32)


def _image(rng: np.random.Generator, color: np.ndarray):
    from PIL import Image

    pixels = rng.integers(60, 120, (*SIZE, 3)).astype(np.float64)
    pixels[10:70, 10:30] = color + rng.normal(0, 12, (60, 20, 3))
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def write_toy_world(root: Path, layout: str = "market1501", *, people: int = 4, images: int = 6, seed: int = 0) -> Path:
    """`people` in train, half as many others in query and gallery, seen by two cameras, each image with its mesh."""
    rng = np.random.default_rng(seed)
    vertices, faces = ellipsoid()
    rows: dict[str, list[tuple[str, int, int]]] = {"train": [], "query": [], "gallery": []}
    for pid in range(1, people + max(2, people // 2) + 1):
        color = np.array([(pid * 67) % 256, (pid * 131) % 256, (pid * 29 + 60) % 256], dtype=np.float64)
        for i in range(images):
            camera = i % 2
            split = "train" if pid <= people else ("query" if i < 2 else "gallery")
            path = _name(root, layout, split, pid, camera, i)
            path.parent.mkdir(parents=True, exist_ok=True)
            _image(rng, color).save(path, quality=95)
            rows[split].append((str(path), pid, camera))
            side = "train" if split == "train" else "test"
            folder = root / "mesh" / MESH_FOLDER[layout] / side / "vertices"
            inner = folder / path.parent.name if layout == "msmt17" else folder
            inner.mkdir(parents=True, exist_ok=True)
            write_mesh(inner / f"{path.stem}.npz", vertices * rng.uniform(0.9, 1.1), np.array([1.0, 0.0, 0.0], dtype=np.float32))
            write_faces(folder, faces)
    if layout == "msmt17":
        _msmt_lists(root, rows)
    return root


def _name(root: Path, layout: str, split: str, pid: int, camera: int, i: int) -> Path:
    market = {"train": "bounding_box_train", "query": "query", "gallery": "bounding_box_test"}[split]
    if layout == "market1501":
        return root / "market1501" / market / f"{pid:04d}_c{camera + 1}s1_{100 * i:06d}_00.jpg"
    if layout == "dukemtmc":
        return root / "dukemtmc-reid" / "DukeMTMC-reID" / market / f"{pid:04d}_c{camera + 1}_f{100 * i:07d}.jpg"
    folder = "train" if split == "train" else "test"
    name = f"{pid:04d}_{i:03d}_{camera + 1:02d}_0303noon_{100 * i:04d}_0.jpg"
    return root / "msmt17" / "MSMT17_V1" / folder / f"{pid:04d}" / name


def _msmt_lists(root: Path, rows: dict[str, list[tuple[str, int, int]]]) -> None:
    base = root / "msmt17" / "MSMT17_V1"
    split = {"train": rows["train"][:-3], "val": rows["train"][-3:], "query": rows["query"], "gallery": rows["gallery"]}
    for name, lines in split.items():
        text = "".join(f"{Path(path).parent.name}/{Path(path).name} {pid}\n" for path, pid, _ in lines)
        (base / f"list_{name}.txt").write_text(text)
