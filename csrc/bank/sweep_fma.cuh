// The sweep without tensor cores: for float64, rows that lie askew, wide rows, and GPUs before sm_80.
//
// A block owns a part of the bank and a group of queries; each thread holds the same few columns of a tile's rows and of the
// weighted sum of every query in registers. Rows reach the logits through registers and warp shuffles: shared memory holds logits
// only.
#pragma once

#include "bank/sweep_tile.cuh"

namespace gcl {

// Lane l gets the warp's sum of value l >> (5 - log2 COUNT).
template <int COUNT, class T>
__device__ T fold_warp(T (&value)[COUNT]) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  int count = COUNT;
  GCL_UNROLL
  for (int offset = 16; offset > 0; offset /= 2) {
    if (count == 1) {
      value[0] += __shfl_xor_sync(kAllLanes, value[0], offset);
      continue;
    }
    count /= 2;
    const bool upper = (lane & offset) != 0;
    GCL_UNROLL
    for (int i = 0; i < COUNT / 2; ++i) {
      if (i >= count) break;
      const T send = upper ? value[i] : value[i + count], keep = upper ? value[i + count] : value[i];
      value[i] = keep + __shfl_xor_sync(kAllLanes, send, offset);
    }
  }
  return value[0];
}

// Columns of thread t: four from (v * threads + t) * 4 on, for each v below FOURS. Tiles of 8 / FOURS rows: 32 numbers a thread.
template <class T, class S, int QUERIES, int FOURS, bool WHOLE>
__global__ void __launch_bounds__(kSweepThreads) bank_sweep_kernel(NceParams<T> p) {
  constexpr int kRows = 8 / FOURS, kMostSide = 8 / FOURS, kSide = QUERIES < kMostSide ? QUERIES : kMostSide,
                kPairs = kRows * kSide, kColumns = 4 * FOURS;
  constexpr int kLanesPerPair = 32 / kPairs;
  __shared__ T partial[kSweepThreads / 32 * QUERIES * kRows];
  __shared__ T weight[QUERIES * kRows];
  __shared__ Queries<T, QUERIES> queries;

  const int t = static_cast<int>(threadIdx.x), threads = static_cast<int>(blockDim.x), warp = t / 32, lane = t % 32;
  const SweepPlace place = sweep_place(p, QUERIES, kRows);
  const int64_t b0 = place.b0;
  const S* bank = static_cast<const S*>(p.bank);
  queries.start(p, b0);
  T sum[QUERIES][kColumns];
  GCL_UNROLL
  for (int q = 0; q < QUERIES; ++q) {
    GCL_UNROLL
    for (int e = 0; e < kColumns; ++e) sum[q][e] = T(0);
  }
  __syncthreads();

  for (int64_t n0 = place.begin; n0 < place.end; n0 += kRows) {
    T x[kRows][kColumns];
    GCL_UNROLL
    for (int r = 0; r < kRows; ++r) {
      const S* row = bank + minimum(n0 + r, p.num_rows - 1) * p.stride;  // past the end: not kept
      GCL_UNROLL
      for (int v = 0; v < FOURS; ++v) load_four<WHOLE>(row, (int64_t{v} * threads + t) * 4, p.dim, x[r] + 4 * v);
    }
    // Logits: this thread's columns, then its warp's, then the block's.
    GCL_ROLLED
    for (int side = 0; side < QUERIES; side += kSide) {
      T pair[kPairs];  // [kSide][kRows]
      GCL_UNROLL
      for (int k = 0; k < kPairs; ++k) pair[k] = T(0);
      GCL_UNROLL
      for (int q = 0; q < kSide; ++q) {
        const T* query = p.query + minimum(b0 + side + q, p.batch - 1) * p.dim;  // past the end: not kept
        GCL_UNROLL
        for (int v = 0; v < FOURS; ++v) {
          T element[4];
          load_four<WHOLE>(query, (int64_t{v} * threads + t) * 4, p.dim, element);
          GCL_UNROLL
          for (int r = 0; r < kRows; ++r) {
            GCL_UNROLL
            for (int e = 0; e < 4; ++e) pair[q * kRows + r] = fused(x[r][4 * v + e], element[e], pair[q * kRows + r]);
          }
        }
      }
      const T folded = fold_warp(pair);
      if (lane % kLanesPerPair == 0) partial[(warp * QUERIES + side) * kRows + lane / kLanesPerPair] = folded;
    }
    __syncthreads();
    const bool moved = queries.template weigh<kRows>(p, queries.template negatives<kRows>(p, n0, place.end), partial, weight);
    const bool any_moved = __syncthreads_or(moved) != 0;
    if (!p.with_grad) continue;
    GCL_UNROLL
    for (int q = 0; q < QUERIES; ++q) {
      if (any_moved) {
        const T scale = queries.scale[q];
        GCL_UNROLL
        for (int e = 0; e < kColumns; ++e) sum[q][e] *= scale;
      }
      GCL_UNROLL
      for (int r = 0; r < kRows; ++r) {
        const T w = weight[q * kRows + r];
        GCL_UNROLL
        for (int e = 0; e < kColumns; ++e) sum[q][e] = fused(w, x[r][e], sum[q][e]);
      }
    }
  }

  __syncthreads();
  queries.finish(p, place);
  if (!p.with_grad) return;
  GCL_UNROLL
  for (int q = 0; q < QUERIES; ++q) {
    T* mean = p.part_mean + (place.chunk * p.batch + b0 + q) * padded_dim(p.dim);
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

// How a sweep is cut for a width: threads hold 4 * fours columns each. Beyond kWidest there is no kernel.
constexpr int64_t kWidest = 8192;

template <class T>
struct SweepShape {
  static constexpr int kMost = sizeof(T) == 4 ? 16 : 4;
  int queries, fours, threads;

  explicit SweepShape(int64_t dim) {
    fours = dim <= 2048 ? 2 : dim <= 4096 ? 4 : 8;
    queries = kMost * 2 / fours;
    threads = 32;
    while (threads < kSweepThreads && threads * 4 * fours < dim) threads *= 2;
  }
  int64_t groups(int64_t batch) const { return (batch + queries - 1) / queries; }
  // Parts of the bank: one block for each place that `processors` have, at least two tiles each.
  int64_t chunks(int64_t batch, int64_t rows, int64_t processors) const {
    const int64_t places = processors * (kSweepThreads / threads), wanted = places / maximum(groups(batch), int64_t{1});
    return maximum(minimum(wanted, rows / 8), int64_t{1});
  }
};

template <class T, class S, bool WHOLE>
void launch_sweep_fma(const NceParams<T>& p, GclStream stream) {
  constexpr int kMost = SweepShape<T>::kMost;
  const SweepShape<T> shape(p.dim);
  const int64_t blocks = shape.groups(p.batch) * p.chunks;
  if (shape.fours == 2) GCL_LAUNCH((bank_sweep_kernel<T, S, kMost, 2, WHOLE>), blocks, shape.threads, 0, stream, p);
  else if (shape.fours == 4) GCL_LAUNCH((bank_sweep_kernel<T, S, kMost / 2, 4, WHOLE>), blocks, shape.threads, 0, stream, p);
  else GCL_LAUNCH((bank_sweep_kernel<T, S, kMost / 4, 8, WHOLE>), blocks, shape.threads, 0, stream, p);
}

}  // namespace gcl
