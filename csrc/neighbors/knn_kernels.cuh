// GPU kernel of the running selection: one warp per row looks at 32 similarities at a time; nearly all are below the last one
// kept. The few others are put into the sorted list by the whole warp, one after the other.
#pragma once

#include "common/launch.cuh"
#include "neighbors/knn_math.h"

namespace gcl {

constexpr int kWarpSize = 32;
constexpr unsigned kWholeWarp = 0xffffffffu;

// All lanes call it with the same arguments. Whether the list of row r (columns 1 to k - 1) took the candidate.
template <class T>
__device__ bool warp_insert(const KnnParams<T>& p, int64_t r, int lane, T value, int64_t index) {
  T* values = p.value + r * p.k;
  int64_t* indices = p.index + r * p.k;
  const int64_t last = p.k - 1;
  const bool takes = last >= 1 && comes_before(value, index, values[last], indices[last]);
  __syncwarp(kWholeWarp);
  if (!takes) return false;
  // From the end, 32 at a time: whoever comes after the candidate moves up by one.
  int64_t place = 1;
  for (int64_t high = last; high >= 1; high -= kWarpSize) {  // entries high - 32 to high - 1 move to high - 31 to high
    const int64_t n = high - 1 - lane;
    const bool moves = n >= 1 && comes_before(value, index, values[n], indices[n]);
    const T moved_value = moves ? values[n] : T(0);
    const int64_t moved_index = moves ? indices[n] : 0;
    const unsigned moving = __ballot_sync(kWholeWarp, moves);
    if (moves) {
      values[n + 1] = moved_value;
      indices[n + 1] = moved_index;
    }
    __syncwarp(kWholeWarp);
    if (moving != kWholeWarp) {  // the list is sorted, so the first lanes move, the rest stay
      place = high - __popc(moving);
      break;
    }
  }
  if (lane == 0) {
    values[place] = value;
    indices[place] = index;
  }
  __syncwarp(kWholeWarp);
  return true;
}

template <class T>
__global__ void knn_update_kernel(KnnParams<T> p) {
  const int lane = static_cast<int>(threadIdx.x % kWarpSize);
  const int64_t warps = static_cast<int64_t>(gridDim.x) * blockDim.x / kWarpSize;
  for (int64_t r = (static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x) / kWarpSize; r < p.height; r += warps) {
    const int64_t row = row_number(p, r), diagonal = row - p.first_column;
    if (lane == 0 && diagonal >= 0 && diagonal < p.width) {
      p.value[r * p.k] = entry(p, r, diagonal);
      p.index[r * p.k] = row;
    }
    __syncwarp(kWholeWarp);
    if (p.k == 1) continue;
    T last = p.value[r * p.k + p.k - 1];
    for (int64_t first = 0; first < p.width; first += kWarpSize) {
      const int64_t c = first + lane;
      const T similarity = c < p.width ? entry(p, r, c) : T(0);
      unsigned left = __ballot_sync(kWholeWarp, c < p.width && !(similarity < last));
      const bool any = left != 0;
      for (; left != 0; left &= left - 1) {
        const int source = __ffs(static_cast<int>(left)) - 1;
        const T value = __shfl_sync(kWholeWarp, similarity, source);
        offer(p, row, p.first_column + first + source, value,
              [&](T candidate, int64_t index) { return warp_insert(p, r, lane, candidate, index); });
      }
      if (any) last = p.value[r * p.k + p.k - 1];
      __syncwarp(kWholeWarp);
    }
  }
}

template <class T>
void launch_knn_update(const KnnParams<T>& p, GclStream stream) {
  if (p.height == 0 || p.width == 0) return;
  GCL_LAUNCH((knn_update_kernel<T>), blocks_for(p.height * kWarpSize), kThreads, 0, stream, p);
}

}  // namespace gcl
