// Device guard, current stream and launch check of the CUDA side of an op.
#pragma once

#include <cuda_runtime.h>
#include <torch/csrc/inductor/aoti_torch/c/shim.h>
#include <torch/csrc/stable/accelerator.h>

#include "common/tensor.h"

// Lives in libtorch_cuda. Weak, so that a build with CUDA kernels still loads on a CPU-only torch (and never calls it there).
#pragma weak aoti_torch_get_current_cuda_stream

namespace gcl {

inline void check_cuda(cudaError_t error, const char* what) {
  if (error != cudaSuccess) (void)cudaGetLastError();  // told here, not by the next launch
  STD_TORCH_CHECK(error == cudaSuccess, what, ": ", cudaGetErrorString(error));
}

// Makes the device of `like` current for torch and for this library's own runtime, and hands out torch's current stream there.
class CudaBackend {
 public:
  static constexpr bool kOnGpu = true;
  CudaBackend(const Tensor& like) : guard_(like.get_device_index()) {
    check_cuda(cudaSetDevice(like.get_device_index()), "cudaSetDevice");
    void* stream = nullptr;
    TORCH_ERROR_CODE_CHECK(aoti_torch_get_current_cuda_stream(like.get_device_index(), &stream));
    stream_ = static_cast<cudaStream_t>(stream);
  }
  cudaStream_t stream() const { return stream_; }
  void finish(const char* op) const { check_cuda(cudaGetLastError(), op); }

 private:
  torch::stable::accelerator::DeviceGuard guard_;
  cudaStream_t stream_ = nullptr;
};

// A step of a CUDA backend that does no more than to launch.
#define GCL_LAUNCH_STEP(step, launch) \
  template <class P>                  \
  void step(const P& p) const {       \
    launch(p, stream());              \
  }

}  // namespace gcl
