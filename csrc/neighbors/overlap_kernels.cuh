// GPU kernels of the overlaps. A warp takes a row: its sums stand in a table in shared memory, found by a hash of the other row's
// number. First come the rows that can be near, then columns are taken one after the other with a barrier of the warp between:
// the holders of a column are different rows, so no sum has two writers, and terms are added in the CPU's order. What is near
// enough is sorted, which brings the CPU's order of entries. A row whose table gets crowded is left to a whole block with a
// larger one, the other rows in halves if need be.
#pragma once

#include "common/warp_fold.cuh"
#include "neighbors/ascending_search.h"
#include "neighbors/overlap_math.h"

namespace gcl {

template <class T>
constexpr int64_t kOverlapSlots = sizeof(T) == 4 ? 4096 : 2048;  // 32 KiB of shared memory, 24 for double
constexpr int kOverlapWarps = 4;  // of a block whose warps take rows,
constexpr int64_t kWarpShare = 4;  // each with this part of the slots: few rows fill half of it
constexpr int64_t kLeftBlocks = 2048;  // at most so many look for rows that are left
constexpr int kAhead = 2;  // holders of the next column that a lane has read
constexpr int kMaxProbes = 64;  // a key that finds no place in so many: the block's table is crowded,
constexpr int kWarpProbes = 16;  // or the warp's: one such row would be looked up long after all others are done
constexpr int32_t kNoRow = 0x7fffffff;  // sorts behind all others

template <class T>
__global__ void overlap_room_kernel(RoomParams<T> p) {
  GCL_EACH_ITEM(r, p.results) { p.room[r] = room_of_row(p, p.first + r * p.step); }
}

// Where `row` stands in the table, or -1 where no place was found. *is_new: nobody had put it there.
__device__ inline int place_of(int32_t* keys, int slots, int probes, int32_t row, bool* is_new) {
  unsigned at = (static_cast<unsigned>(row) * 2654435761u) >> 7;
  for (int probe = 0; probe < probes; ++probe, ++at) {
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
      const int slot = place_of(keys, slots, kMaxProbes, j, &is_new);
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

// Threads that share a table.
struct BlockTeam {
  __device__ int thread() const { return static_cast<int>(threadIdx.x); }
  __device__ int threads() const { return static_cast<int>(blockDim.x); }
  __device__ void sync() const { __syncthreads(); }
};
struct WarpTeam {
  __device__ int thread() const { return static_cast<int>(threadIdx.x) % kWarpLanes; }
  __device__ int threads() const { return kWarpLanes; }
  __device__ void sync() const { __syncwarp(kAllLanes); }
};

// All threads of the team: puts the first `size` of the table in the order of the keys. A bitonic network: pairs `apart` are
// put in order, up or down by the run of length `run` that they are in.
template <class Team, class T>
__device__ void sort_front(const Team& team, int size, T* sums, int32_t* keys) {
  const int thread = team.thread(), threads = team.threads();
  int width = 2;
  while (width < size) width *= 2;  // the table has as many slots
  for (int s = size + thread; s < width; s += threads) keys[s] = kNoRow;
  team.sync();
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
      team.sync();
    }
  }
}

// Where `row` stands in a warp's table that nobody writes to, or -1.
__device__ inline int found_at(const int32_t* keys, int slots, int32_t row) {
  unsigned at = (static_cast<unsigned>(row) * 2654435761u) >> 7;
  for (int probe = 0; probe < kWarpProbes; ++probe, ++at) {
    const int slot = static_cast<int>(at & static_cast<unsigned>(slots - 1));
    if (keys[slot] == row) return slot;
    if (keys[slot] == kNoRow) break;
  }
  return -1;
}

// One warp's table.
template <class T>
struct WarpTable {
  T* sums;
  int32_t* keys;
  int slots;

  __device__ void clear(int lane) const {
    for (int s = lane; s < slots; s += kWarpLanes) keys[s] = kNoRow, sums[s] = 0;
  }
  // False: the table is crowded.
  __device__ bool hold(int32_t j) const {
    bool is_new = false;
    return place_of(keys, slots, kWarpProbes, j, &is_new) >= 0;
  }
  __device__ void add(int32_t j, T value) const {
    const int slot = found_at(keys, slots, j);
    if (slot >= 0) sums[slot] += value;
  }
};

// A lane's first holders of a column, read before the column before is done with.
template <class T>
struct Ahead {
  int32_t row[kAhead];
  T value[kAhead];

