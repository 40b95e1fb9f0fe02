"""The ops: argument checks, fake kernels and gradients around the native kernels. Importing this package registers all of them
with torch; result types and `IndexRangeError` come from `gcl_fast._op_types`."""

from gcl_fast._op_types import IndexRangeError, MeshFlow, MeshWarp, Neighbors, RankMetrics, Rasterized, SparseDistance
from gcl_fast.ops import _negated as _negated
from gcl_fast.ops import _walk as _walk
from gcl_fast.ops.bank import bank_nce, bank_update_, draw_positives, gcl_memory_loss, gcl_memory_step_
from gcl_fast.ops.interpolate import interpolate
from gcl_fast.ops.neighbors import dbscan, jaccard_distance, knn
from gcl_fast.ops.ranking import rank_metrics, rank_metrics_from_distances, rerank
from gcl_fast.ops.rasterize import rasterize
from gcl_fast.ops.reflect_pad import reflect_pad
from gcl_fast.ops.render import render_mesh
from gcl_fast.ops.warp import mesh_flow, mesh_flow_of_rasters, mesh_warp

__all__ = [
    "IndexRangeError",
    "MeshFlow",
    "MeshWarp",
    "Neighbors",
    "RankMetrics",
    "Rasterized",
    "SparseDistance",
    "bank_nce",
    "bank_update_",
    "dbscan",
    "draw_positives",
    "gcl_memory_loss",
    "gcl_memory_step_",
    "interpolate",
    "jaccard_distance",
    "knn",
    "mesh_flow",
    "mesh_flow_of_rasters",
    "mesh_warp",
    "rank_metrics",
    "rank_metrics_from_distances",
    "rasterize",
    "reflect_pad",
    "render_mesh",
    "rerank",
]
