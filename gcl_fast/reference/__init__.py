"""The plain definition of each op: oracle of the tests, baseline of the benches. It stands alone: of the package it imports the
result types (`gcl_fast._op_types`) and nothing that an op runs."""

from gcl_fast._op_types import MeshFlow, MeshWarp, Neighbors, RankMetrics, Rasterized, SparseDistance
from gcl_fast.reference.bank import bank_nce, bank_update_, draw_positives, gcl_memory_loss, gcl_memory_step_
from gcl_fast.reference.camera import project, turn, turn_each
from gcl_fast.reference.centroids import centroid_cross_entropy
from gcl_fast.reference.interpolate import interpolate
from gcl_fast.reference.neighbors import dbscan, jaccard_distance, knn
from gcl_fast.reference.ranking import rank_metrics, rank_metrics_from_distances, rerank
from gcl_fast.reference.rasterize import rasterize
from gcl_fast.reference.reflect_pad import reflect_pad
from gcl_fast.reference.render import render_mesh
from gcl_fast.reference.warp import mesh_flow, mesh_warp

__all__ = [
    "MeshFlow",
    "MeshWarp",
    "Neighbors",
    "RankMetrics",
    "Rasterized",
    "SparseDistance",
    "bank_nce",
    "bank_update_",
    "centroid_cross_entropy",
    "dbscan",
    "draw_positives",
    "gcl_memory_loss",
    "gcl_memory_step_",
    "interpolate",
    "jaccard_distance",
    "knn",
    "mesh_flow",
    "mesh_warp",
    "project",
    "rank_metrics",
    "rank_metrics_from_distances",
    "rasterize",
    "reflect_pad",
    "render_mesh",
    "rerank",
    "turn",
    "turn_each",
]
