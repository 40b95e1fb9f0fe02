// The launch layer HOST_SOURCE, a *_cuda.cu, as a library for Python: its kernels are emulated, CPU tensors count as the GPU's,
// and its ops are registered as gcl_emulated's. The record of the host's calls is in cuda_runtime.h.
#include "cuda_runtime.h"

// Torch's functions that need a GPU, under other names.
#define aoti_torch_device_type_cuda aoti_torch_device_type_cpu
#define aoti_torch_create_device_guard simt_create_device_guard
#define aoti_torch_delete_device_guard simt_delete_device_guard
#define aoti_torch_get_current_cuda_stream simt_get_current_cuda_stream

#include <torch/csrc/inductor/aoti_torch/c/shim.h>
#include <torch/csrc/stable/library.h>

extern "C" {
AOTITorchError simt_create_device_guard(int32_t device, DeviceGuardHandle* guard) {
  *guard = reinterpret_cast<DeviceGuardHandle>(new int(simt::host_record().torch_device));  // the one before
  simt::host_record().torch_device = device;
  return AOTI_TORCH_SUCCESS;
}
AOTITorchError simt_delete_device_guard(DeviceGuardHandle guard) {
  int* before = reinterpret_cast<int*>(guard);
  simt::host_record().torch_device = *before;
  delete before;
  return AOTI_TORCH_SUCCESS;
}
AOTITorchError simt_get_current_cuda_stream(int32_t device, void** stream) {
  *stream = simt::stream_of(device);
  return AOTI_TORCH_SUCCESS;
}
__attribute__((visibility("default"))) const char* simt_report() { return simt::host_report(); }
__attribute__((visibility("default"))) int simt_set_order(const char* order, uint64_t seed) {
  simt::schedule().seed = seed;
  return simt::set_order(order) ? 0 : 1;
}
}

#undef STABLE_TORCH_LIBRARY_IMPL
#define STABLE_TORCH_LIBRARY_IMPL(ns, key, m) _STABLE_TORCH_LIBRARY_IMPL(gcl_emulated, CPU, m, __COUNTER__)

#include HOST_SOURCE
