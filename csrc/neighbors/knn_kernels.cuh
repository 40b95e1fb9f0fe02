// GPU kernels of the running selection. Nearly all similarities are below the last one kept, so what counts is to have many
// loads under way: a lane asks for all of a strip before it looks at any. The few others are put into the sorted list by a
// whole warp, one after the other; the warp holds the list in registers, as each place it takes hangs on the one before.
//   by rows     a warp per row
//   by columns  a block per 32 rows, whose warps read whole lines across them; each warp then serves the lists of its own rows
#pragma once

#include "common/warp_fold.cuh"
#include "neighbors/knn_math.h"

namespace gcl {

constexpr int kKnnAhead = 16;  // similarities that a lane has under way
constexpr int kTurnWarps = 8;  // of a block of 32 rows, where the similarities lie by columns
constexpr int kTurnColumns = kTurnWarps * kKnnAhead;  // that such a block looks at in a round
constexpr unsigned kRowsOfWarp = 0x01010101u;         // as bits, of the first of its warps: every kTurnWarps-th

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

// The list of a row where a warp holds it: entry n lies in lane and slot (n + free) % 32, (n + free) / 32, so that the last is
// the last lane's. No slot: lists too long for registers stay in memory.
template <class T, int kSlots>
class RowList {
 public:
  __device__ RowList(const KnnParams<T>& p, int64_t r, int lane)
      : p_(p), first_(r * p.k - free(p)), lane_(lane), begin_(free(p) + 1) {
#pragma unroll
    for (int s = 0; s < kSlots; ++s) {  // what stands before the list never moves
      const int at = s * kWarpLanes + lane;
      value_[s] = at < begin_ ? std::numeric_limits<T>::infinity() : p.value[first_ + at];
      index_[s] = at < begin_ ? -1 : p.index[first_ + at];
    }
  }
  __device__ T last() const { return __shfl_sync(kAllLanes, value_[kSlots - 1], kWarpLanes - 1); }
  // All lanes call it with the same arguments. Whether the list took the candidate: whoever comes after it moves up by one.
  __device__ bool insert(T value, int64_t index) {
    unsigned moving = __ballot_sync(kAllLanes, comes_before(value, index, value_[kSlots - 1], index_[kSlots - 1]));
    if (moving >> (kWarpLanes - 1) == 0) return false;
    const int before = (lane_ + kWarpLanes - 1) % kWarpLanes;
    T value_before = __shfl_sync(kAllLanes, value_[kSlots - 1], before);
    int64_t index_before = __shfl_sync(kAllLanes, index_[kSlots - 1], before);
#pragma unroll
    for (int s = kSlots - 1; s >= 0; --s) {
      unsigned below = 0;  // of the slot before
      T next_value = 0;
      int64_t next_index = 0;
      if (s > 0) {
        below = __ballot_sync(kAllLanes, comes_before(value, index, value_[s - 1], index_[s - 1]));
        next_value = __shfl_sync(kAllLanes, value_[s - 1], before);
        next_index = __shfl_sync(kAllLanes, index_[s - 1], before);
      }
      const bool is_first = lane_ == 0;
      const bool follows = is_first ? below >> (kWarpLanes - 1) != 0 : (moving >> before & 1u) != 0;
      if ((moving >> lane_ & 1u) != 0) {
        value_[s] = !follows ? value : is_first ? next_value : value_before;
        index_[s] = !follows ? index : is_first ? next_index : index_before;
      }
      moving = below, value_before = next_value, index_before = next_index;
      if (moving == 0) break;
    }
    return true;
  }
  __device__ void store() const {
#pragma unroll
    for (int s = 0; s < kSlots; ++s) {
      const int at = s * kWarpLanes + lane_;
      if (at < begin_) continue;
      p_.value[first_ + at] = value_[s];
      p_.index[first_ + at] = index_[s];
    }
  }

 private:
  __device__ static int free(const KnnParams<T>& p) { return kSlots * kWarpLanes - static_cast<int>(p.k); }

