// Words shared by host and device code. No torch header here: the mathematics and the kernels stand on this alone.
//
// Three compilers read it: the host compiler (plain loops), nvcc (kernels), and the host compiler with GCL_SIMT, where
// __global__ code runs on emulated threads. Under GCL_SIMT the emulator's header "simt.h" must define what nvcc has built in:
//   __global__, __device__, __host__, __shared__, __restrict__, __launch_bounds__(n)
//   dim3, threadIdx, blockIdx, blockDim, gridDim
//   barriers, votes and shuffles of a warp (__syncwarp, __ballot_sync, __shfl_sync, __reduce_*_sync ...), __syncthreads()
//   atomics (atomicMin, atomicAdd, atomicCAS, atomicOr) and bit counts (__popc, __ffs, __clz): what tests/simt/simt.h defines
//   GclStream, GCL_LAUNCH, GCL_FILL_BYTES as common/launch.cuh describes them
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

#if defined(__CUDACC__)
#define GCL_HD __host__ __device__ __forceinline__
#define GCL_RARE __noinline__  // device code that would cost the common path its registers
#elif defined(GCL_SIMT)
#include "simt.h"
#define GCL_HD inline
#define GCL_RARE
#elif defined(GCL_ISA)
#define GCL_HD static inline  // a copy for each instruction set (common/isa.h), none of which another may run
#else
#define GCL_HD inline
#endif

namespace gcl {

// Nearest integer, ties to even, in the default rounding mode on both sides.
GCL_HD float round_even(float x) { return ::rintf(x); }
GCL_HD double round_even(double x) { return ::rint(x); }

// The same as an integer that fits.
#if defined(__CUDA_ARCH__)
GCL_HD int32_t nearest_int(float x) { return __float2int_rn(x); }
GCL_HD int32_t nearest_int(double x) { return __double2int_rn(x); }
#else
template <class T>
GCL_HD int32_t nearest_int(T x) {
  return static_cast<int32_t>(round_even(x));
}
#endif

GCL_HD float magnitude(float x) { return ::fabsf(x); }
GCL_HD double magnitude(double x) { return ::fabs(x); }

template <class T>
GCL_HD T absolute(T x) {
  return x < T(0) ? -x : x;
}

template <class T>
GCL_HD T minimum(T a, T b) {
  return b < a ? b : a;
}

template <class T>
GCL_HD T maximum(T a, T b) {
  return a < b ? b : a;
}

template <class T>
GCL_HD T least_of_three(const T x[3]) {
  return minimum(x[0], minimum(x[1], x[2]));
}

template <class T>
GCL_HD T greatest_of_three(const T x[3]) {
  return maximum(x[0], maximum(x[1], x[2]));
}

}  // namespace gcl
