// CUDA backend of reflect_pad: launches. It never waits for the GPU.
#include "common/cuda_backend.h"
#include "reflect_pad/reflect_pad_kernels.cuh"
#include "reflect_pad/reflect_pad_ops.h"

namespace gcl {
namespace {

struct ReflectPadCuda : CudaBackend {
  GCL_LAUNCH_STEP(forward, launch_reflect_pad)
  GCL_LAUNCH_STEP(backward, launch_reflect_pad_backward)
};

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(gcl_fast, CUDA, m) { register_reflect_pad<ReflectPadCuda>(m); }

}  // namespace gcl
