"""What the commands that write the meshes of a data set share: where the files go, and the preview of them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from gcl_fast.cli.options import named_png
from gcl_fast.config.plain_values import positive
from gcl_fast.files import check_writable

if TYPE_CHECKING:
    from gcl_fast.records import ReIDData


class MeshWriting:
    """Options of a command that writes meshes; what cannot be drawn afterwards is refused before the work."""

    mesh_root: str | None
    height: int
    width: int
    preview: Path | None
    preview_count: int

    def __post_init__(self) -> None:
        positive(self, "height", "width", "preview_count")
        named_png("--preview", self.preview)

    @property
    def image_size(self) -> tuple[int, int]:
        return self.height, self.width

    def mesh_dir(self, data: ReIDData) -> Path:
        return Path(self.mesh_root) if self.mesh_root else data.root / "mesh"

    def check_preview(self) -> None:
        """Whether one that is wanted could be written."""
        if self.preview is not None:
            check_writable(self.preview)

    def draw_preview(self, data: ReIDData) -> None:
        """Where one is wanted."""
        if self.preview is not None:
            from gcl_fast.meshes.preview import preview_dataset

            path = preview_dataset(data, self.mesh_dir(data), self.preview, self.image_size, self.preview_count)
            print(f"preview: {path}")
