from gcl_fast.ops.bank import bank_nce, bank_update_, draw_positives, gcl_memory_loss
from gcl_fast.ops.interpolate import interpolate
from gcl_fast.ops.neighbors import SparseDistance, dbscan, jaccard_distance, knn
from gcl_fast.ops.ranking import RankMetrics, rank_metrics, rank_metrics_from_distances, rerank
from gcl_fast.ops.rasterize import Rasterized, rasterize
from gcl_fast.ops.render import render_mesh
from gcl_fast.ops.warp import MeshFlow, MeshWarp, mesh_flow, mesh_warp

__all__ = [
    "MeshFlow",
    "MeshWarp",
    "RankMetrics",
    "Rasterized",
    "SparseDistance",
    "bank_nce",
    "bank_update_",
    "dbscan",
    "draw_positives",
    "gcl_memory_loss",
    "interpolate",
    "jaccard_distance",
    "knn",
    "mesh_flow",
    "mesh_warp",
    "rank_metrics",
    "rank_metrics_from_distances",
    "rasterize",
    "render_mesh",
    "rerank",
]
