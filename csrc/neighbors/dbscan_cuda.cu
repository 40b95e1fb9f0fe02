// CUDA backend of DBSCAN: launches. It never waits for the GPU.
#include "common/cuda_backend.h"
#include "neighbors/dbscan_kernels.cuh"
#include "neighbors/dbscan_ops.h"

namespace gcl {
namespace {

struct DbscanCuda : CudaBackend {
  GCL_LAUNCH_STEP(roots, launch_dbscan_roots)
  GCL_LAUNCH_STEP(labels, launch_dbscan_labels)
};

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(gcl_fast, CUDA, m) { register_dbscan<DbscanCuda>(m); }

}  // namespace gcl
