// CUDA backend of the walk: workspace and launches. It never waits for the GPU; a row that is not there ends a walk.
#include "common/cuda_backend.h"
#include "neighbors/walk_kernels.cuh"
#include "neighbors/walk_ops.h"

namespace gcl {
namespace {

struct WalkCuda : CudaBackend {
  template <class T>
  void walk(WalkParams<T> p, const Tensor& like) const {
    Tensor walking = new_empty(like, {p.batch}, ScalarType::Bool), before = new_empty(like, {p.batch, p.total}, ScalarType::Int);
    p.walking = static_cast<bool*>(walking.mutable_data_ptr());
    p.before = before.mutable_data_ptr<int32_t>();
    launch_walk(p, stream());
  }
};

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(gcl_fast, CUDA, m) { register_walk<WalkCuda>(m); }

}  // namespace gcl
