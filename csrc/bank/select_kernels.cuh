// GPU kernels that choose rows by sampling keys: the negatives' K-th smallest key, digit by digit, and the random positives.
//
// The first digit has 12 bits, so what is behind it is one key in 4,096: the passes that follow skip nearly every row, and where
// one block has a whole query it remembers which it may not skip.
#pragma once

#include "bank/block.cuh"

namespace gcl {

constexpr int kDigits = 3;
constexpr int kMostBins = 4096;
__device__ constexpr int digit_bits(int digit) { return digit == 2 ? 8 : 12; }
__device__ constexpr int digit_shift(int digit) { return digit == 0 ? 20 : digit == 1 ? 8 : 0; }

// Threads of a block that has all rows for one query: a few rows each, which a mask of 64 bits can name up to 64 * 1024.
inline int row_threads(int64_t num_rows, int64_t dim) {
  int threads = 128;
  while (threads < 1024 && (threads * 8 < num_rows || threads * 4 < dim)) threads *= 2;
  return threads;
}

// Key prefix so far and how many of the smallest keys behind it are still wanted, one digit further. False: there are fewer.
__device__ inline bool descend(const uint32_t* counts, int bits, uint32_t* prefix, int64_t* wanted) {
  __shared__ uint32_t warp_total[kMostWarps];
  __shared__ uint32_t digit[2];  // the one that the key goes on with, and how many keys come before it
  const int t = static_cast<int>(threadIdx.x), warp = t / 32, lane = t % 32, threads = static_cast<int>(blockDim.x);
  const int bins = 1 << bits, each = (bins + threads - 1) / threads, begin = t * each;
  uint32_t own = 0;
  for (int i = begin; i < begin + each && i < bins; ++i) own += counts[i];
  uint32_t upto = own;
  for (int step = 1; step < 32; step *= 2) {
    const uint32_t before = __shfl_up_sync(kAllLanes, upto, step);
    if (lane >= step) upto += before;
  }
  if (lane == 31) warp_total[warp] = upto;
  __syncthreads();
  uint32_t warps = lane < threads / 32 ? warp_total[lane] : 0;  // then of the warps up to this one
  for (int step = 1; step < 32; step *= 2) {
    const uint32_t sooner = __shfl_up_sync(kAllLanes, warps, step);
    if (lane >= step) warps += sooner;
  }
  const uint32_t total = __shfl_sync(kAllLanes, warps, 31), sooner = __shfl_sync(kAllLanes, warps, warp > 0 ? warp - 1 : 0);
  uint32_t before = upto - own + (warp > 0 ? sooner : 0);
  if (before < *wanted && *wanted <= before + own) {
    int i = begin;
    for (; *wanted > before + counts[i]; ++i) before += counts[i];
    digit[0] = static_cast<uint32_t>(i);
    digit[1] = before;
  }
  __syncthreads();
  const bool enough = *wanted <= total;
  if (enough) {
    *prefix = *prefix << bits | digit[0];
    *wanted -= digit[1];
  }
  __syncthreads();
  return enough;
}

// What a block counts of query b: rows begin, begin + step, ... of this thread.
struct OwnRows {
  RowWords words;
  int64_t own_label, first, begin, step;

