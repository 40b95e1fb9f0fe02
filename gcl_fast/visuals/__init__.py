"""Pictures of what a model sees, makes and ranks; every picture is a uint8 array [H, W, 3]."""

from __future__ import annotations

from gcl_fast.images import mesh_to_uint8, photo_to_uint8, photo_to_unit, unit_to_uint8
from gcl_fast.visuals.canvas import compose
from gcl_fast.visuals.grids import image_rows, novel_view_grid
from gcl_fast.visuals.png import save_png
from gcl_fast.visuals.ranked import ranked_lists, ranked_lists_from_features

__all__ = [
    "compose",
    "image_rows",
    "mesh_to_uint8",
    "novel_view_grid",
    "photo_to_uint8",
    "photo_to_unit",
    "ranked_lists",
    "ranked_lists_from_features",
    "save_png",
    "unit_to_uint8",
]
