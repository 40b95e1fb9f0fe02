// CUDA backend of mesh_flow and mesh_warp: launches. It never waits for the GPU.
#include "common/cuda_backend.h"
#include "warp/warp_kernels.cuh"
#include "warp/warp_ops.h"

namespace gcl {
namespace {

struct WarpCuda : CudaBackend {
  using CudaBackend::CudaBackend;

  template <class T>
  void flow(const FlowParams<T>& p) const {
    launch_flow(p, stream());
  }

  template <class T, class S>
  void warp(const WarpParams<T, S>& p) const {
    launch_warp(p, stream());
  }

  template <class T, class S>
  void backward(const WarpBackwardParams<T, S>& p) const {
    launch_warp_backward(p, stream());
  }
};

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(gcl_fast, CUDA, m) { register_warp<WarpCuda>(m); }

}  // namespace gcl
