// GPU kernels of bank_nce and the order in which they run. No torch header: the same file runs on emulated threads.
//
// The sweep reads the bank once. A block owns a part of the bank and a group of queries; each thread holds the same few columns
// of four bank rows in registers, of the next four too while these are worked on, and of the weighted sum of every query. Rows
// reach the logits through registers and warp shuffles, the sums through registers: shared memory holds logits only.
#pragma once

#include <limits>

#include "bank/select_kernels.cuh"

namespace gcl {

#if defined(__CUDACC__)
#define GCL_UNROLL _Pragma("unroll")
#else
#define GCL_UNROLL
#endif

constexpr int kTileRows = 4;
constexpr int kSweepThreads = 256;  // at most

__device__ inline float fused(float a, float b, float c) { return ::fmaf(a, b, c); }
__device__ inline double fused(double a, double b, double c) { return ::fma(a, b, c); }

template <class S>
struct alignas(4 * sizeof(S) < 16 ? 4 * sizeof(S) : 16) Four {
  S x[4];
};

// Elements [d, d + 4) of a row, 0 from D on; `whole`: D and the row's address allow one load.
template <class T, class S>
__device__ void load_four(const S* row, int64_t d, int64_t dim, bool whole, T* to) {
  if (whole && d < dim) {
    const Four<S> four = *reinterpret_cast<const Four<S>*>(row + d);
    for (int e = 0; e < 4; ++e) to[e] = static_cast<T>(widen(four.x[e]));
  } else {
    for (int e = 0; e < 4; ++e) to[e] = d + e < dim ? static_cast<T>(widen(row[d + e])) : T(0);
  }
}

template <class S>
__device__ bool whole_fours(const void* base, int64_t stride, int64_t dim) {
  return dim % 4 == 0 && stride % 4 == 0 && reinterpret_cast<uintptr_t>(base) % alignof(Four<S>) == 0;
}

// Lane l gets the warp's sum of value l >> (5 - log2 COUNT).
template <int COUNT, class T>
__device__ T fold_warp(T* value) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  int count = COUNT;
  GCL_UNROLL
  for (int offset = 16; offset > 0; offset /= 2) {
    if (count == 1) {
      value[0] += __shfl_xor_sync(0xffffffffu, value[0], offset);
      continue;
    }
    count /= 2;
    const bool upper = (lane & offset) != 0;
    GCL_UNROLL
    for (int i = 0; i < COUNT / 2; ++i) {
      if (i >= count) break;
      const T send = upper ? value[i] : value[i + count], keep = upper ? value[i + count] : value[i];
      value[i] = keep + __shfl_xor_sync(0xffffffffu, send, offset);
    }
  }
  return value[0];
}

