// GPU kernels of the walk. How far it goes only the GPU knows, so rounds of 16, 32, 64 ... neighbours are launched for all rows
// that there are, each of a few blocks, which end at once where no walk has come so far.
#pragma once

#include "common/launch.cuh"
#include "neighbors/walk_math.h"

namespace gcl {

constexpr int kFirstRound = 16;   // neighbours
constexpr int kTilePlaces = 16;   // neighbours of one row that asks
constexpr int kTileRows = 64;     // rows that they are compared with: the first is the row that asks
constexpr int kTileThreads = 128;
constexpr int kPlacesOfThread = 2, kRowsOfThread = 4;  // those i * kPlacesApart and i * kRowsApart from its first ones
constexpr int kPlacesApart = kTilePlaces / kPlacesOfThread, kRowsApart = kTileRows / kRowsOfThread;
static_assert(kPlacesApart * kRowsApart == kTileThreads);
constexpr int64_t kWalkBlocks = 64;  // of one row that asks

// Places [begin, end) of a round; those of row b end at its own last.
struct WalkRound {
  int64_t begin, end;
};
template <class T>
__device__ int64_t last_place(const WalkParams<T>& p, int64_t b, const WalkRound& round) {
  return minimum(round.end, minimum(p.near[b], p.total));
}

template <class T>
__global__ void walk_begin_kernel(WalkParams<T> p) {
  GCL_EACH_ITEM(b, p.batch) {
    p.steps[b] = 0;
    p.walking[b] = names_one(p, p.index[b]) && minimum(p.near[b], p.total) > 1;
  }
}

// Adds to p.before what tile (`place`, `first`) says: neighbours place to place + 15, rows first to first + 62.
template <class T>
__device__ void count_tile(const WalkParams<T>& p, int64_t b, int64_t place, int64_t last, int64_t first) {
  __shared__ T theirs[kTilePlaces][kWalkPart + 1];
  __shared__ T rows[kTileRows][kWalkPart + 1];
  __shared__ T own[kTilePlaces];
  __shared__ int32_t counted[kTilePlaces];
  const int t = static_cast<int>(threadIdx.x), first_place = t / kRowsApart, first_row = t % kRowsApart;
  const int64_t q = p.index[b], *order = p.order + b * p.total;
  const auto row_at = [&](int n) { return n == 0 ? q : first + n - 1; };  // of the tile
  const auto neighbour_at = [&](int m) { return place + m < last ? order[place + m] : int64_t{-1}; };
  if (t < kTilePlaces) counted[t] = 0;
  T sum[kPlacesOfThread][kRowsOfThread] = {};
  for (int64_t d0 = 0; d0 < p.dim; d0 += kWalkPart) {
    __syncthreads();
    for (int i = t; i < (kTilePlaces + kTileRows) * kWalkPart; i += kTileThreads) {
      const int line = i / kWalkPart, at = i % kWalkPart;
      const int64_t n = line < kTilePlaces ? neighbour_at(line) : row_at(line - kTilePlaces);
      const T value = names_one(p, n) && d0 + at < p.dim ? p.bank[n * p.dim + d0 + at] : T(0);
      if (line < kTilePlaces) theirs[line][at] = value;
      else rows[line - kTilePlaces][at] = value;
    }
    __syncthreads();
    T part[kPlacesOfThread][kRowsOfThread] = {};
    const int count = static_cast<int>(minimum<int64_t>(kWalkPart, p.dim - d0));
    for (int d = 0; d < count; ++d) {
      T row[kRowsOfThread];
      for (int r = 0; r < kRowsOfThread; ++r) row[r] = rows[first_row + r * kRowsApart][d];
      for (int m = 0; m < kPlacesOfThread; ++m) {
        const T value = theirs[first_place + m * kPlacesApart][d];
        for (int r = 0; r < kRowsOfThread; ++r) part[m][r] += value * row[r];
      }
    }
    for (int m = 0; m < kPlacesOfThread; ++m) {
      for (int r = 0; r < kRowsOfThread; ++r) sum[m][r] += part[m][r];
    }
  }
  for (int m = 0; m < kPlacesOfThread && first_row == 0; ++m) own[first_place + m * kPlacesApart] = sum[m][0];
  __syncthreads();
  for (int m = 0; m < kPlacesOfThread; ++m) {
    const int mine = first_place + m * kPlacesApart;
    const int64_t c = neighbour_at(mine);
    int32_t before = 0;
    for (int r = 0; r < kRowsOfThread; ++r) {
      const int at = first_row + r * kRowsApart;
      const int64_t n = row_at(at);
      before += at > 0 && n < p.total && n != c && n != q && comes_before(sum[m][r], n, own[mine], q);
    }
    if (before > 0) atomicAdd(&counted[mine], before);
  }
  __syncthreads();
  if (t < kTilePlaces && place + t < last && counted[t] > 0) atomicAdd(&p.before[b * p.total + place + t], counted[t]);
}

template <class T>
__global__ void __launch_bounds__(kTileThreads) walk_count_kernel(WalkParams<T> p, WalkRound round) {
  const int64_t across = (p.total + kTileRows - 2) / (kTileRows - 1);
  for (int64_t i = blockIdx.x; i < p.batch * kWalkBlocks; i += gridDim.x) {
    const int64_t b = i % p.batch;
    if (!p.walking[b]) continue;
    const int64_t last = last_place(p, b, round), tiles = (last - round.begin + kTilePlaces - 1) / kTilePlaces * across;
    for (int64_t n = i / p.batch; n < tiles; n += kWalkBlocks) {
      count_tile(p, b, round.begin + n / across * kTilePlaces, last, n % across * (kTileRows - 1));
    }
  }
}

// A warp takes a row that asks.
template <class T>
__global__ void walk_settle_kernel(WalkParams<T> p, WalkRound round) {
  const int lane = static_cast<int>(threadIdx.x % kWarpLanes);
  GCL_EACH_WARP(b, p.batch) {
    if (!p.walking[b]) continue;
    const int64_t last = last_place(p, b, round), reach = p.reach[b];
    int64_t place = round.begin;
    bool stopped = false;
    for (; place < last && !stopped; place += kWarpLanes) {
      const int64_t at = place + lane;
      const bool there = at < last;
      const bool held = there && names_one(p, p.order[b * p.total + at]) && is_held(p.before[b * p.total + at], reach);
      const unsigned missing = __ballot_sync(kAllLanes, there && !held);
      stopped = missing != 0;
      if (stopped) place += __ffs(static_cast<int>(missing)) - 1 - kWarpLanes;  // what the loop adds
    }
    __syncwarp(kAllLanes);
    if (lane != 0) continue;
    p.steps[b] = (stopped ? place : last) - 1;
    p.walking[b] = !stopped && last < minimum(p.near[b], p.total);
  }
}

template <class T>
void launch_walk(const WalkParams<T>& p, GclStream stream) {
  if (p.batch == 0) return;
  GCL_FILL_BYTES(p.before, 0, sizeof(int32_t) * p.batch * p.total, stream);
  GCL_LAUNCH((walk_begin_kernel<T>), blocks_for(p.batch), kThreads, 0, stream, p);
  for (WalkRound round{1, 1 + kFirstRound}; round.begin < p.total; round = {round.end, 3 * round.end - 2 * round.begin}) {
    GCL_LAUNCH((walk_count_kernel<T>), capped_blocks(p.batch * kWalkBlocks), kTileThreads, 0, stream, p, round);
    GCL_LAUNCH((walk_settle_kernel<T>), blocks_for(p.batch * kWarpLanes), kThreads, 0, stream, p, round);
  }
}

}  // namespace gcl
