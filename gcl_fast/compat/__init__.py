from gcl_fast.compat.memory import ClusterMemory, Memory
from gcl_fast.compat.neighbors import compute_jaccard_distance
from gcl_fast.compat.ranking import evaluate_rank, evaluate_rank_fastreid, evaluate_rank_fastreid_means, re_ranking

__all__ = [
    "ClusterMemory",
    "Memory",
    "compute_jaccard_distance",
    "evaluate_rank",
    "evaluate_rank_fastreid",
    "evaluate_rank_fastreid_means",
    "re_ranking",
]