  __device__ uint32_t key(int64_t n) const { return sampling_key<uint32_t>(words.inner, words.outer, static_cast<uint32_t>(n)); }
};

// Counts the first digit of each negative. Returns which of the thread's first 64 rows are negatives.
template <class T>
__device__ uint64_t count_first_digit(const NceParams<T>& p, const OwnRows& own, uint32_t* counts) {
  constexpr int kFlight = 4;  // labels on their way at once
  uint64_t marked = 0;
  int64_t n = own.begin;
  for (int64_t i0 = 0; n < p.num_rows; i0 += kFlight) {
    int64_t label[kFlight];
    GCL_UNROLL
    for (int i = 0; i < kFlight; ++i) label[i] = p.labels[minimum(n + i * own.step, p.num_rows - 1)];
    GCL_UNROLL
    for (int i = 0; i < kFlight; ++i, n += own.step) {
      if (n >= p.num_rows || !is_negative(own.own_label, own.first, label[i], n)) continue;
      if (i0 + i < 64) marked |= uint64_t{1} << (i0 + i);
      atomicAdd(&counts[own.key(n) >> digit_shift(0)], 1u);
    }
  }
  return marked;
}

// Counts a later digit of the negatives whose key begins with `prefix`. `marks`: `marked` says which rows may be such, and then,
// after the second digit, which are.
template <class T>
__device__ void count_digit(const NceParams<T>& p, const OwnRows& own, int digit, uint32_t prefix, bool marks, uint64_t* marked,
                            uint32_t* counts) {
  const int shift = digit_shift(digit), above = shift + digit_bits(digit);
  uint64_t kept = 0;
  int64_t n = own.begin;
  for (int64_t i = 0; n < p.num_rows; ++i, n += own.step) {
    if (marks && (*marked >> i & 1) == 0) continue;
    const uint32_t key = own.key(n);
    if (key >> above != prefix) continue;
    if (!marks && !is_negative(own.own_label, own.first, p.labels[n], n)) continue;
    if (marks) kept |= uint64_t{1} << i;
    atomicAdd(&counts[key >> shift & ((1u << digit_bits(digit)) - 1)], 1u);
  }
  *marked = kept;
}

// The rows of one of `splits` blocks that share query b, counted by digit `from`, or, where the block has them all, by each
// digit; then it writes p.last. Digits before `from` are in p.counts.
template <class T>
__device__ void select_rows(const NceParams<T>& p, int64_t b, int64_t split, int64_t splits, int from) {
  __shared__ uint32_t counts[kMostBins];
  const int64_t first = p.first[b * p.first_stride], threads = blockDim.x;
  if (!names_a_row(p, first)) return;
  const OwnRows own{row_words(kNegatives, seed_of(p), b), p.labels[first], first, split * threads + threadIdx.x,
                    splits * threads};
  const bool marks = splits == 1 && p.num_rows <= 64 * own.step;
  uint64_t marked = 0;  // which of this thread's rows share the prefix
  uint32_t prefix = 0;
  int64_t wanted = p.count;
  for (int digit = 0; digit < (splits == 1 ? kDigits : from + 1); ++digit) {
    uint32_t* total = splits == 1 ? counts : p.counts + (b * kDigits + digit) * kMostBins;
    if (digit >= from) {
      for (int i = threadIdx.x; i < 1 << digit_bits(digit); i += static_cast<int>(threads)) counts[i] = 0;
      __syncthreads();
      if (digit == 0) marked = count_first_digit(p, own, counts);
      else count_digit(p, own, digit, prefix, marks, &marked, counts);
      __syncthreads();
      if (splits > 1) {
        for (int i = threadIdx.x; i < 1 << digit_bits(digit); i += static_cast<int>(threads)) {
          if (counts[i] != 0) atomicAdd(&total[i], counts[i]);
        }
        return;
      }
    }
    if (!descend(total, digit_bits(digit), &prefix, &wanted)) {
      if (splits == 1 && threadIdx.x == 0) p.last[b] = kEveryKey;
      return;
    }
  }
  if (threadIdx.x == 0) p.last[b] = prefix;
}

template <class T>
__global__ void __launch_bounds__(kMostWarps * 32) bank_select_kernel(NceParams<T> p, int64_t splits, int from) {
  select_rows(p, blockIdx.x / splits, blockIdx.x % splits, splits, from);
}

// Where blocks shared the queries: one block each reads what they counted.
template <class T>
__global__ void __launch_bounds__(kMostWarps * 32) bank_last_key_kernel(NceParams<T> p) {
  const int64_t b = blockIdx.x;
  uint32_t prefix = 0;
  int64_t wanted = p.count;
  bool enough = names_a_row(p, p.first[b * p.first_stride]);
  for (int digit = 0; digit < kDigits && enough; ++digit) {
    enough = descend(p.counts + (b * kDigits + digit) * kMostBins, digit_bits(digit), &prefix, &wanted);
  }
  if (threadIdx.x == 0) p.last[b] = enough ? prefix : kEveryKey;
}

// The selection's launches after the first digit has been counted.
template <class T>
void launch_select_rest(const NceParams<T>& p, GclStream stream) {
  if (p.count < 0 || p.splits == 1) return;
  const int threads = row_threads(p.num_rows, p.dim);
  for (int digit = 1; digit < kDigits; ++digit) {
    GCL_LAUNCH((bank_select_kernel<T>), p.batch * p.splits, threads, 0, stream, p, p.splits, digit);
  }
  GCL_LAUNCH((bank_last_key_kernel<T>), p.batch, threads, 0, stream, p);
}

// Chooses the negatives of every query.
template <class T>
void launch_select(const NceParams<T>& p, GclStream stream) {
  if (p.count < 0 || p.batch == 0) return;
  if (p.splits > 1) GCL_FILL_BYTES(p.counts, 0, sizeof(uint32_t) * p.batch * kDigits * kMostBins, stream);
  GCL_LAUNCH((bank_select_kernel<T>), p.batch * p.splits, row_threads(p.num_rows, p.dim), 0, stream, p, p.splits, 0);
  launch_select_rest(p, stream);
}

// Blocks that share a query: 1 unless the bank is large and the batch leaves processors idle.
inline int64_t select_splits(int64_t batch, int64_t rows, int64_t processors) {
  constexpr int64_t kOneBlock = 1 << 16;  // rows that one block counts faster than four more launches take
  if (rows <= kOneBlock) return 1;
  const int64_t idle = processors / maximum(batch, int64_t{1}), most = rows / (kOneBlock / 4);
  return maximum(minimum(idle, most), int64_t{1});
}

// Rows of the label of `index` with the smallest keys of streams 1 and 2; `index` where it has no label or is no row. Every
// thread gets both.
__device__ inline void draw_rows(const int64_t* labels, int64_t size, int64_t index, int64_t seed, int64_t b, int64_t out[2]) {
  constexpr int kFlight = 4;  // labels on their way at once
  __shared__ unsigned long long room[2 * kMostWarps];
  out[0] = out[1] = index;
  if (index < 0 || index >= size) return;
  const int64_t own_label = labels[index];
  if (own_label < 0) return;
  const RowWords words[2] = {row_words(1, seed, b), row_words(2, seed, b)};
  unsigned long long best[2] = {~0ull, ~0ull};
  const int64_t step = blockDim.x;
  for (int64_t n0 = threadIdx.x; n0 < size; n0 += kFlight * step) {
    int64_t label[kFlight];
    GCL_UNROLL
    for (int i = 0; i < kFlight; ++i) label[i] = labels[minimum(n0 + i * step, size - 1)];
    GCL_UNROLL
    for (int i = 0; i < kFlight; ++i) {
      const int64_t n = n0 + i * step;
      if (n >= size || label[i] != own_label) continue;
      for (int s = 0; s < 2; ++s) {
        const uint32_t key = sampling_key<uint32_t>(words[s].inner, words[s].outer, static_cast<uint32_t>(n));
        best[s] = minimum(best[s], static_cast<unsigned long long>(key) << 32 | static_cast<uint32_t>(n));
      }
    }
  }
  fold_block_each(best, room, [](unsigned long long a, unsigned long long b) { return minimum(a, b); });
  for (int s = 0; s < 2; ++s) out[s] = static_cast<int64_t>(best[s] & 0xffffffffu);
}

static __global__ void draw_positives_kernel(const int64_t* labels, int64_t size, const int64_t* index, const int64_t* seed,
                                             int64_t* out) {
  const int64_t b = blockIdx.x;
  int64_t rows[2];
  draw_rows(labels, size, index[b], *seed, b, rows);
  if (threadIdx.x < 2) out[2 * b + threadIdx.x] = threadIdx.x == 0 ? rows[0] : rows[1];
}

}  // namespace gcl
