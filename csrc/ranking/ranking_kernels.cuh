// CUDA kernel of ranking_scores: a block for each query. Its matches go by in tiles; every thread walks over its share of the
// gallery once for a tile and counts, for each match of the tile, the images and the matches that come before it.
#pragma once

#include <limits>

#include "common/launch.cuh"
#include "ranking/ranking.h"
#include "ranking/ranking_math.h"

namespace gcl {

constexpr int kRankTile = 16;
constexpr int kRankWarps = kThreads / 32;

template <class T>
struct RankTile {
  T distance[kRankTile];
  int64_t row[kRankTile];
  int size;
  int64_t next;  // in `order`, where the tile after this one begins
  int images[kRankWarps][kRankTile];   // before each match, by warp
  int matches[kRankWarps][kRankTile];
};

// The sum over a warp, in every lane: one instruction from sm_80 on.
__device__ inline int warp_sum(int value) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 800
  for (int offset = 16; offset > 0; offset /= 2) value += __shfl_xor_sync(kAllLanes, value, offset);
  return value;
#else
  return __reduce_add_sync(kAllLanes, value);
#endif
}

// The next matches of query q, from order[tile->next] on. Places without one hold what nothing comes before.
template <class T>
GCL_HD void fill_tile(const RankingParams<T>& p, int64_t q, RankTile<T>* tile) {
  const int64_t end = minimum(p.end[q], p.num_gallery);
  int size = 0;
  for (; tile->next < end && size < kRankTile; ++tile->next) {
    const int64_t g = p.order[tile->next];
    if (g < 0 || g >= p.num_gallery) continue;
    if (is_ignored(p.gallery_pids[g], p.gallery_camids[g], p.query_pids[q], p.query_camids[q])) continue;
    tile->distance[size] = p.distances[q * p.num_gallery + g];
    tile->row[size++] = g;
  }
  tile->size = size;
  for (int k = size; k < kRankTile; ++k) {
    tile->distance[k] = -std::numeric_limits<T>::infinity();
    tile->row[k] = -1;
  }
}

template <class T>
__global__ void __launch_bounds__(kThreads) ranking_kernel(RankingParams<T> p) {
  __shared__ RankTile<T> tile;
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  for (int64_t q = blockIdx.x; q < p.num_query; q += gridDim.x) {
    const T* distance = p.distances + q * p.num_gallery;
    const int64_t pid = p.query_pids[q], camid = p.query_camids[q];
    Score score;  // of thread 0
    if (threadIdx.x == 0) {
      tile.next = maximum<int64_t>(p.begin[q], 0);
      fill_tile(p, q, &tile);
    }
    __syncthreads();
    while (tile.size > 0) {
      int images[kRankTile] = {}, matches[kRankTile] = {};
      for (int64_t g = threadIdx.x; g < p.num_gallery; g += kThreads) {
        const int64_t other = p.gallery_pids[g];
        if (is_ignored(other, p.gallery_camids[g], pid, camid)) continue;
        const T d = distance[g];
        for (int k = 0; k < kRankTile; ++k) {
          const int before = ranks_before(d, g, tile.distance[k], tile.row[k]);
          images[k] += before;
          matches[k] += before & (other == pid);
        }
      }
      for (int k = 0; k < kRankTile; ++k) {
        const int warp_images = warp_sum(images[k]);
        const int warp_matches = warp_sum(matches[k]);
        if (lane == 0) {
          tile.images[warp][k] = warp_images;
          tile.matches[warp][k] = warp_matches;
        }
      }
      __syncthreads();
      if (threadIdx.x == 0) {
        for (int k = 0; k < tile.size; ++k) {
          int64_t rank = 1, matches_so_far = 1;
          for (int w = 0; w < kRankWarps; ++w) {
            rank += tile.images[w][k];
            matches_so_far += tile.matches[w][k];
          }
          add_match(&score, matches_so_far, rank);
        }
        fill_tile(p, q, &tile);
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
  GCL_LAUNCH(ranking_kernel<T>, capped_blocks(p.num_query), kThreads, 0, stream, p);
}

}  // namespace gcl
