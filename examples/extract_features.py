"""Features of a folder of photos from a trained encoder, and the photos most alike.

    python examples/extract_features.py runs/market1501 photos/ --out features.npz

Weights may be a run folder, a checkpoint, or any weight file that `gcl-fast import-checkpoint` knows.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

import gcl_fast

SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".webp"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("weights", help="run folder, checkpoint or weight file")
    parser.add_argument("photos", type=Path, help="folder of cropped people, searched through")
    parser.add_argument("--out", type=Path, default=Path("features.npz"))
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    parser.add_argument("--neighbors", type=int, default=3, help="photos printed beside each")
    options = parser.parse_args()

    paths = sorted(path for path in options.photos.rglob("*") if path.suffix.lower() in SUFFIXES)
    if not paths:
        parser.error(f"no images in {options.photos}")
    encoder = gcl_fast.load_encoder(options.weights, device=options.device)
    print(encoder)

    features = encoder(paths)  # [N, D] float32 on the CPU, rows of length 1
    np.savez(options.out, features=features.numpy(), paths=np.array([str(path) for path in paths]))
    print(f"{len(paths)} photos, {features.shape[1]} numbers each: {options.out}")

    # Exact nearest neighbours; the first of each row is the photo itself.
    similarity, index = gcl_fast.ops.knn(features, min(options.neighbors + 1, len(paths)))
    for row, path in enumerate(paths[:10]):
        like = [f"{paths[i].name} {s:.2f}" for s, i in zip(similarity[row, 1:], index[row, 1:], strict=True)]
        print(f"{path.name}: " + ", ".join(like))


if __name__ == "__main__":
    main()
