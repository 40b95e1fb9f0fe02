// CUDA backend of DBSCAN: launches. It never waits for the GPU.
#include "common/cuda_backend.h"
#include "neighbors/dbscan_kernels.cuh"
#include "neighbors/dbscan_ops.h"

namespace gcl {
namespace {

struct DbscanCuda : CudaBackend {
  using CudaBackend::CudaBackend;

  template <class T>
  void roots(const DbscanParams<T>& p) const {
    launch_dbscan_roots(p, stream());
  }

  template <class T>
  void labels(const DbscanParams<T>& p) const {
    launch_dbscan_labels(p, stream());
  }
};

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(gcl_fast, CUDA, m) { register_dbscan<DbscanCuda>(m); }

}  // namespace gcl
