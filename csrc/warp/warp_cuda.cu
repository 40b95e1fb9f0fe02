// CUDA backend of mesh_flow and mesh_warp: launches. It never waits for the GPU.
#include "common/cuda_backend.h"
#include "warp/warp_kernels.cuh"
#include "warp/warp_ops.h"

namespace gcl {
namespace {

struct WarpCuda : CudaBackend {
  GCL_LAUNCH_STEP(flow, launch_flow)
  GCL_LAUNCH_STEP(warp, launch_warp)
  GCL_LAUNCH_STEP(backward, launch_warp_backward)
};

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(gcl_fast, CUDA, m) { register_warp<WarpCuda>(m); }

}  // namespace gcl
