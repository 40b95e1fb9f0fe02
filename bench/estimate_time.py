"""What a photo costs in `gcl-fast estimate-meshes`, and where: milliseconds on one thread.

    .venv/bin/python bench/estimate_time.py --photos FOLDER --out bench/results/estimate_time.json

FOLDER holds photos of people (JPEG); the first --count of them are taken, spread over the folder. Each part is measured --repeats
times, in turn with the others; the least and the median are given. The pose model's weights: gcl-fast estimate-meshes --weights
download.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import torch
from provenance import command, commit, device_name

from gcl_fast.estimation import BlazePose, estimate_meshes, pose_weights
from gcl_fast.estimation.body_estimates import bodies_from_landmarks
from gcl_fast.files import write_whole
from gcl_fast.images import load_photo
from gcl_fast.records import Record, ReIDData, spread
from gcl_fast.runs.device import choose_device


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--photos", type=Path, required=True)
    parser.add_argument("--count", type=int, default=128)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--weights", default="auto")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    device = choose_device(options.device)
    paths = spread(sorted(options.photos.glob("*.jpg")), options.count)
    weights = pose_weights(options.weights)
    once, twice = (BlazePose(weights, device, mirror=mirror) for mirror in (False, True))
    photos = [load_photo(path) for path in paths]
    shapes, landmarks = [photo.shape[:2] for photo in photos], once.estimate(photos)
    records = [Record(path=path, pid=0, camera=0) for path in paths]
    parts: dict[str, Callable[[], object]] = {
        "read": lambda: [load_photo(path) for path in paths],
        "landmarks and mask": lambda: once.estimate(photos),
        "landmarks and mask, mirrored too": lambda: twice.estimate(photos),
        "body": lambda: bodies_from_landmarks(landmarks, shapes),
        "all, from file to file": lambda: whole(once, records),
    }
    spent: dict[str, list[float]] = {name: [] for name in parts}
    for part in parts.values():
        part()
    for _ in range(options.repeats):
        for name, part in parts.items():
            began = time.perf_counter()
            part()
            spent[name].append(1000 * (time.perf_counter() - began) / len(paths))
    rows = {name: {"least": round(min(row), 2), "median": round(median(row), 2)} for name, row in spent.items()}
    for name, row in rows.items():
        print(f"{name:<34} {row['least']:>8.2f} {row['median']:>8.2f} ms a photo")
    if options.out:
        head = {"command": command(), "commit": commit(), "device": device_name(device), "torch": torch.__version__}
        result = {**head, "threads": options.threads, "photos": len(paths), "sizes": sizes(shapes), "ms_a_photo": rows}
        write_whole(options.out, json.dumps(result, indent=2) + "\n")
    return 0


def whole(estimator: BlazePose, records: list[Record]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        estimate_meshes(ReIDData("folder", Path(folder), records, [], []), estimator, mesh_root=folder, splits=("train",))


def sizes(shapes: list[tuple[int, ...]]) -> str:
    found = sorted({f"{height}x{width}" for height, width, *_ in shapes})
    return ", ".join(found[:3]) + (" ..." if len(found) > 3 else "")


if __name__ == "__main__":
    raise SystemExit(main())
