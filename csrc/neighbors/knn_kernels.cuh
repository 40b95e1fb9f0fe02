// GPU kernels of the running selection. Nearly all similarities are below the last one kept, so what counts is to have many
// loads under way: a lane asks for all of a strip before it looks at any. The few others are put into the sorted list by a
// whole warp, one after the other.
//   by rows     a warp per row
//   by columns  a block per 32 rows, whose warps read whole lines across them; each warp then serves the lists of its own rows
#pragma once

#include "common/warp_fold.cuh"
#include "neighbors/knn_math.h"

namespace gcl {

constexpr int kKnnAhead = 16;  // similarities that a lane has under way
constexpr int kTurnWarps = 8;  // of a block of 32 rows, where the similarities lie by columns
constexpr int kTurnColumns = kTurnWarps * kKnnAhead;  // that such a block looks at in a round

// All lanes call it with the same arguments. Whether the list of row r (columns 1 to k - 1) took the candidate.
template <class T>
__device__ bool warp_insert(const KnnParams<T>& p, int64_t r, int lane, T value, int64_t index) {
  T* values = p.value + r * p.k;
  int64_t* indices = p.index + r * p.k;
  const int64_t last = p.k - 1;
  const bool takes = last >= 1 && comes_before(value, index, values[last], indices[last]);
  __syncwarp(kAllLanes);
  if (!takes) return false;
  // From the end, 32 at a time: whoever comes after the candidate moves up by one.
  int64_t place = 1;
  for (int64_t high = last; high >= 1; high -= kWarpLanes) {  // entries high - 32 to high - 1 move to high - 31 to high
    const int64_t n = high - 1 - lane;
    const bool moves = n >= 1 && comes_before(value, index, values[n], indices[n]);
    const T moved_value = moves ? values[n] : T(0);
    const int64_t moved_index = moves ? indices[n] : 0;
    const unsigned moving = __ballot_sync(kAllLanes, moves);
    if (moves) {
      values[n + 1] = moved_value;
      indices[n + 1] = moved_index;
    }
    __syncwarp(kAllLanes);
    if (moving != kAllLanes) {  // the list is sorted, so the first lanes move, the rest stay
      place = high - __popc(moving);
      break;
    }
  }
  if (lane == 0) {
    values[place] = value;
    indices[place] = index;
  }
  __syncwarp(kAllLanes);
  return true;
}

// The bits that any lane has, in every lane: one instruction from sm_80 on.
__device__ inline unsigned warp_or(unsigned bits) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 800
  return fold_warp_all(bits, [](unsigned a, unsigned b) { return a | b; });
#else
  return __reduce_or_sync(kAllLanes, bits);
#endif
}

template <class T>
__device__ void place_itself(const KnnParams<T>& p, int64_t r, int lane) {
  const int64_t row = row_number(p, r), diagonal = row - p.first_column;
  if (lane == 0 && diagonal >= 0 && diagonal < p.width) {
    p.value[r * p.k] = entry(p, r, diagonal);
    p.index[r * p.k] = row;
  }
  __syncwarp(kAllLanes);
}

// Which of the lane's similarities, column `first` + 32 u of the row, are not below `last`, as bits u. Others may be among them.
template <class T>
__device__ unsigned look_along(const KnnParams<T>& p, int64_t r, int64_t first, T last) {
  const T* values = p.block + r * p.row_stride + first;
  T seen[kKnnAhead];
  if (first + (kKnnAhead - 1) * kWarpLanes < p.width) {
    for (int u = 0; u < kKnnAhead; ++u) seen[u] = values[u * kWarpLanes];
    if (p.penalty != nullptr) {
      for (int u = 0; u < kKnnAhead; ++u) seen[u] -= p.penalty[first + u * kWarpLanes];
    }
  } else {
    for (int u = 0; u < kKnnAhead; ++u) {
      const int64_t c = first + u * kWarpLanes;
      seen[u] = c < p.width ? entry(p, r, c) : -std::numeric_limits<T>::infinity();
    }
  }
  unsigned found = 0;
  for (int u = 0; u < kKnnAhead; ++u) found |= static_cast<unsigned>(!(seen[u] < last)) << u;
  return found;
}

template <class T>
__global__ void __launch_bounds__(kThreads) knn_update_kernel(KnnParams<T> p) {
  const int lane = static_cast<int>(threadIdx.x % kWarpLanes);
  const int64_t warps = static_cast<int64_t>(gridDim.x) * blockDim.x / kWarpLanes;
  for (int64_t r = (static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x) / kWarpLanes; r < p.height; r += warps) {
    const int64_t row = row_number(p, r);
    place_itself(p, r, lane);
    if (p.k == 1) continue;
    T last = p.value[r * p.k + p.k - 1];
    for (int64_t first = 0; first < p.width; first += kKnnAhead * kWarpLanes) {
      unsigned strips = look_along(p, r, first + lane, last);
      if (!__any_sync(kAllLanes, strips != 0)) continue;
      for (strips = warp_or(strips); strips != 0; strips &= strips - 1) {
        const int64_t begin = first + (__ffs(static_cast<int>(strips)) - 1) * kWarpLanes, c = begin + lane;
        const T similarity = c < p.width ? entry(p, r, c) : T(0);
        unsigned left = __ballot_sync(kAllLanes, c < p.width && !(similarity < last));
        if (left == 0) continue;
        for (; left != 0; left &= left - 1) {
          const int source = __ffs(static_cast<int>(left)) - 1;
          const T value = __shfl_sync(kAllLanes, similarity, source);
          offer(p, row, p.first_column + begin + source, value,
                [&](T candidate, int64_t index) { return warp_insert(p, r, lane, candidate, index); });
        }
        last = p.value[r * p.k + p.k - 1];
        __syncwarp(kAllLanes);
      }
    }
  }
}

