// CUDA backend of the looks at what was given and of packing: launches. It never waits for the GPU.
#include "common/cuda_backend.h"
#include "neighbors/faults_kernels.cuh"
#include "neighbors/faults_ops.h"

namespace gcl {
namespace {

struct FaultsCuda : CudaBackend {
  GCL_LAUNCH_STEP(neighbors, launch_neighbor_faults)
  GCL_LAUNCH_STEP(graph, launch_graph_faults)
  GCL_LAUNCH_STEP(pack, launch_pack_rows)
};

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(gcl_fast, CUDA, m) { register_faults<FaultsCuda>(m); }

}  // namespace gcl