// Columns of thread t: four from (v * threads + t) * 4 on, for each v below FOURS.
template <class T, class S, int QUERIES, int FOURS>
__global__ void __launch_bounds__(kSweepThreads) bank_sweep_kernel(NceParams<T> p) {
  constexpr int kSide = QUERIES < 4 ? QUERIES : 4, kPairs = kTileRows * kSide, kColumns = 4 * FOURS;
  constexpr int kLanesPerPair = 32 / kPairs;
  __shared__ T partial[kSweepThreads / 32][kTileRows * QUERIES];
  __shared__ T logit[kTileRows][QUERIES], weight[kTileRows][QUERIES], scale[QUERIES], top[QUERIES];
  __shared__ bool keep[kTileRows][QUERIES];
  __shared__ double total[QUERIES];
  __shared__ int64_t own_label[QUERIES], first[QUERIES];
  __shared__ RowWords words[QUERIES];
  __shared__ uint32_t last[QUERIES];
  __shared__ bool used[QUERIES];

  const int t = static_cast<int>(threadIdx.x), threads = static_cast<int>(blockDim.x), warp = t / 32, lane = t % 32;
  const int64_t groups = (p.batch + QUERIES - 1) / QUERIES, chunk = blockIdx.x / groups, b0 = blockIdx.x % groups * QUERIES;
  const int64_t tiles = (p.num_rows + kTileRows - 1) / kTileRows, step = (tiles + p.chunks - 1) / p.chunks * kTileRows;
  const int64_t begin = chunk * step, end = minimum(begin + step, p.num_rows);
  const S* bank = static_cast<const S*>(p.bank);
  const bool whole = whole_fours<S>(p.bank, p.stride, p.dim), whole_query = whole_fours<T>(p.query, p.dim, p.dim);

  for (int q = t; q < QUERIES; q += threads) {
    const int64_t b = b0 + q, row = b < p.batch ? p.positive[b * p.positives] : -1;
    used[q] = names_a_row(p, row);
    first[q] = row;
    own_label[q] = used[q] ? p.labels[row] : 0;
    words[q] = row_words(kNegatives, *p.seed, b);
    last[q] = p.count < 0 || !used[q] ? kEveryKey : p.last[b];
    top[q] = -std::numeric_limits<T>::infinity();
    total[q] = 0;
  }
  T sum[QUERIES][kColumns], x[kTileRows][kColumns], next[kTileRows][kColumns];
  GCL_UNROLL
  for (int q = 0; q < QUERIES; ++q) {
    GCL_UNROLL
    for (int e = 0; e < kColumns; ++e) sum[q][e] = T(0);
  }
  const auto load_tile = [&](int64_t n0) {
    GCL_UNROLL
    for (int r = 0; r < kTileRows; ++r) {
      GCL_UNROLL
      for (int v = 0; v < FOURS; ++v) {
        const int64_t d = (int64_t{v} * threads + t) * 4, n = minimum(n0 + r, p.num_rows - 1);  // past the end: not kept
        load_four<T>(bank + n * p.stride, d, p.dim, whole, next[r] + 4 * v);
      }
    }
  };
  if (begin < end) load_tile(begin);
  __syncthreads();

  for (int64_t n0 = begin; n0 < end; n0 += kTileRows) {
    GCL_UNROLL
    for (int r = 0; r < kTileRows; ++r) {
      GCL_UNROLL
      for (int e = 0; e < kColumns; ++e) x[r][e] = next[r][e];
    }
    if (n0 + kTileRows < end) load_tile(n0 + kTileRows);

    // Logits: this thread's columns, then its warp's, then the block's.
    GCL_UNROLL
    for (int side = 0; side < QUERIES; side += kSide) {
      T pair[kPairs];  // [kTileRows][kSide]
      GCL_UNROLL
      for (int k = 0; k < kPairs; ++k) pair[k] = T(0);
      GCL_UNROLL
      for (int v = 0; v < FOURS; ++v) {
        GCL_UNROLL
        for (int q = 0; q < kSide; ++q) {
          const int64_t d = (int64_t{v} * threads + t) * 4, b = minimum(b0 + side + q, p.batch - 1);  // past the end: not kept
          T element[4];
          load_four<T>(p.query + b * p.dim, d, p.dim, whole_query, element);
          GCL_UNROLL
          for (int r = 0; r < kTileRows; ++r) {
            GCL_UNROLL
            for (int e = 0; e < 4; ++e) pair[r * kSide + q] = fused(x[r][4 * v + e], element[e], pair[r * kSide + q]);
          }
        }
      }
      const T folded = fold_warp<kPairs>(pair);
      if (lane % kLanesPerPair == 0) partial[warp][side * kTileRows + lane / kLanesPerPair] = folded;
    }
    __syncthreads();
    for (int k = t; k < kTileRows * QUERIES; k += threads) {
      const int r = k % kPairs / kSide, q = k / kPairs * kSide + k % kSide;
      T value = T(0);
      for (int w = 0; w < threads / 32; ++w) value += partial[w][k];
      const int64_t n = n0 + r;
      logit[r][q] = value / p.temperature;
      keep[r][q] = used[q] && n < end && is_negative(own_label[q], first[q], p.labels[n], n) &&
                   sampling_key<uint32_t>(words[q].inner, words[q].outer, static_cast<uint32_t>(n)) <= last[q];
    }
    __syncthreads();
    bool moved = false;
    for (int q = t; q < QUERIES; q += threads) {
      const T before = top[q];
      T now = before, added = T(0);
      for (int r = 0; r < kTileRows; ++r) now = keep[r][q] && logit[r][q] > now ? logit[r][q] : now;
      const T shift = now > -std::numeric_limits<T>::infinity() ? now : T(0);
      scale[q] = now > before ? ::exp(before - shift) : T(1);
      for (int r = 0; r < kTileRows; ++r) {
        weight[r][q] = keep[r][q] ? ::exp(logit[r][q] - shift) : T(0);
        added += weight[r][q];
      }
      moved = moved || now > before;
      top[q] = now;
      total[q] = total[q] * scale[q] + added;
    }
    const bool any_moved = __syncthreads_or(moved) != 0;
    if (!p.with_grad) continue;
    GCL_UNROLL
    for (int q = 0; q < QUERIES; ++q) {
      if (any_moved) {
        GCL_UNROLL
        for (int e = 0; e < kColumns; ++e) sum[q][e] *= scale[q];
      }
      GCL_UNROLL
      for (int r = 0; r < kTileRows; ++r) {
        const T w = weight[r][q];
        GCL_UNROLL
        for (int e = 0; e < kColumns; ++e) sum[q][e] = fused(w, x[r][e], sum[q][e]);
      }
    }
  }

  for (int q = t; q < QUERIES && b0 + q < p.batch; q += threads) {
    p.part_max[chunk * p.batch + b0 + q] = top[q];
    p.part_sum[chunk * p.batch + b0 + q] = total[q];
  }
  if (!p.with_grad) return;
  GCL_UNROLL
  for (int q = 0; q < QUERIES; ++q) {
    T* mean = p.part_mean + (chunk * p.batch + b0 + q) * padded_dim(p.dim);
    GCL_UNROLL
    for (int v = 0; v < FOURS; ++v) {
      GCL_UNROLL
      for (int e = 0; e < 4; ++e) {
        const int64_t d = (int64_t{v} * threads + t) * 4 + e;
        if (b0 + q < p.batch && d < p.dim) mean[d] = sum[q][4 * v + e];
      }
    }
  }
}

