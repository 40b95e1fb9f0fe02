// GPU kernels of the candidates. What takes the time is to read the candidates' rows, 8 KB each of 2,048 numbers, so of two rows
// that are each other's candidates one has the product and the other takes it over.
#pragma once

#include "common/warp_fold.cuh"
#include "neighbors/candidates_math.h"
#include "neighbors/row_products.cuh"

namespace gcl {

constexpr int kPairsAtOnce = 2;      // candidates whose rows a warp reads together

// The sum over the block, on thread 0; scratch [warps].
__device__ inline float block_sum(float value, float* scratch) {
  value = fold_warp_all(value, Sum{});
  if (threadIdx.x % kWarpLanes == 0) scratch[threadIdx.x / kWarpLanes] = value;
  __syncthreads();
  float sum = 0;
  if (threadIdx.x == 0) {
    for (unsigned w = 0; w < blockDim.x / kWarpLanes; ++w) sum += scratch[w];
  }
  __syncthreads();
  return sum;
}

// One pass over x.
template <class B>
__global__ void __launch_bounds__(kThreads) halve_rows_kernel(HalvesParams<B> p, bool by_fours) {
  __shared__ float scratch[kThreads / kWarpLanes];
  for (int64_t i = blockIdx.x; i < p.rows; i += gridDim.x) {
    const float* x = p.x + i * p.dim;
    float common = 0, length = 0, lost = 0;
    const auto take = [&](float value, float mean, B* half) {
      const float centred = value - mean;
      narrow_on(centred, half);
      const float off = centred - widen(*half);
      common += value * mean, length += centred * centred, lost += off * off;
    };
    if (by_fours) {
      for (int64_t d = 4 * threadIdx.x; d < p.dim; d += 4 * kThreads) {
        const Four<float> value = *reinterpret_cast<const Four<float>*>(x + d);
        const Four<float> mean = *reinterpret_cast<const Four<float>*>(p.mean + d);
        Four<B> half;
        for (int n = 0; n < 4; ++n) take(value.v[n], mean.v[n], half.v + n);
        *reinterpret_cast<Four<B>*>(p.half + i * p.dim + d) = half;
      }
    } else {
      for (int64_t d = threadIdx.x; d < p.dim; d += kThreads) {
        B half;
        take(x[d], p.mean[d], &half);
        p.half[i * p.dim + d] = half;
      }
    }
    common = block_sum(common, scratch), length = block_sum(length, scratch), lost = block_sum(lost, scratch);
    if (threadIdx.x == 0) p.common[i] = common, p.length[i] = std::sqrt(length), p.lost[i] = std::sqrt(lost);
  }
}

// Where row i has its place among the candidates that row j keeps, or -1; by all lanes of a warp.
__device__ inline int64_t kept_at(const CandidateParams& p, int64_t i, int64_t j, int lane) {
  for (int64_t first = 0; first < p.width; first += kWarpLanes) {
    const int64_t c = first + lane;
    const unsigned found = __ballot_sync(kAllLanes, c < p.width && p.index[j * p.width + c] == i);
    if (found == 0) continue;
    const int64_t at = first + __ffs(static_cast<int>(found)) - 1;
    return is_kept(p, j, at, least_score(p, j)) ? at : -1;
  }
  return -1;
}

// Whether the product of row i and its candidate j is an earlier row's, which keeps it at the place returned; else -1.
__device__ inline int64_t earlier_place(const CandidateParams& p, int64_t i, int64_t j, int lane) {
  return p.rows == nullptr && j < i ? kept_at(p, i, j, lane) : -1;
}

// A block takes a row, whose numbers stay in the cache; its warps first choose among the candidates, then share the chosen.
__global__ void __launch_bounds__(kThreads) candidate_products_kernel(CandidateParams p, bool by_fours) {
  __shared__ int16_t chosen[kMostCandidates];
  __shared__ int num_chosen;
  const int lane = threadIdx.x % kWarpLanes, warp = threadIdx.x / kWarpLanes;
  constexpr int kWarps = kThreads / kWarpLanes;
  for (int64_t r = blockIdx.x; r < p.count; r += gridDim.x) {
    const int64_t i = p.rows == nullptr ? r : p.rows[r];
    const int64_t* index = p.index + r * p.width;
    const float least = least_score(p, r);
    if (threadIdx.x == 0) num_chosen = 0;
    __syncthreads();
    for (int c = warp; c < p.width; c += kWarps) {  // the whole warp sees the same
      const bool kept = is_kept(p, r, c, least);
      if (!kept && lane == 0) p.product[r * p.width + c] = kPassedOver;
      if (!kept || earlier_place(p, i, index[c], lane) >= 0) continue;
      if (lane == 0) chosen[atomicAdd(&num_chosen, 1)] = static_cast<int16_t>(c);
    }
    __syncthreads();
    for (int n = kPairsAtOnce * warp; n < num_chosen; n += kPairsAtOnce * kWarps) {
      const float* others[kPairsAtOnce];
      float sums[kPairsAtOnce];
      for (int q = 0; q < kPairsAtOnce; ++q) others[q] = p.x + index[chosen[minimum(n + q, num_chosen - 1)]] * p.dim;
      warp_products(p.x + i * p.dim, others, p.dim, lane, by_fours, sums);
      for (int q = 0; q < kPairsAtOnce; ++q) {
        if (lane == 0 && n + q < num_chosen) p.product[r * p.width + chosen[n + q]] = sums[q];
      }
    }
    __syncthreads();  // the list is the next row's
  }
}

// A warp takes a row; what it reads an earlier row has found.
__global__ void candidate_mirror_kernel(CandidateParams p) {
  const int lane = threadIdx.x % kWarpLanes;
  GCL_EACH_WARP(r, p.count) {
    const float least = least_score(p, r);
    for (int64_t c = 0; c < p.width; ++c) {
      if (!is_kept(p, r, c, least)) continue;
      const int64_t j = p.index[r * p.width + c], at = earlier_place(p, r, j, lane);
      if (at >= 0 && lane == 0) p.product[r * p.width + c] = p.product[j * p.width + at];
    }
  }
}

// A warp takes a row, a lane a candidate: it counts who comes before.
__global__ void best_candidates_kernel(BestParams p) {
  const int lane = threadIdx.x % kWarpLanes, width = static_cast<int>(p.width);
  GCL_EACH_WARP(r, p.count) {
    const int64_t* index = p.index + r * p.width;
    bool unsure = false;
    for (int first = 0; first < width; first += kWarpLanes) {
      const int c = first + lane;
      const bool is_there = c < width;
      const float mine = is_there ? product_of(p, r, c) : kPassedOver;
      const int64_t name = is_there ? index[c] : 0;
      int64_t place = c > 0;
      for (int begin = 0; begin < width; begin += kWarpLanes) {
        const bool others = begin + lane > 0 && begin + lane < width;
        const float theirs = others ? product_of(p, r, begin + lane) : kPassedOver;
        const int64_t their_name = others ? index[begin + lane] : std::numeric_limits<int64_t>::max();
        const int size = minimum(kWarpLanes, width - begin);
        for (int n = 0; n < size; ++n) {
          const float other = __shfl_sync(kAllLanes, theirs, n);
          const int64_t other_name = __shfl_sync(kAllLanes, their_name, n);
          place += c > 0 && comes_before(other, other_name, mine, name);
        }
      }
      if (!is_there) continue;
      unsure = unsure || is_beyond(p, r, c);
      if (place >= p.k) continue;
      p.value[r * p.k + place] = mine;
      p.neighbour[r * p.k + place] = name;
      if (place == p.k - 1) unsure = unsure || may_lack(p, r, mine);
    }
    const bool any = __any_sync(kAllLanes, unsure) != 0;
    if (lane == 0) p.unsure[r] = any;
  }
}

template <class B>
void launch_halve_rows(const HalvesParams<B>& p, GclStream stream) {
  const bool by_fours = lie_by_fours(p.dim, p.x, p.mean, p.half);
  if (p.rows > 0) GCL_LAUNCH((halve_rows_kernel<B>), capped_blocks(p.rows), kThreads, 0, stream, p, by_fours);
}

inline void launch_candidate_products(const CandidateParams& p, GclStream stream) {
  if (p.count == 0) return;
  const bool by_fours = lie_by_fours(p.dim, p.x);
  GCL_LAUNCH(candidate_products_kernel, capped_blocks(p.count), kThreads, 0, stream, p, by_fours);
  if (p.rows == nullptr) GCL_LAUNCH(candidate_mirror_kernel, blocks_for(p.count * kWarpLanes), kThreads, 0, stream, p);
}

inline void launch_best_candidates(const BestParams& p, GclStream stream) {
  if (p.count > 0) GCL_LAUNCH(best_candidates_kernel, blocks_for(p.count * kWarpLanes), kThreads, 0, stream, p);
}

}  // namespace gcl
