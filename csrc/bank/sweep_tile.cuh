// What the two ways to sweep a bank share: a block's queries, and the softmax of a tile of logits.
#pragma once

#include "bank/block.cuh"

namespace gcl {

constexpr int kSweepThreads = 256;  // at most

// A block's part of the bank and its group of queries.
struct SweepPlace {
  int64_t chunk, b0, begin, end;
};

template <class T>
__device__ SweepPlace sweep_place(const NceParams<T>& p, int queries, int tile_rows) {
  const int64_t groups = (p.batch + queries - 1) / queries, chunk = blockIdx.x / groups;
  const int64_t tiles = (p.num_rows + tile_rows - 1) / tile_rows, step = (tiles + p.chunks - 1) / p.chunks * tile_rows;
  const int64_t begin = minimum(chunk * step, p.num_rows);
  return {chunk, blockIdx.x % groups * queries, begin, minimum(begin + step, p.num_rows)};
}

// In shared memory: who is a negative of each query, and its softmax so far.
template <class T, int QUERIES>
struct Queries {
  int64_t own_label[QUERIES], first[QUERIES];
  RowWords words[QUERIES];
  uint32_t last[QUERIES];
  bool used[QUERIES];
  T top[QUERIES], scale[QUERIES];  // largest logit; by what the last tile scaled the sums before it
  double sum[QUERIES], logit[QUERIES];  // of exp(logit - top), and of that times the logit

  __device__ void start(const NceParams<T>& p, int64_t b0) {
    for (int q = threadIdx.x; q < QUERIES; q += static_cast<int>(blockDim.x)) {
      const int64_t b = b0 + q, row = b < p.batch ? p.first[b * p.first_stride] : -1;
      used[q] = names_a_row(p, row);
      first[q] = row;
      own_label[q] = used[q] ? p.labels[row] : 0;
      words[q] = row_words(kNegatives, seed_of(p), b);
      last[q] = p.count < 0 || !used[q] ? kEveryKey : p.last[b];
      top[q] = -std::numeric_limits<T>::infinity();
      sum[q] = logit[q] = 0;
    }
  }

  // Which of ROWS rows from n0 on are negatives: bit i for the i-th pair (query, row) that this thread weighs. Asked for ahead of
  // the logits, labels are there in time.
  template <int ROWS>
  __device__ uint32_t negatives(const NceParams<T>& p, int64_t n0, int64_t end) const {
    static_assert(QUERIES * ROWS <= 32 * 32);
    const int t = static_cast<int>(threadIdx.x), threads = static_cast<int>(blockDim.x);
    uint32_t bits = 0;
    GCL_ROLLED
    for (int i = 0, k = t; k < QUERIES * ROWS; ++i, k += threads) {
      const int q = k / ROWS;
      const int64_t n = n0 + k % ROWS;
      const bool keep = used[q] && n < end && is_negative(own_label[q], first[q], p.labels[n], n) &&
                        sampling_key<uint32_t>(words[q].inner, words[q].outer, static_cast<uint32_t>(n)) <= last[q];
      bits |= static_cast<uint32_t>(keep) << i;
    }
    return bits;
  }

  // From the warps' parts of the logits of ROWS rows, [warps][QUERIES][ROWS], to weights exp(logit - top), 0 where the row is no
  // negative (`kept`, of `negatives`). Returns whether this thread saw a query's top move. A barrier comes before and after.
  template <int ROWS>
  __device__ bool weigh(const NceParams<T>& p, uint32_t kept, const T* partial, T* weight) {
    constexpr int kPairs = QUERIES * ROWS, kFlight = 4;  // parts read at once
    const int t = static_cast<int>(threadIdx.x), threads = static_cast<int>(blockDim.x);
    bool moved = false;
    GCL_ROLLED
    for (int k0 = 0; k0 + t / 32 * 32 < kPairs; k0 += threads, kept >>= 1) {  // whole warps
      const bool there = k0 + t < kPairs;
      const int k = there ? k0 + t : 0, q = k / ROWS, r = k % ROWS;
      T value = T(0);
      const int warps = threads / 32;
      GCL_ROLLED
      for (int w = 0; w < warps; w += kFlight) {
        T part[kFlight];
        GCL_UNROLL
        for (int i = 0; i < kFlight; ++i) part[i] = w + i < warps ? partial[(w + i) * kPairs + k] : T(0);
        GCL_UNROLL
        for (int i = 0; i < kFlight; ++i) value += part[i];
      }
      value /= p.temperature;
      const bool keep = there && (kept & 1u) != 0;
      const T nothing = -std::numeric_limits<T>::infinity(), before = top[q];
      T now = keep && value > before ? value : before;
      GCL_UNROLL
      for (int offset = ROWS / 2; offset > 0; offset /= 2) now = maximum(now, __shfl_xor_sync(kAllLanes, now, offset));
      const T shift = now > nothing ? now : T(0), w = keep ? ::exp(value - shift) : T(0);
      T added = w, logits = keep ? w * value : T(0);
      GCL_UNROLL
      for (int offset = ROWS / 2; offset > 0; offset /= 2) {
        added += __shfl_xor_sync(kAllLanes, added, offset);
        logits += __shfl_xor_sync(kAllLanes, logits, offset);
      }
      __syncwarp();
      if (there) weight[k] = w;
      moved = moved || now > before;
      if (!there || r != 0) continue;
      const T factor = now > before ? ::exp(before - shift) : T(1);
      scale[q] = factor;
      top[q] = now;
      sum[q] = sum[q] * factor + added;
      logit[q] = logit[q] * factor + logits;
    }
    return moved;
  }

  __device__ void finish(const NceParams<T>& p, const SweepPlace& place) const {
    for (int q = threadIdx.x; q < QUERIES && place.b0 + q < p.batch; q += static_cast<int>(blockDim.x)) {
      const int64_t at = place.chunk * p.batch + place.b0 + q;
      p.part_max[at] = top[q];
      p.part_sum[at] = sum[q];
      p.part_logit[at] = logit[q];
    }
  }
};

}  // namespace gcl
