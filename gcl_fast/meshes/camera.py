"""Cameras of meshes: weak perspective (s, tx, ty) and perspective (tx, ty, tz, f, cx, cy), both free of the resolution."""

from gcl_fast.ops.camera import project

__all__ = ["project"]
