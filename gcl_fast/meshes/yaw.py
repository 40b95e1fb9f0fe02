"""Turning bodies about their vertical axis."""

from gcl_fast.ops.camera import turn

__all__ = ["turn"]
