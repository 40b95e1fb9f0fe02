// CUDA backend of the running selection. A block is read as it lies, by rows or by columns.
#include "common/cuda_backend.h"
#include "neighbors/knn_kernels.cuh"
#include "neighbors/knn_ops.h"

namespace gcl {
namespace {

struct KnnCuda : CudaBackend {
  GCL_LAUNCH_STEP(update, launch_knn_update)
};

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(gcl_fast, CUDA, m) { register_knn<KnnCuda>(m); }

}  // namespace gcl
