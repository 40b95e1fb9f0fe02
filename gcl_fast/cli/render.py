"""gcl-fast render: mesh vertices -> the authors' rendered folders."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from gcl_fast.cli.options import parse


@dataclass
class RenderOptions:
    """Render the mesh of every image into <out>/<set>/{train,test}/render/, render_45/ ... as the authors' folders are."""

    root: str
    """Folder that holds the data set's folder."""
    dataset: Literal["market1501", "dukemtmc", "msmt17", "csv"] = "market1501"
    mesh_root: str | None = None
    """Folder of the mesh files; default <root>/mesh."""
    out: Path | None = None
    """Default: beside the mesh files."""
    angles: tuple[int, ...] = (0, 45, 90, 135, 180, 225, 270, 315)
    height: int = 256
    width: int = 128
    overwrite: bool = False


def main(argv: list[str]) -> int:
    options = parse(RenderOptions, argv, prog="gcl-fast render")

    from gcl_fast.meshes.render_folders import render_dataset
    from gcl_fast.progress import counting

    out = options.out or Path(options.mesh_root or Path(options.root) / "mesh")
    with counting("render") as progress:
        report = render_dataset(
            options.dataset,
            options.root,
            options.mesh_root,
            out,
            options.angles,
            (options.height, options.width),
            overwrite=options.overwrite,
            progress=progress,
        )
    print(report)
    return 0
