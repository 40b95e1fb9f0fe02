// CUDA kernel of ranking_scores: a block for each query. Its matches go by in tiles; every thread walks over its share of the
// row of distances once for a tile and counts, for each match of the tile, the images that come before it, whoever they show.
// Those that are ignored are few and known (rows of `order`): they are taken off afterwards. So a sweep reads distances alone.
#pragma once

#include <limits>

#include "common/warp_fold.cuh"
#include "ranking/ranking.h"
#include "ranking/ranking_math.h"

namespace gcl {

constexpr int kRankThreads = 256;
constexpr int kRankWarps = kRankThreads / 32;
constexpr int kRankTile = 32;   // matches, one for each lane where a warp looks after them
constexpr int kRankGroup = 8;   // matches that are counted for, or not, together
constexpr int kRankAhead = 4;   // distances that a thread has under way

template <class T>
struct RankTile {
  T distance[kRankTile];  // of each match
  int row[kRankTile];
  T farthest;  // of them
  int size;
  int64_t next;  // in `order`, where the tile after this one begins
  int images[kRankTile];   // before each match
  int matches[kRankTile];  // before each match
  int64_t junk_begin, junk_end;  // in `order`
};

// The sum over a warp, in every lane: one instruction from sm_80 on.
__device__ inline int warp_sum(int value) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 800
  return fold_warp_all(value, Sum{});
#else
  return __reduce_add_sync(kAllLanes, value);
#endif
}

template <class T>
__device__ bool is_row(const RankingParams<T>& p, int64_t g) {
  return g >= 0 && g < p.num_gallery;
}

// The person at a place of `order`, the last of all where there is none.
template <class T>
__device__ int64_t person_at(const RankingParams<T>& p, int64_t place) {
  const int64_t g = p.order[place];
  return is_row(p, g) ? p.gallery_pids[g] : std::numeric_limits<int64_t>::max();
}

// The first place of `order` whose person is not below pid, by a whole warp: of 32 steps, the one that passes it.
template <class T>
__device__ int64_t place_of(const RankingParams<T>& p, int64_t pid, int lane) {
  int64_t low = 0, high = p.num_gallery;
  while (low < high) {
    const int64_t step = (high - low + 31) / 32, at = low + lane * step;
    const int below = __popc(__ballot_sync(kAllLanes, at < high && person_at(p, at) < pid));
    if (below == 0) return low;
    high = minimum(high, low + below * step);
    low += (below - 1) * step + 1;
  }
  return low;
}

// The next matches of query q, from order[tile->next] on, by a whole warp. Places without one hold what nothing comes before.
template <class T>
__device__ void fill_tile(const RankingParams<T>& p, int64_t q, int lane, RankTile<T>* tile) {
  const int64_t end = minimum(p.end[q], p.num_gallery);
  int64_t next = tile->next;
  int size = 0;
  tile->distance[lane] = -std::numeric_limits<T>::infinity();
  tile->row[lane] = -1;
  tile->images[lane] = tile->matches[lane] = 0;
  __syncwarp(kAllLanes);
  while (next < end && size < kRankTile) {
    const int64_t g = next + lane < end ? p.order[next + lane] : -1;
    const bool is_match = is_row(p, g) && !is_ignored(p.gallery_pids[g], p.gallery_camids[g], p.query_pids[q], p.query_camids[q]);
    const int place = size + __popc(__ballot_sync(kAllLanes, is_match) & ((1u << lane) - 1));
    if (is_match && place < kRankTile) {
      tile->distance[place] = p.distances[q * p.num_gallery + g];
      tile->row[place] = static_cast<int>(g);
    }
    const unsigned taken = __ballot_sync(kAllLanes, is_match && place < kRankTile);
    const unsigned beyond = __ballot_sync(kAllLanes, is_match && place >= kRankTile);
    size += __popc(taken);
    next += beyond != 0 ? __ffs(static_cast<int>(beyond)) - 1 : 32;
  }
  __syncwarp(kAllLanes);
  const T farthest = fold_warp_all(tile->distance[lane], Largest{});
  if (lane == 0) {
    tile->farthest = farthest;
    tile->size = size;
    tile->next = next;
  }
}

// Calls f(k) for the matches of a tile, and a few places after them, with every k known to the compiler.
template <class F>
__device__ __forceinline__ void each_match(int size, F&& f) {
  for (int group = 0; group < kRankTile; group += kRankGroup) {
    if (group < size) {
      for (int k = group; k < group + kRankGroup; ++k) f(k);
    }
  }
}

