from gcl_fast.ops.bank import bank_nce, bank_update_, draw_positives, gcl_memory_loss
from gcl_fast.ops.rasterize import Rasterized, rasterize
