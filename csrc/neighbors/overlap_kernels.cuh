// GPU kernels of the overlaps: one block per row. Its sums stand in a table in shared memory, found by a hash of the other row's
// number. Columns are taken one after the other with a barrier between: the holders of a column are different rows, so no sum
// has two writers, and terms are added in the CPU's order. A table that gets crowded is left for one of twice the size, the
// largest one for half of the other rows at a time. What is near enough is sorted, which brings the CPU's order of entries.
#pragma once

#include "common/launch.cuh"
#include "neighbors/ascending_search.h"
#include "neighbors/overlap_math.h"

namespace gcl {

template <class T>
constexpr int64_t kOverlapSlots = sizeof(T) == 4 ? 4096 : 2048;  // 32 KiB of shared memory, 24 for double
constexpr int64_t kFirstSlots = 512;                             // of the first try
constexpr int kMaxProbes = 64;                                   // a key that finds no place in so many: the table is crowded
constexpr int32_t kNoRow = 0x7fffffff;                           // sorts behind all others

template <class T>
__global__ void overlap_room_kernel(RoomParams<T> p) {
  GCL_EACH_ITEM(r, p.results) { p.room[r] = room_of_row(p, p.first + r * p.step); }
}

// Where `row` stands in the table, or -1 where no place was found. *is_new: nobody had put it there.
__device__ inline int place_of(int32_t* keys, int slots, int32_t row, bool* is_new) {
  unsigned at = (static_cast<unsigned>(row) * 2654435761u) >> 7;
  for (int probe = 0; probe < kMaxProbes; ++probe, ++at) {
    const int slot = static_cast<int>(at & static_cast<unsigned>(slots - 1));
    const int32_t there = atomicCAS(keys + slot, kNoRow, row);
    *is_new = there == kNoRow;
    if (*is_new || there == row) return slot;
  }
  return -1;
}

// All threads of the block; whether the table held what row i shares with rows [low, high).
template <class T>
__device__ bool sum_overlaps(const OverlapParams<T>& p, int64_t i, int64_t low, int64_t high, int slots, T* sums, int32_t* keys) {
  const int64_t thread = threadIdx.x, threads = blockDim.x;
  for (int64_t s = thread; s < slots; s += threads) keys[s] = kNoRow;
  __syncthreads();
  for (int64_t e = p.start[i]; e < p.start[i + 1]; ++e) {
    const int64_t n = p.columns[e], end = p.holder_start[n + 1];
    const T value = p.values[e];
    int64_t h = p.holder_start[n];
    if (low > 0) h = first_at_least(p.holder_rows, h, end, low);
    bool crowded = false;
    for (h += thread; h < end && !crowded; h += threads) {
      const int32_t j = p.holder_rows[h];
      if (j >= high) break;
      bool is_new = false;
      const int slot = place_of(keys, slots, j, &is_new);
      crowded = slot < 0;
      if (!crowded) sums[slot] = (is_new ? T(0) : sums[slot]) + minimum(value, p.holder_values[h]);
    }
    if (__syncthreads_or(crowded)) return false;
  }
  return true;
}

// All threads of the block: the rows within max_distance come to the front of the table with their distances, in any order.
// Returns how many there are. A run of slots is read before any of it is written, and what is written lies before its end.
template <class T>
__device__ int near_to_front(const OverlapParams<T>& p, int64_t i, int slots, T* sums, int32_t* keys) {
  __shared__ int num_near;
  const int thread = static_cast<int>(threadIdx.x), threads = static_cast<int>(blockDim.x);
  const T farthest = static_cast<T>(p.max_distance);
  if (thread == 0) num_near = 0;
  for (int s = thread; s - thread < slots; s += threads) {
    const int32_t j = s < slots ? keys[s] : kNoRow;
    T distance = 0;
    if (j != kNoRow && j != i) distance = jaccard_of(sums[s]);
    __syncthreads();
    if (j == kNoRow || !(distance <= farthest)) continue;
    const int at = atomicAdd(&num_near, 1);
    keys[at] = j;
    sums[at] = distance;
  }
  __syncthreads();
  return num_near;
}

// All threads of the block: puts the first `size` of the table in the order of the keys. A bitonic network: pairs `apart` are
// put in order, up or down by the run of length `run` that they are in.
template <class T>
__device__ void sort_front(int size, T* sums, int32_t* keys) {
  const int thread = static_cast<int>(threadIdx.x), threads = static_cast<int>(blockDim.x);
  int width = 2;
  while (width < size) width *= 2;  // the table has as many slots
  for (int s = size + thread; s < width; s += threads) keys[s] = kNoRow;
  __syncthreads();
  for (int run = 2; run <= width; run *= 2) {
    for (int apart = run / 2; apart > 0; apart /= 2) {
      for (int n = thread; n < width / 2; n += threads) {
        const int a = 2 * n - (n & (apart - 1)), b = a + apart;
        const bool up = (a & run) == 0;
        const int32_t key_a = keys[a], key_b = keys[b];
        if ((key_a > key_b) == up && key_a != key_b) {
          const T sum_a = sums[a], sum_b = sums[b];
          keys[a] = key_b, keys[b] = key_a;
          sums[a] = sum_b, sums[b] = sum_a;
        }
      }
      __syncthreads();
    }
  }
}

template <class T>
__global__ void overlap_kernel(OverlapParams<T> p) {
  GCL_DYNAMIC_SHARED(T, sums);  // [slots], behind them the keys [slots]
  int32_t* keys = reinterpret_cast<int32_t*>(sums + p.slots);
  for (int64_t r = blockIdx.x; r < p.results; r += gridDim.x) {
    const int64_t i = p.first + r * p.step, begin = p.room[r], end = p.room[r + 1];
    int64_t done = 0, low = 0, span = p.rows;
    int slots = static_cast<int>(minimum(p.slots, kFirstSlots));
    while (low < p.rows) {
      const int64_t high = minimum(low + span, p.rows);
      if (!sum_overlaps(p, i, low, high, slots, sums, keys)) {  // all threads see the same
        if (slots < p.slots) slots *= 2;
        else span = maximum<int64_t>(span / 2, kMaxProbes);  // so few never crowd a table
        continue;
      }
      const int near = near_to_front(p, i, slots, sums, keys);
      sort_front(near, sums, keys);
      for (int64_t e = threadIdx.x; e < near && begin + done + e < end; e += blockDim.x) {
        p.indices[begin + done + e] = keys[e];
        p.distance[begin + done + e] = sums[e];
      }
      done += near;
      low = high;
      __syncthreads();
    }
    if (threadIdx.x == 0) p.count[r] = done;
  }
}

template <class T>
void launch_overlap_room(const RoomParams<T>& p, GclStream stream) {
  if (p.results > 0) GCL_LAUNCH((overlap_room_kernel<T>), blocks_for(p.results), kThreads, 0, stream, p);
}

template <class T>
void launch_overlaps(const OverlapParams<T>& p, GclStream stream) {
  if (p.results == 0) return;
  const size_t bytes = static_cast<size_t>(p.slots) * (sizeof(T) + sizeof(int32_t));
  GCL_LAUNCH((overlap_kernel<T>), capped_blocks(p.results), kThreads, bytes, stream, p);
}

}  // namespace gcl
