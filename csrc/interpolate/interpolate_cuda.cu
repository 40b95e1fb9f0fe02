// CUDA backend of interpolate: launches. It never waits for the GPU.
#include "common/cuda_backend.h"
#include "interpolate/interpolate_kernels.cuh"
#include "interpolate/interpolate_ops.h"

namespace gcl {
namespace {

struct InterpolateCuda : CudaBackend {
  GCL_LAUNCH_STEP(forward, launch_interpolate)
  GCL_LAUNCH_STEP(backward, launch_interpolate_backward)
};

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(gcl_fast, CUDA, m) { register_interpolate<InterpolateCuda>(m); }

}  // namespace gcl