// One block adds the parts of 256 columns of one query, in order; the block of the first columns has the losses too.
template <class T, class S>
__global__ void bank_combine_kernel(NceParams<T> p, int64_t slices) {
  __shared__ double room[kRowThreads], share[kRowThreads];
  const auto add = [](double a, double b) { return a + b; };
  const int64_t b = blockIdx.x / slices, slice = blockIdx.x % slices, t = threadIdx.x, d = slice * kRowThreads + t;
  const double nothing = -std::numeric_limits<double>::infinity();
  double top = nothing;
  for (int64_t c = t; c < p.chunks; c += kRowThreads) top = maximum(top, static_cast<double>(p.part_max[c * p.batch + b]));
  top = fold_block(top, room, [](double a, double b) { return maximum(a, b); });
  double sum = 0;
  T mean = T(0);
  for (int64_t c0 = 0; c0 < p.chunks; c0 += kRowThreads) {
    const int64_t count = minimum(p.chunks - c0, int64_t{kRowThreads});
    if (t < count) {
      share[t] = top > nothing ? ::exp(p.part_max[(c0 + t) * p.batch + b] - top) : 0.0;
      sum += share[t] * p.part_sum[(c0 + t) * p.batch + b];
    }
    __syncthreads();
    for (int64_t c = 0; c < count && p.with_grad && d < p.dim; ++c) {
      mean = fused(static_cast<T>(share[c]), p.part_mean[((c0 + c) * p.batch + b) * padded_dim(p.dim) + d], mean);
    }
    __syncthreads();
  }
  sum = fold_block(sum, room, add);
  if (p.with_grad && d < p.dim) p.mean[b * p.dim + d] = sum != 0 ? static_cast<T>(mean / sum) : T(0);
  const double lse = sum != 0 ? top + ::log(sum) : nothing;
  const bool known = names_a_row(p, p.positive[b * p.positives]);
  for (int64_t k = 0; k < p.positives; ++k) {
    const int64_t at = b * p.positives + k, n = p.positive[at];
    const bool row_exists = known && names_a_row(p, n);
    const S* row = static_cast<const S*>(p.bank) + (row_exists ? n : 0) * p.stride;
    const T element = row_exists && d < p.dim ? static_cast<T>(widen(row[d])) : T(0);
    if (p.folded && d < p.dim) p.mean[b * p.dim + d] -= element;
    else if (p.with_grad && d < p.dim) p.rows[at * p.dim + d] = element;
    if (slice != 0) continue;
    const T* query = p.query + b * p.dim;
    if (p.positive_query != nullptr) query = p.positive_query + at * p.dim;
    if (p.last_query != nullptr && k == p.positives - 1) query = p.last_query + b * p.dim;
    double dot = 0;
    for (int64_t e = t; e < p.dim && row_exists; e += kRowThreads) dot += static_cast<double>(query[e]) * widen(row[e]);
    dot = fold_block(dot, room, add);
    const double nan = std::numeric_limits<double>::quiet_NaN();
    const PairLoss pair = row_exists ? pair_loss(dot / p.temperature, lse) : PairLoss{nan, nan};
    if (t != 0) continue;
    p.loss[at] = static_cast<T>(pair.loss);
    if (p.with_grad) p.weight[at] = static_cast<T>(pair.weight);
  }
}