  const KnnParams<T>& p_;
  const int64_t first_;
  const int lane_, begin_;
  T value_[kSlots];
  int64_t index_[kSlots];
};

template <class T>
class RowList<T, 0> {
 public:
  __device__ RowList(const KnnParams<T>& p, int64_t r, int lane) : p_(p), r_(r), lane_(lane) {}
  __device__ T last() const { return p_.value[r_ * p_.k + p_.k - 1]; }
  __device__ bool insert(T value, int64_t index) { return warp_insert(p_, r_, lane_, value, index); }
  __device__ void store() const {}

 private:
  const KnnParams<T>& p_;
  const int64_t r_;
  const int lane_;
};

template <class T, int kSlots>
__global__ void GCL_LAUNCH_BOUNDS(kThreads, sizeof(T) == 8 ? 4 : 6) knn_update_kernel(KnnParams<T> p) {
  const int lane = static_cast<int>(threadIdx.x % kWarpLanes);
  const int64_t warps = static_cast<int64_t>(gridDim.x) * blockDim.x / kWarpLanes;
  for (int64_t r = (static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x) / kWarpLanes; r < p.height; r += warps) {
    const int64_t row = row_number(p, r);
    place_itself(p, r, lane);
    if (p.k == 1) continue;
    RowList<T, kSlots> list(p, r, lane);
    T last = list.last();
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
                [&](T candidate, int64_t index) { return list.insert(candidate, index); });
        }
        last = list.last();
        __syncwarp(kAllLanes);
      }
    }
    list.store();
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

// Offers row r the columns of a round that have its bit. Returns the last similarity of the row's list.
template <class T, int kSlots>
__device__ T offer_round(const KnnParams<T>& p, int64_t r, int bit, int lane, int64_t first, const unsigned* passing) {
  const int64_t row = row_number(p, r);
  RowList<T, kSlots> list(p, r, lane);
  for (int part = 0; part < kTurnColumns; part += kWarpLanes) {
    unsigned left = __ballot_sync(kAllLanes, (passing[part + lane] >> bit) & 1u);
    for (; left != 0; left &= left - 1) {
      const int64_t c = first + part + __ffs(static_cast<int>(left)) - 1;
      offer(p, row, p.first_column + c, entry(p, r, c),
            [&](T candidate, int64_t index) { return list.insert(candidate, index); });
    }
  }
  list.store();
  return list.last();
}

template <class T, int kSlots>
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
      unsigned with_any = 0;
      for (int part = 0; part < kTurnColumns; part += kWarpLanes) with_any |= passing[part + lane];
      with_any = warp_or(with_any) & (kRowsOfWarp << warp);
      for (; with_any != 0; with_any &= with_any - 1) {
        const int n = __ffs(static_cast<int>(with_any)) - 1;
        const T least_kept = offer_round<T, kSlots>(p, from + n, n, lane, first, passing);
        if (lane == 0) last[n] = least_kept;
      }
    }
    __syncthreads();  // last and passing are the next rows'
  }
}

template <class T, int kSlots>
void launch_knn_update(const KnnParams<T>& p, GclStream stream) {
  if (p.column_stride == 1) {
    GCL_LAUNCH((knn_update_kernel<T, kSlots>), blocks_for(p.height * kWarpLanes), kThreads, 0, stream, p);
  } else {
    const int64_t blocks = capped_blocks((p.height + kWarpLanes - 1) / kWarpLanes);
    GCL_LAUNCH((knn_update_columns_kernel<T, kSlots>), blocks, kTurnWarps * kWarpLanes, 0, stream, p);
  }
}

template <class T>
void launch_knn_update(const KnnParams<T>& p, GclStream stream) {
  if (p.height == 0 || p.width == 0) return;
  if (p.k <= kWarpLanes) launch_knn_update<T, 1>(p, stream);
  else if (p.k <= 2 * kWarpLanes) launch_knn_update<T, 2>(p, stream);
  else if (p.k <= 4 * kWarpLanes) launch_knn_update<T, 4>(p, stream);
  else launch_knn_update<T, 0>(p, stream);
}

}  // namespace gcl
