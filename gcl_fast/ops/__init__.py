from gcl_fast.ops.bank import bank_nce, bank_update_, draw_positives, gcl_memory_loss
from gcl_fast.ops.mesh import MeshFlow, MeshWarp, interpolate, mesh_flow, mesh_warp, render_mesh
from gcl_fast.ops.rasterize import Rasterized, rasterize
