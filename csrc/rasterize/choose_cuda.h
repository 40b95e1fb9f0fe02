// What the choice between the plain and the fused kernels must know of the current GPU (strips.cuh).
#pragma once

#include "common/cuda_backend.h"
#include "rasterize/rasterize_kernels.cuh"

namespace gcl {

inline Gpu current_gpu(const char* op) {
  int device = 0;
  check_cuda(cudaGetDevice(&device), op);
  const auto attribute = [&](cudaDeviceAttr name) {
    int value = 0;
    check_cuda(cudaDeviceGetAttribute(&value, name, device), op);
    return int64_t{value};
  };
  const int64_t reserved = attribute(cudaDevAttrReservedSharedMemoryPerBlock);
  return {.shared_bytes = minimum(attribute(cudaDevAttrMaxSharedMemoryPerBlockOptin),
                                  attribute(cudaDevAttrMaxSharedMemoryPerMultiprocessor) / 2 - reserved),
          .multiprocessors = attribute(cudaDevAttrMultiProcessorCount),
          .cache_bytes = attribute(cudaDevAttrL2CacheSize)};
}

}  // namespace gcl