// The lane's row in each of the warp's columns of a round, anything where there is none.
template <class T>
__device__ void look_across(const KnnParams<T>& p, int64_t r, int64_t first, T (&seen)[kKnnAhead]) {
  if (r >= p.height || first >= p.width) return;
  const T* values = p.block + r + first * p.column_stride;
  const int64_t step = p.column_stride * kTurnWarps;
  const int there = static_cast<int>(minimum<int64_t>((p.width - first + kTurnWarps - 1) / kTurnWarps, kKnnAhead));
  for (int u = 0; u < kKnnAhead; ++u, values += step) {
    if (u < there) seen[u] = *values;
  }
  if (p.penalty == nullptr) return;
  for (int u = 0; u < kKnnAhead; ++u) {
    if (u < there) seen[u] -= p.penalty[first + u * kTurnWarps];
  }
}

// Offers row r the columns of a round that have its bit.
template <class T>
__device__ void offer_round(const KnnParams<T>& p, int64_t r, int bit, int lane, int64_t first, const unsigned* passing) {
  const int64_t row = row_number(p, r);
  for (int part = 0; part < kTurnColumns; part += kWarpLanes) {
    unsigned left = __ballot_sync(kAllLanes, (passing[part + lane] >> bit) & 1u);
    for (; left != 0; left &= left - 1) {
      const int64_t c = first + part + __ffs(static_cast<int>(left)) - 1;
      offer(p, row, p.first_column + c, entry(p, r, c),
            [&](T candidate, int64_t index) { return warp_insert(p, r, lane, candidate, index); });
    }
  }
}

template <class T>
__global__ void __launch_bounds__(kTurnWarps* kWarpLanes, 2) knn_update_columns_kernel(KnnParams<T> p) {
  __shared__ unsigned passing[kTurnColumns];  // of each column of a round: the rows, as bits, whose lists it may enter
  __shared__ T last[kWarpLanes];
  const int lane = static_cast<int>(threadIdx.x % kWarpLanes), warp = static_cast<int>(threadIdx.x / kWarpLanes);
  for (int64_t from = int64_t{blockIdx.x} * kWarpLanes; from < p.height; from += int64_t{gridDim.x} * kWarpLanes) {
    const int64_t rows = minimum<int64_t>(kWarpLanes, p.height - from);
    T next[kKnnAhead] = {};
    look_across(p, from + lane, warp, next);
    for (int n = warp; n < rows; n += kTurnWarps) {
      place_itself(p, from + n, lane);
      if (lane == 0) last[n] = p.value[(from + n) * p.k + p.k - 1];
    }
    for (int64_t first = 0; first < p.width && p.k > 1; first += kTurnColumns) {
      __syncthreads();  // last is there, passing is read
      const T least = lane < rows ? last[lane] : T(0);
      bool any = false;
      for (int u = 0; u < kKnnAhead; ++u) {
        const bool is_there = lane < rows && first + warp + u * kTurnWarps < p.width;
        const unsigned mask = __ballot_sync(kAllLanes, is_there && !(next[u] < least));
        if (lane == 0) passing[warp + u * kTurnWarps] = mask;
        any = any || mask != 0;
      }
      look_across(p, from + lane, first + kTurnColumns + warp, next);  // under way over the barrier
      if (!__syncthreads_or(any)) continue;
      for (int n = warp; n < rows; n += kTurnWarps) {
        offer_round(p, from + n, n, lane, first, passing);
        if (lane == 0) last[n] = p.value[(from + n) * p.k + p.k - 1];
      }
    }
    __syncthreads();  // last and passing are the next rows'
  }
}

template <class T>
void launch_knn_update(const KnnParams<T>& p, GclStream stream) {
  if (p.height == 0 || p.width == 0) return;
  if (p.column_stride == 1) {
    GCL_LAUNCH((knn_update_kernel<T>), blocks_for(p.height * kWarpLanes), kThreads, 0, stream, p);
  } else {
    const int64_t blocks = capped_blocks((p.height + kWarpLanes - 1) / kWarpLanes);
    GCL_LAUNCH((knn_update_columns_kernel<T>), blocks, kTurnWarps * kWarpLanes, 0, stream, p);
  }
}

}  // namespace gcl
