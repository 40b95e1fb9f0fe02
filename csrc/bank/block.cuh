// What every GPU kernel of the bank uses: sums of a block, loads of four, the log-sum-exp of a query's parts.
#pragma once

#include <limits>

#include "bank/bank.h"
#include "bank/bank_math.h"
#include "common/warp_fold.cuh"

namespace gcl {

#if defined(__CUDACC__)
#define GCL_UNROLL _Pragma("unroll")
#define GCL_ROLLED _Pragma("unroll 1")  // where registers are short
#else
#define GCL_UNROLL
#define GCL_ROLLED
#endif

constexpr int kRowThreads = 256;   // of a block that works on one row of the batch
constexpr int kMostWarps = 32;     // of any block

__device__ inline float fused(float a, float b, float c) { return ::fmaf(a, b, c); }
__device__ inline double fused(double a, double b, double c) { return ::fma(a, b, c); }

// Folds COUNT values of the block each, in an order that the block's size alone decides; every thread gets the results. A block
// has 32, 64, 128, ... threads. `room` [COUNT * kMostWarps] may be used again at once.
template <int COUNT, class V, class F>
__device__ void fold_block_each(V (&value)[COUNT], V* room, F&& f) {
  const int t = static_cast<int>(threadIdx.x), warps = static_cast<int>(blockDim.x) / 32;
  GCL_UNROLL
  for (int k = 0; k < COUNT; ++k) {
    value[k] = fold_warp_all(value[k], f);
    if (t % 32 == 0) room[k * warps + t / 32] = value[k];
  }
  __syncthreads();
  GCL_UNROLL
  for (int k = 0; k < COUNT; ++k) value[k] = room[k * warps + t % 32 % warps];
  for (int offset = warps / 2; offset > 0; offset /= 2) {
    GCL_UNROLL
    for (int k = 0; k < COUNT; ++k) value[k] = f(value[k], __shfl_xor_sync(kAllLanes, value[k], offset));
  }
  __syncthreads();
}

// The same of one value, which is returned.
template <class V, class F>
__device__ V fold_block(V value, V* room, F&& f) {
  V one[1] = {value};
  fold_block_each(one, room, f);
  return one[0];
}

template <class T>
__device__ bool names_a_row(const NceParams<T>& p, int64_t row) {
  return row >= 0 && row < p.num_rows;
}

// Elements [d, d + 4) of a row, 0 from D on. WHOLE: D and the row's address allow one load.
template <bool WHOLE, class T, class S>
__device__ void load_four(const S* row, int64_t d, int64_t dim, T* to) {
  if constexpr (WHOLE) {
    Four<S> four{};
    if (d < dim) four = *reinterpret_cast<const Four<S>*>(row + d);
    GCL_UNROLL
    for (int e = 0; e < 4; ++e) to[e] = static_cast<T>(widen(four.v[e]));
  } else {
    GCL_UNROLL
    for (int e = 0; e < 4; ++e) to[e] = d + e < dim ? static_cast<T>(widen(row[d + e])) : T(0);
  }
}

template <class S>
bool whole_rows(const void* base, int64_t stride, int64_t dim, int64_t elements) {
  return dim % elements == 0 && stride % elements == 0 && reinterpret_cast<uintptr_t>(base) % (elements * sizeof(S)) == 0;
}

// Of a query's negatives: the largest logit, the sum of exp(logit - top), the average logit under the softmax.
struct Negatives {
  double top, sum, average;

  __device__ double lse() const { return sum != 0 ? top + ::log(sum) : -std::numeric_limits<double>::infinity(); }
};

constexpr double kNothing = -std::numeric_limits<double>::infinity();

// One part of query b, and what it adds to its sums below `top`.
struct Part {
  double top = kNothing, sum = 0, logit = 0;

