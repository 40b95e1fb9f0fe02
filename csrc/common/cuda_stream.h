// Device guard, current stream and launch check of the CUDA launch layer.
#pragma once

#include <cuda_runtime.h>
#include <torch/csrc/inductor/aoti_torch/c/shim.h>
#include <torch/csrc/stable/accelerator.h>
#include <torch/headeronly/util/Exception.h>

// Lives in libtorch_cuda. Weak, so that a build with CUDA kernels still loads on a CPU-only torch (and never calls it there).
#pragma weak aoti_torch_get_current_cuda_stream

namespace gcl {

inline void check_cuda(cudaError_t error, const char* what) {
  STD_TORCH_CHECK(error == cudaSuccess, what, ": ", cudaGetErrorString(error));
}

// Makes `device` current for torch and for this library's own runtime, and hands out torch's current stream there.
class CudaScope {
 public:
  explicit CudaScope(int32_t device) : guard_(device) {
    check_cuda(cudaSetDevice(device), "cudaSetDevice");
    void* stream = nullptr;
    TORCH_ERROR_CODE_CHECK(aoti_torch_get_current_cuda_stream(device, &stream));
    stream_ = static_cast<cudaStream_t>(stream);
  }
  cudaStream_t stream() const { return stream_; }

 private:
  torch::stable::accelerator::DeviceGuard guard_;
  cudaStream_t stream_ = nullptr;
};

}  // namespace gcl
