"""Guides: what the generator is told of a view beside its mesh, the photo's own pixels carried there and the background."""

from gcl_fast.guides.bodies import Bodies, ViewRasters
from gcl_fast.guides.guide import GUIDE_CHANNELS, Guide, between_photos, turned_view, untold_view
from gcl_fast.guides.guided_generator import GuidedGenerator
from gcl_fast.guides.holes import fill_holes
from gcl_fast.guides.variance import Variance, draw_variance

__all__ = [
    "GUIDE_CHANNELS",
    "Bodies",
    "Guide",
    "GuidedGenerator",
    "Variance",
    "ViewRasters",
    "between_photos",
    "draw_variance",
    "fill_holes",
    "turned_view",
    "untold_view",
]