// How a sweep is cut for a width: threads hold 4 * FOURS columns each. Beyond kWidest row_exists is no kernel.
constexpr int64_t kWidest = 8192;

template <class T>
struct SweepShape {
  int queries, fours, threads;

  explicit SweepShape(int64_t dim) {
    constexpr int kMost = sizeof(T) == 4 ? 16 : 4;
    fours = dim <= 2048 ? 2 : dim <= 4096 ? 4 : 8;
    queries = kMost * 2 / fours;
    threads = 32;
    while (threads < kSweepThreads && threads * 4 * fours < dim) threads *= 2;
  }
  int64_t groups(int64_t batch) const { return (batch + queries - 1) / queries; }
  // Parts of the bank: one block for each place that `processors` have, at least two tiles each.
  int64_t chunks(int64_t batch, int64_t rows, int64_t processors) const {
    const int64_t places = processors * (kSweepThreads / threads), wanted = places / maximum(groups(batch), int64_t{1});
    const int64_t most = rows / (2 * kTileRows);
    return maximum(minimum(wanted, most), int64_t{1});
  }
};

template <class T, class S>
void launch_bank_nce(const NceParams<T>& p, GclStream stream) {
  if (p.batch == 0) return;
  launch_select(p, stream);
  constexpr int kMost = sizeof(T) == 4 ? 16 : 4;
  const SweepShape<T> shape(p.dim);
  const int64_t blocks = shape.groups(p.batch) * p.chunks, slices = maximum((p.dim + kRowThreads - 1) / kRowThreads, int64_t{1});
  if (shape.fours == 2) GCL_LAUNCH((bank_sweep_kernel<T, S, kMost, 2>), blocks, shape.threads, 0, stream, p);
  else if (shape.fours == 4) GCL_LAUNCH((bank_sweep_kernel<T, S, kMost / 2, 4>), blocks, shape.threads, 0, stream, p);
  else GCL_LAUNCH((bank_sweep_kernel<T, S, kMost / 4, 8>), blocks, shape.threads, 0, stream, p);
  GCL_LAUNCH((bank_combine_kernel<T, S>), p.batch * slices, kRowThreads, 0, stream, p, slices);
}

}  // namespace gcl
