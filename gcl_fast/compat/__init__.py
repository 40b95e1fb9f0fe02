from gcl_fast.compat.memory import ClusterMemory, Memory
