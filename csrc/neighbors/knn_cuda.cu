// CUDA backend of the running selection. A block that lies by columns is first turned, so that warps read whole lines.
#include "common/cuda_backend.h"
#include "neighbors/knn_kernels.cuh"
#include "neighbors/knn_ops.h"

namespace gcl {
namespace {

struct KnnCuda : CudaBackend {
  using CudaBackend::CudaBackend;

  template <class T>
  void update(const KnnParams<T>& p) const {
    launch_knn_update(p, stream());
  }
};

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(gcl_fast, CUDA, m) { register_knn<KnnCuda>(m); }

}  // namespace gcl
