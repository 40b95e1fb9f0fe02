"""gcl-fast render: mesh vertices -> the authors' rendered folders."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from gcl_fast.cli.options import parse
from gcl_fast.config.plain_values import positive, require
from gcl_fast.constants import ALL_YAWS, DatasetName


@dataclass
class RenderOptions:
    """Render the mesh of every image into <out>/<set>/{train,test}/render/, render_45/ ... as the authors' folders are."""

    root: str
    """Folder that holds the data set's folder."""
    dataset: DatasetName = "market1501"
    mesh_root: str | None = None
    """Folder of the mesh files; default <root>/mesh."""
    out: Path | None = None
    """Default: beside the mesh files."""
    angles: tuple[int, ...] = ALL_YAWS
    height: int = 256
    width: int = 128
    overwrite: bool = False

    def __post_init__(self) -> None:
        require(len(self.angles) > 0, "--angles", "at least one angle", self.angles)
        positive(self, "height", "width")


def main(argv: list[str]) -> int:
    options = parse(RenderOptions, argv, prog="gcl-fast render")

    from gcl_fast.data.datasets.load import load_dataset
    from gcl_fast.meshes.render_folders import render_dataset
    from gcl_fast.progress import counting

    data = load_dataset(options.dataset, options.root)
    mesh_root = Path(options.mesh_root) if options.mesh_root else data.root / "mesh"
    size = (options.height, options.width)
    with counting("render") as progress:
        report = render_dataset(
            data, mesh_root, options.out or mesh_root, options.angles, size, overwrite=options.overwrite, progress=progress
        )
    print(report)
    return 0
