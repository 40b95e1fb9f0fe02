// What every GPU kernel of the bank uses: sums of a block, loads of four, the log-sum-exp of a query's parts.
#pragma once

#include <limits>

#include "bank/bank.h"
#include "bank/bank_math.h"
#include "common/launch.cuh"

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

struct Sum {
  template <class V>
  __device__ V operator()(V a, V b) const {
    return a + b;
  }
};

// Every lane gets the warp's values folded by a commutative f, in an order that never changes.
template <class V, class F>
__device__ V fold_warp_all(V value, F&& f) {
  for (int offset = 16; offset > 0; offset /= 2) value = f(value, __shfl_xor_sync(kAllLanes, value, offset));
  return value;
}

// Folds the block's values in an order that the block's size alone decides; every thread gets the result. `room` [kMostWarps] may
// be used again at once.
template <class V, class F>
__device__ V fold_block(V value, V* room, F&& f) {
  const int warp = static_cast<int>(threadIdx.x) / 32, warps = static_cast<int>(blockDim.x) / 32;
  value = fold_warp_all(value, f);
  if (threadIdx.x % 32 == 0) room[warp] = value;
  __syncthreads();
  V result = room[0];
  for (int w = 1; w < warps; ++w) result = f(result, room[w]);
  __syncthreads();
  return result;
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

// Adds the parts of query b; all lanes of a warp get it, in one order.
template <class T>
__device__ Negatives add_parts(const NceParams<T>& p, int64_t b) {
  const double nothing = -std::numeric_limits<double>::infinity();
  Negatives n{nothing, 0, 0};
  for (int64_t c = threadIdx.x % 32; c < p.chunks; c += 32)
    n.top = maximum(n.top, static_cast<double>(p.part_max[c * p.batch + b]));
  n.top = fold_warp_all(n.top, [](double x, double y) { return maximum(x, y); });
  for (int64_t c = threadIdx.x % 32; c < p.chunks; c += 32) {
    const double share = n.top > nothing ? ::exp(p.part_max[c * p.batch + b] - n.top) : 0.0;
    n.sum += share * p.part_sum[c * p.batch + b];
    n.average += share * p.part_logit[c * p.batch + b];
  }
  n.sum = fold_warp_all(n.sum, Sum{});
  n.average = fold_warp_all(n.average, Sum{});
  n.average = n.sum != 0 ? n.average / n.sum : 0.0;
  return n;
}

// The same for every thread of a block; one warp does the work.
template <class T>
__device__ Negatives add_parts_once(const NceParams<T>& p, int64_t b) {
  __shared__ Negatives found;
  if (threadIdx.x < 32) {
    const Negatives n = add_parts(p, b);
    if (threadIdx.x == 0) found = n;
  }
  __syncthreads();
  return found;
}

// The average negative of query b at column d, 0 without any. All threads of the block take part, for one query.
template <class T>
__device__ T average_column(const NceParams<T>& p, int64_t b, int64_t d, const Negatives& n) {
  __shared__ T share[kRowThreads];
  T mean = T(0);
  for (int64_t c0 = 0; c0 < p.chunks; c0 += kRowThreads) {
    const int64_t t = threadIdx.x, count = minimum(p.chunks - c0, int64_t{kRowThreads});
    if (t < count) share[t] = n.sum != 0 ? static_cast<T>(::exp(p.part_max[(c0 + t) * p.batch + b] - n.top)) : T(0);
    __syncthreads();
    for (int64_t c = 0; c < count && d < p.dim; ++c) {
      mean = fused(share[c], p.part_mean[((c0 + c) * p.batch + b) * padded_dim(p.dim) + d], mean);
    }
    __syncthreads();
  }
  return n.sum != 0 ? static_cast<T>(mean / n.sum) : T(0);
}

}  // namespace gcl
