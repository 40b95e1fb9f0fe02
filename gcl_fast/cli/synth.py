"""gcl-fast synth: write a synthetic data set."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import tyro

from gcl_fast.cli.options import parse
from gcl_fast.constants import LayoutName
from gcl_fast.errors import FolderInUseError, InputError

FLAGS = {
    "num_train_ids": "--train-ids",
    "num_test_ids": "--test-ids",
    "images_per_id": "--images-per-id",
    "image_size": "--height and --width",
    "num_cameras": "--cameras",
    "seed": "--seed",
}


@dataclass
class SynthOptions:
    """Write a world of walking people seen by several cameras, with each image's mesh and true novel views."""

    out: tyro.conf.Positional[Path]
    """Folder to write to."""
    layout: LayoutName = "market1501"
    train_ids: int = 40
    """People in the training set."""
    test_ids: int = 20
    """Other people, in query and gallery."""
    images_per_id: int = 16
    height: int = 256
    width: int = 128
    cameras: int = 6
    seed: int = 0
    rendered_meshes: bool = False
    """Also write the authors' render*/ folders (rendered on the fly otherwise)."""
    novel_views: bool = True
    """Also write true novel views of test people, to score generated ones."""


def main(argv: list[str]) -> int:
    options = parse(SynthOptions, argv, prog="gcl-fast synth")

    from gcl_fast.progress import counting
    from gcl_fast.synthetic import write_world

    try:
        with counting("write the world") as progress:
            summary = write_world(
                options.out,
                layout=options.layout,
                num_train_ids=options.train_ids,
                num_test_ids=options.test_ids,
                images_per_id=options.images_per_id,
                image_size=(options.height, options.width),
                num_cameras=options.cameras,
                seed=options.seed,
                rendered_meshes=options.rendered_meshes,
                novel_views=options.novel_views,
                progress=progress,
            )
    except (InputError, FolderInUseError) as error:
        raise type(error)(_by_flags(str(error))) from error
    print(summary)
    return 0


def _by_flags(message: str) -> str:
    """An error of `write_world` with its arguments called as the command line calls them."""
    words = message.removeprefix("write_world: ")
    return re.sub(rf"\b({'|'.join(FLAGS)})\b(?= must|=)", lambda match: FLAGS[match[1]], words)