// Adds to images[k] how many of this thread's images come before match k.
template <class T>
__device__ __forceinline__ void count_images(const RankingParams<T>& p, const T* distance, const RankTile<T>& tile,
                                             int (&images)[kRankTile]) {
  const int size = tile.size;
  const T farthest = tile.farthest;
  for (int64_t first = threadIdx.x; first - threadIdx.x < p.num_gallery; first += kRankThreads * kRankAhead) {
    T d[kRankAhead];
    bool counts = false, is_tied = false;
    for (int j = 0; j < kRankAhead; ++j) {
      const int64_t g = first + j * kRankThreads;
      d[j] = g < p.num_gallery ? distance[g] : std::numeric_limits<T>::infinity();
    }
    for (int j = 0; j < kRankAhead; ++j) counts = counts || d[j] <= farthest;
    if (!__any_sync(kAllLanes, counts)) continue;
    each_match(size, [&](int k) {
      const T match = tile.distance[k];
      for (int j = 0; j < kRankAhead; ++j) {
        images[k] += d[j] < match;
        is_tied = is_tied || d[j] == match;
      }
    });
    if (!is_tied) continue;  // most often it is the match itself
    each_match(size, [&](int k) {
      const T match = tile.distance[k];
      const int row = tile.row[k];
      for (int j = 0; j < kRankAhead; ++j) images[k] += d[j] == match && first + j * kRankThreads < row;
    });
  }
}

// Takes the ignored images off again and counts the matches before each match.
template <class T>
__device__ __forceinline__ void count_persons(const RankingParams<T>& p, int64_t q, const T* distance, RankTile<T>* tile) {
  const int k = threadIdx.x % 32;
  const int64_t end = minimum(p.end[q], p.num_gallery);
  for (int64_t i = maximum<int64_t>(p.begin[q], 0) + threadIdx.x / 32; i < end && k < tile->size; i += kRankWarps) {
    const int64_t g = p.order[i];
    if (!is_row(p, g) || !ranks_before(distance[g], g, tile->distance[k], int64_t{tile->row[k]})) continue;
    const bool ignored = is_ignored(p.gallery_pids[g], p.gallery_camids[g], p.query_pids[q], p.query_camids[q]);
    atomicAdd(ignored ? &tile->images[k] : &tile->matches[k], ignored ? -1 : 1);
  }
}

template <class T>
__global__ void __launch_bounds__(kRankThreads) ranking_kernel(RankingParams<T> p) {
  __shared__ RankTile<T> tile;
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  if (warp == 0) {
    const bool has_junk = p.num_gallery > 0 && person_at(p, 0) <= kJunk;
    const int64_t begin = has_junk ? place_of(p, kJunk, lane) : 0, end = has_junk ? place_of(p, kJunk + 1, lane) : 0;
    if (lane == 0) tile.junk_begin = begin, tile.junk_end = end;
  }
  for (int64_t q = blockIdx.x; q < p.num_query; q += gridDim.x) {
    const T* distance = p.distances + q * p.num_gallery;
    Score score;  // of thread 0
    if (warp == 0) {
      if (lane == 0) tile.next = maximum<int64_t>(p.begin[q], 0);
      __syncwarp(kAllLanes);
      fill_tile(p, q, lane, &tile);
    }
    __syncthreads();
    while (tile.size > 0) {
      int images[kRankTile] = {};
      count_images(p, distance, tile, images);
      for (int64_t i = tile.junk_begin + threadIdx.x; i < tile.junk_end; i += kRankThreads) {
        const int64_t g = p.order[i];
        if (!is_row(p, g)) continue;
        const T d = distance[g];
        each_match(tile.size, [&](int k) { images[k] -= ranks_before(d, g, tile.distance[k], int64_t{tile.row[k]}); });
      }
      each_match(tile.size, [&](int k) {
        const int warp_images = warp_sum(images[k]);
        if (lane == 0) atomicAdd(&tile.images[k], warp_images);
      });
      count_persons(p, q, distance, &tile);
      __syncthreads();
      if (warp == 0) {
        for (int k = 0; k < tile.size && lane == 0; ++k) add_match(&score, 1 + tile.matches[k], 1 + tile.images[k]);
        __syncwarp(kAllLanes);
        fill_tile(p, q, lane, &tile);
      }
      __syncthreads();
    }
    if (threadIdx.x == 0) write_score(score, p.precision + q, p.places + 3 * q);
    __syncthreads();  // the tile is the next query's
  }
}

template <class T>
void launch_ranking(const RankingParams<T>& p, GclStream stream) {
  if (p.num_query == 0) return;
  GCL_LAUNCH(ranking_kernel<T>, capped_blocks(p.num_query), kRankThreads, 0, stream, p);
}

}  // namespace gcl