  template <class T>
  __device__ void read(const NceParams<T>& p, int64_t b, int64_t chunk) {
    const int64_t at = chunk * p.batch + b;
    top = p.part_max[at];
    sum = p.part_sum[at];
    logit = p.part_logit[at];
  }
  __device__ void add_to(double new_top, double (&total)[2]) const {
    const double share = new_top > kNothing ? ::exp(top - new_top) : 0.0;
    total[0] += share * sum;
    total[1] += share * logit;
  }
};

// Adds the parts of query b, each by one of `lanes` (a power of two) lanes of the warp, which lie 32 / lanes apart and all get
// it. Every lane of the warp takes part, for its own query.
template <class T>
__device__ Negatives add_parts(const NceParams<T>& p, int64_t b, int lanes) {
  const int apart = 32 / lanes, first = static_cast<int>(threadIdx.x) % 32 / apart;
  double top = kNothing, total[2] = {0, 0};
  for (int64_t c = first; c < p.chunks; c += lanes) top = maximum(top, static_cast<double>(p.part_max[c * p.batch + b]));
  for (int offset = 16; offset >= apart; offset /= 2) top = maximum(top, __shfl_xor_sync(kAllLanes, top, offset));
  for (int64_t c = first; c < p.chunks; c += lanes) {
    Part part;
    part.read(p, b, c);
    part.add_to(top, total);
  }
  for (int offset = 16; offset >= apart; offset /= 2) {
    total[0] += __shfl_xor_sync(kAllLanes, total[0], offset);
    total[1] += __shfl_xor_sync(kAllLanes, total[1], offset);
  }
  return {top, total[0], total[0] != 0 ? total[1] / total[0] : 0.0};
}

// The same by all threads of a block, each of which gets it; they read their first parts at once.
template <class T>
__device__ Negatives add_parts_together(const NceParams<T>& p, int64_t b) {
  __shared__ double room[2 * kMostWarps];
  const int64_t t = threadIdx.x, threads = blockDim.x;
  Part first, part;
  if (t < p.chunks) first.read(p, b, t);
  double top = first.top, total[2] = {0, 0};
  for (int64_t c = t + threads; c < p.chunks; c += threads) {
    part.read(p, b, c);
    top = maximum(top, part.top);
  }
  top = fold_block(top, room, Largest{});
  first.add_to(top, total);
  for (int64_t c = t + threads; c < p.chunks; c += threads) {
    part.read(p, b, c);
    part.add_to(top, total);
  }
  fold_block_each(total, room, Sum{});
  return {top, total[0], total[0] != 0 ? total[1] / total[0] : 0.0};
}

// The average negative of query b at column column0 + threadIdx.x, 0 without any. All kRowThreads threads of the block take part,
// for one query and first column: each adds every fourth part of four columns, several at once in flight.
template <class T>
__device__ T average_column(const NceParams<T>& p, int64_t b, int64_t column0, const Negatives& n) {
  constexpr int kWays = 4, kFours = kRowThreads / kWays, kFlight = sizeof(T) == 4 ? 8 : 2;
  __shared__ T share[kRowThreads];
  __shared__ T added[kWays][kRowThreads];
  const int t = static_cast<int>(threadIdx.x), way = t / kFours, own = t % kFours * 4;
  const int64_t d = column0 + own, row = p.batch * padded_dim(p.dim);
  const bool whole = d + 4 <= p.dim;  // what lies behind D was not written
  T mean[4] = {};
  for (int64_t c0 = 0; c0 < p.chunks; c0 += kRowThreads) {
    const int count = static_cast<int>(minimum(p.chunks - c0, int64_t{kRowThreads}));
    if (t < count) share[t] = n.sum != 0 ? static_cast<T>(::exp(p.part_max[(c0 + t) * p.batch + b] - n.top)) : T(0);
    __syncthreads();
    const T* at = p.part_mean + (c0 + way) * row + b * padded_dim(p.dim) + d;
    for (int c = way; c < count && d < p.dim; c += kWays * kFlight, at += kWays * kFlight * row) {
      T x[kFlight][4];
      GCL_UNROLL
      for (int i = 0; i < kFlight; ++i) {
        if (c + i * kWays >= count) break;
        if (whole) load_four<true>(at + i * kWays * row, 0, 4, x[i]);
        else load_four<false>(at + i * kWays * row, 0, p.dim - d, x[i]);
      }
      GCL_UNROLL
      for (int i = 0; i < kFlight; ++i) {
        if (c + i * kWays >= count) break;
        GCL_UNROLL
        for (int e = 0; e < 4; ++e) mean[e] = fused(share[c + i * kWays], x[i][e], mean[e]);
      }
    }
    __syncthreads();
  }
  GCL_UNROLL
  for (int e = 0; e < 4; ++e) added[way][own + e] = mean[e];
  __syncthreads();
  T total = added[0][t];
  GCL_UNROLL
  for (int w = 1; w < kWays; ++w) total += added[w][t];
  return n.sum != 0 ? static_cast<T>(total / n.sum) : T(0);
}

}  // namespace gcl