  __device__ void read(const OverlapParams<T>& p, int64_t begin, int64_t end, int lane) {
#pragma unroll
    for (int n = 0; n < kAhead; ++n) {
      const int64_t h = begin + n * kWarpLanes + lane;
      row[n] = h < end ? p.holder_rows[h] : kNoRow;
      value[n] = h < end ? p.holder_values[h] : T(0);
    }
  }
};

// All lanes of the warp: a bound below which the values of entries [begin, end) are together less than `least`; one of the
// largest. What a row shares in those columns alone is too little.
template <class T>
__device__ T light_below(const T* values, int64_t begin, int64_t end, double least, int lane) {
  constexpr int kHalvings = 8;
  T low = 0, high = 0;
  for (int64_t e = begin + lane; e < end; e += kWarpLanes) high = maximum(high, values[e]);
  high = fold_warp_all(high, Largest{});
  for (int n = 0; n < kHalvings; ++n) {
    const T middle = (low + high) / 2;
    double light = 0;
    for (int64_t e = begin + lane; e < end; e += kWarpLanes) {
      if (values[e] < middle) light += static_cast<double>(values[e]);
    }
    light = fold_warp_all(light, Sum{});
    if (light + 1e-9 < least) low = middle;  // with room for rounding
    else high = middle;
  }
  return low;
}

// All lanes of the warp: puts row i, unless it is empty, and the rows that share one of its heavy columns into the table; whether
// it held them.
template <class T>
__device__ bool hold_by_warp(const OverlapParams<T>& p, int64_t i, const WarpTable<T>& table, int lane) {
  const int64_t begin = p.start[i], end = p.start[i + 1];
  const T bound = light_below(p.values, begin, end, least_shared<T>(p.max_distance, end - begin), lane);
  table.clear(lane);
  __syncwarp(kAllLanes);
  bool held = lane > 0 || begin == end || table.hold(static_cast<int32_t>(i));
  for (int64_t first = begin; first < end; first += kWarpLanes) {
    int64_t my_begin = 0, my_end = 0;
    if (first + lane < end && !(p.values[first + lane] < bound)) {  // a lane looks a column up
      const int64_t n = p.columns[first + lane];
      my_begin = p.holder_start[n], my_end = p.holder_start[n + 1];
    }
    for (unsigned heavy = __ballot_sync(kAllLanes, my_begin < my_end); heavy != 0; heavy &= heavy - 1) {
      const int c = __ffs(static_cast<int>(heavy)) - 1;
      const int64_t column_begin = __shfl_sync(kAllLanes, my_begin, c), column_end = __shfl_sync(kAllLanes, my_end, c);
      for (int64_t h = column_begin + lane; h < column_end && held; h += kWarpLanes) held = table.hold(p.holder_rows[h]);
    }
  }
  __syncwarp(kAllLanes);
  return __all_sync(kAllLanes, held) != 0;
}

// All lanes of the warp: sums up what row i shares with the rows in the table.
template <class T>
__device__ void sum_by_warp(const OverlapParams<T>& p, int64_t i, const WarpTable<T>& table, int lane) {
  const int64_t begin = p.start[i], end = p.start[i + 1];
  for (int64_t first = begin; first < end; first += kWarpLanes) {
    int64_t my_begin = 0, my_end = 0;
    T my_value = 0;
    if (first + lane < end) {
      const int64_t n = p.columns[first + lane];
      my_begin = p.holder_start[n], my_end = p.holder_start[n + 1], my_value = p.values[first + lane];
    }
    const int num = static_cast<int>(minimum<int64_t>(kWarpLanes, end - first));
    Ahead<T> now, next;
    next.read(p, __shfl_sync(kAllLanes, my_begin, 0), __shfl_sync(kAllLanes, my_end, 0), lane);
    for (int c = 0; c < num; ++c) {
      const int64_t column_begin = __shfl_sync(kAllLanes, my_begin, c), column_end = __shfl_sync(kAllLanes, my_end, c);
      const int after = minimum(c + 1, num - 1);
      const int64_t next_begin = __shfl_sync(kAllLanes, my_begin, after), next_end = __shfl_sync(kAllLanes, my_end, after);
      const T value = __shfl_sync(kAllLanes, my_value, c);
      now = next;
      if (c + 1 < num) next.read(p, next_begin, next_end, lane);
#pragma unroll
      for (int n = 0; n < kAhead; ++n) {
        if (now.row[n] != kNoRow) table.add(now.row[n], minimum(value, now.value[n]));
      }
      for (int64_t h = column_begin + kAhead * kWarpLanes + lane; h < column_end; h += kWarpLanes) {
        table.add(p.holder_rows[h], minimum(value, p.holder_values[h]));
      }
      __syncwarp(kAllLanes);
    }
  }
}

// All lanes of the warp: near_to_front for its table, in the order of the slots.
template <class T>
__device__ int near_to_front_by_warp(const OverlapParams<T>& p, int64_t i, const WarpTable<T>& table, int lane) {
  const T farthest = static_cast<T>(p.max_distance);
  int num_near = 0;
  for (int s = lane; s < table.slots; s += kWarpLanes) {  // slots: a multiple of 32
    const int32_t j = table.keys[s];
    T distance = 0;
    if (j != kNoRow && j != i) distance = jaccard_of(table.sums[s]);
    const bool near = j != kNoRow && distance <= farthest;
    const unsigned all_near = __ballot_sync(kAllLanes, near);
    __syncwarp(kAllLanes);
    if (near) {
      const int at = num_near + __popc(all_near & ((1u << lane) - 1));
      table.keys[at] = j;
      table.sums[at] = distance;
    }
    num_near += __popc(all_near);
  }
  __syncwarp(kAllLanes);
  return num_near;
}

GCL_HD int warp_slots(int64_t slots) { return static_cast<int>(maximum<int64_t>(slots / kWarpShare, kWarpLanes)); }

template <class T>
__global__ void overlap_warp_kernel(OverlapParams<T> p) {
  GCL_DYNAMIC_SHARED(T, shared);  // sums of each warp, behind them the keys of each
  const int lane = threadIdx.x % kWarpLanes, warp = threadIdx.x / kWarpLanes, slots = warp_slots(p.slots);
  int32_t* keys = reinterpret_cast<int32_t*>(shared + kOverlapWarps * slots);
  const WarpTable<T> table{shared + warp * slots, keys + warp * slots, slots};
  GCL_EACH_WARP(r, p.results) {
    const int64_t i = p.first + r * p.step, begin = p.room[r], end = p.room[r + 1];
    const bool held = hold_by_warp(p, i, table, lane);
    int near = 0;
    if (held) {
      sum_by_warp(p, i, table, lane);
      near = near_to_front_by_warp(p, i, table, lane);
      sort_front(WarpTeam{}, near, table.sums, table.keys);
    }
    for (int64_t e = lane; e < near && begin + e < end; e += kWarpLanes) {
      p.indices[begin + e] = table.keys[e];
      p.distance[begin + e] = table.sums[e];
    }
    if (lane == 0) p.count[r] = held ? near : -1;
    __syncwarp(kAllLanes);
  }
}

// The rows that were left.
template <class T>
__global__ void overlap_kernel(OverlapParams<T> p) {
  GCL_DYNAMIC_SHARED(T, sums);  // [slots], behind them the keys [slots]
  int32_t* keys = reinterpret_cast<int32_t*>(sums + p.slots);
  for (int64_t r = blockIdx.x; r < p.results; r += gridDim.x) {
    const int64_t i = p.first + r * p.step, begin = p.room[r], end = p.room[r + 1];
    if (p.count[r] >= 0) continue;  // all threads see the same
    int64_t done = 0, low = 0, span = p.rows;
    const int slots = static_cast<int>(p.slots);
    while (low < p.rows) {
      const int64_t high = minimum(low + span, p.rows);
      if (!sum_overlaps(p, i, low, high, slots, sums, keys)) {  // all threads see the same
        span = maximum<int64_t>(span / 2, kMaxProbes);  // so few never crowd a table
        continue;
      }
      const int near = near_to_front(p, i, slots, sums, keys);
      sort_front(BlockTeam{}, near, sums, keys);
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
  constexpr size_t kSlot = sizeof(T) + sizeof(int32_t);
  const int64_t warps = (p.results + kOverlapWarps - 1) / kOverlapWarps;
  GCL_LAUNCH((overlap_warp_kernel<T>), capped_blocks(warps), kOverlapWarps * kWarpLanes,
             kOverlapWarps * warp_slots(p.slots) * kSlot, stream, p);
  GCL_LAUNCH((overlap_kernel<T>), capped_blocks(minimum(p.results, kLeftBlocks)), kThreads, p.slots * kSlot, stream, p);
}

}  // namespace gcl
