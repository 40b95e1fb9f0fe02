// The part of CUDA's runtime that a launch layer may use, so that a *_cuda.cu runs on the CPU with its kernels emulated. It keeps
// a record of what must go together, and says what did not:
//   - each launch and fill on torch's current stream of the tensors' device, that device current for torch and for this runtime;
//   - an error check after the last launch;
//   - shared memory beyond 48 KiB only where it was asked for (shared_memory.h).
// What waits for the GPU, or copies, or allocates is not here, so a layer that calls it does not compile.
#pragma once

#include <cstdint>
#include <set>
#include <string>

#include "simt.h"

using cudaStream_t = void*;
enum cudaError_t { cudaSuccess = 0, cudaErrorInvalidValue = 1 };
enum cudaDeviceAttr {
  cudaDevAttrMultiProcessorCount,
  cudaDevAttrMaxSharedMemoryPerBlockOptin,
  cudaDevAttrMaxSharedMemoryPerMultiprocessor,
  cudaDevAttrReservedSharedMemoryPerBlock,
  cudaDevAttrL2CacheSize,
  cudaDevAttrComputeCapabilityMajor,
  cudaDevAttrComputeCapabilityMinor,
};

namespace simt {

constexpr int kTensorDevice = -1;  // what a CPU tensor calls its device; another one is current before an op is called

struct HostRecord {
  int runtime_device = 0, torch_device = 0;
  int launches = 0, unchecked = 0;
  std::set<std::string> faults;
};

inline HostRecord& host_record() {
  static HostRecord value;
  return value;
}

inline void* stream_of(int device) {  // one for each device, none of them the default stream
  static char streams[8];
  return streams + 1 + device;
}

inline void note_launch(void* stream) {
  HostRecord& r = host_record();
  ++r.launches;
  ++r.unchecked;
  if (r.runtime_device != kTensorDevice) r.faults.insert("a launch while another device is current for the CUDA runtime");
  if (r.torch_device != kTensorDevice) r.faults.insert("a launch without a guard of torch's current device");
  if (stream != stream_of(kTensorDevice))
    r.faults.insert("a launch that is not on torch's current stream of the tensors' device");
}

inline const bool host_installed = [] {
  hooks().launches = note_launch;
  return true;
}();

// In a library loaded by Python: what stood wrong since the last call, one a line; then a fresh record.
inline const char* host_report() {
  static std::string text;
  HostRecord& r = host_record();
  if (r.unchecked > 0) r.faults.insert("no cudaGetLastError after the last launch");
  if (r.torch_device != 0) r.faults.insert("the guard of torch's device is still held");
  text = std::to_string(r.launches) + " launches";
  for (const std::string& fault : r.faults) text += "\n" + fault;
  r = {};
  return text.c_str();
}

}  // namespace simt

inline cudaError_t cudaSetDevice(int device) {
  simt::host_record().runtime_device = device;
  return cudaSuccess;
}
inline cudaError_t cudaGetDevice(int* device) {
  *device = simt::host_record().runtime_device;
  return cudaSuccess;
}
inline cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int device) {
  if (device != simt::kTensorDevice) simt::host_record().faults.insert("an attribute of another device is asked for");
  switch (attribute) {
    case cudaDevAttrMultiProcessorCount:
      *value = 3;
      break;  // few, so that the emulation has few blocks to run
    case cudaDevAttrMaxSharedMemoryPerBlockOptin:
      *value = static_cast<int>(simt::kMaxSharedBytes);
      break;
    case cudaDevAttrMaxSharedMemoryPerMultiprocessor:
      *value = static_cast<int>(simt::kMaxSharedBytes) + 1024;
      break;
    case cudaDevAttrReservedSharedMemoryPerBlock:
      *value = 1024;
      break;
    case cudaDevAttrL2CacheSize:
      *value = 1024;  // little, so that plain drawing takes a batch in parts
      break;
    case cudaDevAttrComputeCapabilityMajor:
      *value = 9;
      break;
    case cudaDevAttrComputeCapabilityMinor:
      *value = 0;
      break;
  }
  return cudaSuccess;
}
inline cudaError_t cudaGetLastError() {
  simt::host_record().unchecked = 0;
  return cudaSuccess;
}
inline const char* cudaGetErrorString(cudaError_t error) { return error == cudaSuccess ? "no error" : "invalid value"; }
