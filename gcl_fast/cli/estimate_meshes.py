"""gcl-fast estimate-meshes: the meshes of a data set from its photos alone."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from gcl_fast.cli.mesh_writing import MeshWriting
from gcl_fast.cli.options import parse
from gcl_fast.config.plain_values import positive
from gcl_fast.constants import DatasetName
from gcl_fast.errors import InputError

OF_WEIGHTS = ("--weights", "--device")  # what makes sense without photos


@dataclass
class EstimateMeshesOptions(MeshWriting):
    """Estimate the body in each photo and write the mesh files that stages 2 and 3 read.

    A pose model (BlazePose) finds landmarks, to which a body is fitted. Its weights are not part of this package:
    `gcl-fast estimate-meshes --weights download` fetches them once. A stopped call goes on when it is repeated. Look at the
    preview before training.
    """

    root: str | None = None
    """Folder that holds the data set's folder; without it only the weights are fetched or checked."""
    dataset: DatasetName = "market1501"
    mesh_root: str | None = None
    """Where the meshes go; default <root>/mesh."""
    weights: str = "auto"
    """auto (of an earlier download, or of an installed mediapipe), download, or a file (pose_landmark_*.tflite)."""
    missing: Literal["mean", "leave-out", "error"] = "mean"
    """Images in which nobody is seen: given the mean body, left out (train with --skip-unmeshed), or an error that lists them."""
    mirror: bool = False
    """Average with the mirrored photo: bodies and masks are a little better, and it takes nearly twice as long."""
    batch_size: int = 256
    """Bodies that are fitted, and written, at a time; photos are looked at by up to 32 at a time."""
    split: Literal["all", "train", "test"] = "all"
    """Whose bodies: train alone is enough to train; those of test (query and gallery) make pictures of held-out people."""
    device: str = "auto"
    """auto, cpu or cuda."""
    overwrite: bool = False
    """Estimate anew where a mesh file exists."""
    height: int = 256
    width: int = 128
    """Size that images are resized to for training: 2 to 1 as here, or what you train with."""
    preview: Path | None = None
    """Draw meshes over their photos (PNG)."""
    preview_count: int = 16

    def __post_init__(self) -> None:
        super().__post_init__()
        positive(self, "batch_size")


def main(argv: list[str]) -> int:
    options = parse(EstimateMeshesOptions, argv, prog="gcl-fast estimate-meshes")
    of_photos = [flag for word in argv if word.startswith("--") and (flag := word.partition("=")[0]) not in OF_WEIGHTS]
    if options.root is None and of_photos:
        raise InputError(
            f"--root is missing: without photos there is nothing to do for {', '.join(of_photos)}. Give the folder they are in "
            "(--dataset folder --root PHOTOS), or --weights download alone, which fetches the weights"
        )
    options.check_preview()

    from gcl_fast.estimation.blaze_pose import BlazePose
    from gcl_fast.estimation.pose_weights import pose_weights

    weights = pose_weights(options.weights)
    print(f"weights: {weights}")
    if options.root is None:
        if options.weights not in ("auto", "download"):  # of those the hash is known
            BlazePose(weights)
        print("no --root, so no photos: --dataset folder --root PHOTOS estimates the bodies in them")
        return 0

    from gcl_fast.data.datasets.load import load_dataset
    from gcl_fast.estimation.photo_meshes import estimate_meshes
    from gcl_fast.meshes.sources import SPLITS
    from gcl_fast.progress import counting
    from gcl_fast.runs.device import choose_device

    data = load_dataset(options.dataset, options.root)
    estimator = BlazePose(weights, choose_device(options.device), mirror=options.mirror)
    with counting("estimate meshes") as progress:
        report = estimate_meshes(
            data,
            estimator,
            mesh_root=options.mesh_dir(data),
            image_size=options.image_size,
            missing=options.missing,
            batch_size=options.batch_size,
            overwrite=options.overwrite,
            splits=SPLITS if options.split == "all" else (options.split,),
            progress=progress,
        )
    print(report)
    options.draw_preview(data)
    return 0
