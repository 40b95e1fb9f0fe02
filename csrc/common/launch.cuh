// How a kernel is started, so that the same sequence of launches runs under nvcc and under an emulator (see device.h).
//   GclStream                                               type of a stream
//   GCL_LAUNCH(kernel, blocks, threads, bytes, stream, ...)  starts kernel(...) with `bytes` of dynamic shared memory;
//                                                            a kernel name with commas stands in parentheses
//   GCL_FILL_BYTES(pointer, byte, count, stream)             memset in stream order
//   GCL_DYNAMIC_SHARED(T, name)                              in a kernel: its dynamic shared memory as T* name
//   GCL_ALLOW_SHARED(kernel, bytes)                          before a launch that needs more than 48 KiB of it
//   GCL_LAUNCH_BOUNDS(threads, blocks)                       __launch_bounds__ with room for `blocks` blocks; on sm_90 it names
//                                                            threads alone. Without a number of blocks ptxas may spill registers
//                                                            to fit one block more, which it does elsewhere, not on sm_90
//   gcl::load_relaxed(address)                               in a kernel: a number that others update atomically meanwhile
//   GCL_EACH_ITEM(i, count)                                  in a kernel: a loop over the items of this thread, by grid stride
//   GCL_EACH_WARP(i, count)                                  the same of this warp; blocks have whole warps
#pragma once

#include "common/device.h"

#if defined(__CUDACC__)
#include <cuda_runtime.h>

using GclStream = cudaStream_t;
#define GCL_LAUNCH(kernel, blocks, threads, bytes, stream, ...) \
  kernel<<<static_cast<unsigned>(blocks), static_cast<unsigned>(threads), bytes, stream>>>(__VA_ARGS__)
#define GCL_FILL_BYTES(pointer, byte, count, stream) cudaMemsetAsync(pointer, byte, count, stream)
#define GCL_DYNAMIC_SHARED(T, name)                                 \
  extern __shared__ __align__(16) unsigned char gcl_shared_bytes[]; \
  T* const name = reinterpret_cast<T*>(gcl_shared_bytes)
#define GCL_ALLOW_SHARED(kernel, bytes) \
  cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(bytes))
#endif

#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ == 900
#define GCL_LAUNCH_BOUNDS(threads, blocks) __launch_bounds__(threads)
#else
#define GCL_LAUNCH_BOUNDS(threads, blocks) __launch_bounds__(threads, blocks)
#endif

#define GCL_EACH_ITEM(i, count)                                                                                             \
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x, i##_step = int64_t{gridDim.x} * blockDim.x; \
       i < (count); i += i##_step)
#define GCL_EACH_WARP(i, count)                                                        \
  for (int64_t i = (static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x) / 32, \
               i##_step = int64_t{gridDim.x} * blockDim.x / 32;                        \
       i < (count); i += i##_step)

namespace gcl {

constexpr int kThreads = 128;
constexpr int kWarpLanes = 32;
constexpr unsigned kAllLanes = 0xffffffffu;

// What one load or store of up to 16 bytes moves.
template <class T>
struct alignas(4 * sizeof(T) < 16 ? 4 * sizeof(T) : 16) Four {
  T v[4];
};

#if defined(__CUDACC__)
__device__ __forceinline__ unsigned load_relaxed(const unsigned* address) {
  return *static_cast<const volatile unsigned*>(address);  // to PTX a relaxed load
}
#elif defined(GCL_SIMT)
inline unsigned load_relaxed(const unsigned* address) { return atomicOr(const_cast<unsigned*>(address), 0u); }
#endif

#ifndef GCL_MOST_BLOCKS  // a test may want few, each with several items
#define GCL_MOST_BLOCKS 0x7fffffff
#endif

#ifndef GCL_MOST_IN_32_BITS  // most items that a kernel counts in 32 bits; a test may want fewer
#define GCL_MOST_IN_32_BITS 0x7fffffff
#endif

// As many blocks as wanted and a launch may have; kernels walk by grid stride, so the cap loses nothing.
inline int64_t capped_blocks(int64_t blocks) { return minimum<int64_t>(blocks, GCL_MOST_BLOCKS); }

// Divides block numbers by a number that the host knows: two products in place of the steps of a division.
struct BlockDivisor {
  unsigned by = 1, inverse = 0;
  BlockDivisor() = default;
  explicit BlockDivisor(int64_t divisor) : by(static_cast<unsigned>(maximum<int64_t>(divisor, 1))) {
    inverse = static_cast<unsigned>(minimum<uint64_t>((uint64_t{1} << 32) / by, 0xffffffffu));
  }
  GCL_HD unsigned quotient(unsigned n) const {
    const unsigned low = static_cast<unsigned>(uint64_t{n} * inverse >> 32);  // or one less than asked for
    return low + (n - low * by >= by ? 1 : 0);
  }
};

// In a kernel: an address in global memory, from here on one number to which offsets are added; else each of them may be added
// to its terms in 64 bits.
template <class T>
GCL_HD T* whole_address(T* address) {
#if defined(__CUDA_ARCH__)
  asm("" : "+l"(address));
  __builtin_assume(__isGlobal(address));
#endif
  return address;
}

// In a loop: `number`, so that what is made of it takes no register from turn to turn. From sm_90 on there are enough.
GCL_HD int32_t made_anew(int32_t number) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 900
  asm volatile("" : "+r"(number));
#endif
  return number;
}

// Blocks for one thread per item.
inline int64_t blocks_for(int64_t items) { return capped_blocks((items + kThreads - 1) / kThreads); }

}  // namespace gcl
