"""Turning bodies about their vertical axis."""

from gcl_fast.ops._camera import turn

__all__ = ["turn"]
