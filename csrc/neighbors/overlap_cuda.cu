// CUDA backend of the overlaps: launches. It never waits for the GPU.
#include "common/cuda_backend.h"
#include "neighbors/overlap_kernels.cuh"
#include "neighbors/overlap_ops.h"

namespace gcl {
namespace {

struct OverlapCuda : CudaBackend {
  GCL_LAUNCH_STEP(room, launch_overlap_room)

  template <class T>
  bool overlaps(OverlapParams<T> p) const {
    p.slots = kOverlapSlots<T>;
    launch_overlaps(p, stream());
    return true;
  }
};

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(gcl_fast, CUDA, m) { register_overlap<OverlapCuda>(m); }

}  // namespace gcl
