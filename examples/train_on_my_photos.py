"""Train an encoder on a folder of photos of people, without labels, and write their features.

    python examples/train_on_my_photos.py photos/ --out runs/mine
    python examples/train_on_my_photos.py photos/ --out runs/trial --small     # seconds on a CPU, to see that all works

Stage 1 alone (clusters as pseudo-labels): it needs no meshes. Hundreds of photos at least, each cropped to one person.
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path

import numpy as np

import gcl_fast
from gcl_fast.config import TrainConfig, from_dict, load_shipped

SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".webp"}
# A small network from random weights and few, small batches; every other setting stays the published one.
SMALL = {
    "height": 80,
    "width": 40,
    "workers": 0,
    "model": {"backbone": "resnet18", "width": 8, "weights": "none"},
    "stage1": {
        "epochs": 2,
        "iters": 5,
        "batch_size": 16,
        "num_instances": 4,
        "cluster": {"k1": 6, "k2": 2, "eps": 0.7, "min_samples": 2},
    },
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", type=Path, help="folder of cropped people, searched through")
    parser.add_argument("--out", type=Path, default=Path("runs/mine"), help="the run folder")
    parser.add_argument("--weights", default="imagenet", help="what the encoder starts from: imagenet (downloaded), a file, none")
    parser.add_argument("--small", action="store_true", help="a small network and a short training")
    parser.add_argument("--overwrite", action="store_true", help="replace an earlier run in --out")
    options = parser.parse_args()

    # A data set of your own is a list of paths; who is on them may be left out (column pid), training never reads it.
    paths = sorted(path.resolve() for path in options.photos.rglob("*") if path.suffix.lower() in SUFFIXES)
    if not paths:
        parser.error(f"{options.photos} holds no image ({', '.join(sorted(SUFFIXES))})")
    if options.out.exists() and not options.overwrite:
        parser.error(f"{options.out} is there already: give another --out, or --overwrite to replace it")
    lists = options.out.with_name(options.out.name + "_lists")
    lists.mkdir(parents=True, exist_ok=True)
    with open(lists / "train.csv", "w", newline="") as file:
        csv.writer(file).writerows([["path"], *([path] for path in paths)])

    values: dict[str, object] = {"root": str(lists), "runs": str(options.out.parent), "name": options.out.name}
    values["model"] = {"weights": options.weights}
    config = from_dict(TrainConfig, {**values, **(SMALL if options.small else {})}, base=load_shipped("csv"))
    run = gcl_fast.train(config, stages=(1,), overwrite=options.overwrite)

    features = gcl_fast.load_encoder(run)(paths)  # [N, D], rows of length 1
    np.savez(run / "features.npz", features=features.numpy(), paths=np.array([str(path) for path in paths]))
    print(f"features of {len(paths)} photos: {run / 'features.npz'}")


if __name__ == "__main__":  # the loader's processes import this file
    main()
