// Tensor cores and asynchronous copies, from sm_80 on; on emulated threads their host form (tests/simt/mma_host.h).
//
// A float is the sum of two numbers that tensor cores take, `high` of 11 significant bits and `low`; of a product of two sums the
// three larger terms keep what float32 keeps ("3xTF32"). The cores cut the last bits of what they add, so sums stay short there
// and are added up outside.
#pragma once

#include "common/launch.cuh"

#if defined(GCL_SIMT)
#include "mma_host.h"
#endif

namespace gcl {

struct Tf32 {
  uint32_t high, low;  // bits of floats; the cores pass over the last 13 of low
};

// `high` nearest to x: what is left has either sign. A NaN may be lost in high and is one in low.
GCL_HD Tf32 nearest_tf32(float x) {
  uint32_t bits;
  memcpy(&bits, &x, sizeof x);
  const uint32_t high = (bits + 0x1000u) & 0xffffe000u;
  float kept;
  memcpy(&kept, &high, sizeof kept);
  const float rest = x - kept;
  uint32_t low;
  memcpy(&low, &rest, sizeof low);
  return {high, low};
}

// `high` cut from x, one operation cheaper. Enough for one side of a product: the other's low parts have either sign, so the
// product of both, which is left out, has no bias.
GCL_HD Tf32 cut_tf32(float x) {
  uint32_t bits;
  memcpy(&bits, &x, sizeof x);
  const uint32_t high = bits & 0xffffe000u;
  float kept;
  memcpy(&kept, &high, sizeof kept);
  const float rest = x - kept;
  uint32_t low;
  memcpy(&low, &rest, sizeof low);
  return {high, low};
}

#if defined(__CUDACC__)

// sum [16, 8] += a [16, 8] b [8, 8] over a warp. With g = lane / 4 and k = lane % 4: a holds (g, k), (g + 8, k), (g, k + 4),
// (g + 8, k + 4); b holds (k, g), (k + 4, g); sum holds (g, 2k), (g, 2k + 1), (g + 8, 2k), (g + 8, 2k + 1).
__device__ inline void mma_tf32(float (&sum)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
#if __CUDA_ARCH__ >= 800
  asm("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
      : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
#endif
}

// Copies 16 bytes to shared memory, zeros unless `there`; both addresses are multiples of 16. Done once its group is waited for.
__device__ inline void copy_16(void* shared, const void* global, bool there) {
#if __CUDA_ARCH__ >= 800
  const unsigned to = static_cast<unsigned>(__cvta_generic_to_shared(shared));
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(global), "r"(there ? 16 : 0) : "memory");
#endif
}
__device__ inline void end_copy_group() {
#if __CUDA_ARCH__ >= 800
  asm volatile("cp.async.commit_group;" ::: "memory");
#endif
}
// Waits for this thread's groups but the last LEFT; what other threads copied is there after a barrier besides.
template <int LEFT>
__device__ inline void wait_copy_groups() {
#if __CUDA_ARCH__ >= 800
  asm volatile("cp.async.wait_group %0;" ::"n"(LEFT) : "memory");
#endif
}

#endif

}  // namespace gcl
