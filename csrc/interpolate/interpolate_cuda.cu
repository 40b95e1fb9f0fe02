// CUDA backend of interpolate: launches. It never waits for the GPU.
#include "common/cuda_backend.h"
#include "interpolate/interpolate_kernels.cuh"
#include "interpolate/interpolate_ops.h"

namespace gcl {
namespace {

struct InterpolateCuda : CudaBackend {
  using CudaBackend::CudaBackend;

  template <class T>
  void forward(const InterpolateParams<T>& p) const {
    launch_interpolate(p, stream());
  }

  template <class T>
  void backward(const InterpolateBackwardParams<T>& p) const {
    launch_interpolate_backward(p, stream());
  }
};

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(gcl_fast, CUDA, m) { register_interpolate<InterpolateCuda>(m); }

}  // namespace gcl
