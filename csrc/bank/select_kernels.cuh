// GPU kernels that choose rows by sampling keys: the negatives' K-th smallest key, byte by byte, and the random positives.
#pragma once

#include "bank/bank.h"
#include "bank/bank_math.h"
#include "common/launch.cuh"

namespace gcl {

constexpr int kRowThreads = 256;  // of a block that works on one row of the batch; counts have one bin for each

// Folds the block's values in an order that the block's size alone decides; every thread gets the result. blockDim.x is a
// power of two and at most kRowThreads; `room` may be used again at once.
template <class V, class F>
__device__ V fold_block(V value, V* room, F&& f) {
  const int t = static_cast<int>(threadIdx.x);
  room[t] = value;
  __syncthreads();
  for (int half = static_cast<int>(blockDim.x) / 2; half > 0; half /= 2) {
    if (t < half) room[t] = f(room[t], room[t + half]);
    __syncthreads();
  }
  const V result = room[0];
  __syncthreads();
  return result;
}

template <class T>
__device__ bool names_a_row(const NceParams<T>& p, int64_t row) {
  return row >= 0 && row < p.num_rows;
}

// Key prefix so far and how many of the smallest keys behind it are still wanted, one byte further. False: there are fewer.
__device__ inline bool descend(const uint32_t* counts, uint32_t* prefix, int64_t* wanted) {
  __shared__ uint32_t upto[kRowThreads];
  __shared__ uint32_t digit[2];  // the one that the key goes on with, and how many keys come before it
  const int t = static_cast<int>(threadIdx.x);
  const uint32_t count = counts[t];
  upto[t] = count;
  __syncthreads();
  for (int step = 1; step < kRowThreads; step *= 2) {
    const uint32_t before = t >= step ? upto[t - step] : 0;
    __syncthreads();
    upto[t] += before;
    __syncthreads();
  }
  const uint32_t total = upto[kRowThreads - 1], last = upto[t];
  if (last - count < *wanted && *wanted <= last) {
    digit[0] = static_cast<uint32_t>(t);
    digit[1] = last - count;
  }
  __syncthreads();
  const bool enough = *wanted <= total;
  if (enough) {
    *prefix = *prefix << 8 | digit[0];
    *wanted -= digit[1];
  }
  __syncthreads();
  return enough;
}

// `splits` blocks for each query. Counts bytes [from, to) of the keys; with `finish` the last key is known after the fourth.
// Small banks: one launch with one block a query; large ones: one launch for each byte, so that many blocks can share a query.
template <class T>
__global__ void bank_select_kernel(NceParams<T> p, int64_t splits, int from, int to, bool finish) {
  __shared__ uint32_t counts[kRowThreads];
  const int64_t b = blockIdx.x / splits, split = blockIdx.x % splits, first = p.positive[b * p.positives];
  const int t = static_cast<int>(threadIdx.x);
  if (!names_a_row(p, first)) return;
  const int64_t own_label = p.labels[first];
  const RowWords words = row_words(kNegatives, *p.seed, b);
  uint32_t prefix = 0;
  int64_t wanted = p.count;
  for (int byte = 0; byte < (finish ? 4 : to); ++byte) {
    uint32_t* total = p.digits + (b * 4 + byte) * kRowThreads;
    if (byte >= from && byte < to) {
      counts[t] = 0;
      __syncthreads();
      for (int64_t n = split * kRowThreads + t; n < p.num_rows; n += splits * kRowThreads) {
        const uint32_t key = sampling_key<uint32_t>(words.inner, words.outer, static_cast<uint32_t>(n));
        if (byte > 0 && key >> (32 - 8 * byte) != prefix) continue;
        if (is_negative(own_label, first, p.labels[n], n)) atomicAdd(&counts[key >> (24 - 8 * byte) & 0xffu], 1u);
      }
      __syncthreads();
      if (counts[t] != 0) atomicAdd(&total[t], counts[t]);
      __syncthreads();
    }
    if (!finish && byte + 1 == to) return;
    if (!descend(total, &prefix, &wanted)) {
      if (finish && t == 0) p.last[b] = kEveryKey;
      return;
    }
  }
  if (t == 0) p.last[b] = prefix;
}

template <class T>
void launch_select(const NceParams<T>& p, GclStream stream) {
  constexpr int64_t kOneBlock = 1 << 16;  // rows that one block counts faster than five launches take
  if (p.count < 0 || p.batch == 0) return;
  const int64_t parts = p.num_rows <= kOneBlock ? 1 : (p.num_rows + kOneBlock / 4 - 1) / (kOneBlock / 4);
  const int64_t splits = parts < 64 ? parts : 64;
  if (splits == 1) {
    GCL_LAUNCH((bank_select_kernel<T>), p.batch, kRowThreads, 0, stream, p, splits, 0, 4, true);
    return;
  }
  for (int byte = 0; byte < 4; ++byte) {
    GCL_LAUNCH((bank_select_kernel<T>), p.batch * splits, kRowThreads, 0, stream, p, splits, byte, byte + 1, false);
  }
  GCL_LAUNCH((bank_select_kernel<T>), p.batch, kRowThreads, 0, stream, p, int64_t{1}, 4, 4, true);
}

// The row of the label of `index` with the smallest key; `index` where it has no label or is no row.
__device__ inline int64_t draw_row(const int64_t* labels, int64_t size, int64_t index, RowWords words) {
  __shared__ unsigned long long room[kRowThreads];
  if (index < 0 || index >= size) return index;
  const int64_t own_label = labels[index];
  if (own_label < 0) return index;
  unsigned long long best = ~0ull;
  for (int64_t n = threadIdx.x; n < size; n += blockDim.x) {
    if (labels[n] != own_label) continue;
    const uint32_t key = sampling_key<uint32_t>(words.inner, words.outer, static_cast<uint32_t>(n));
    best = minimum(best, static_cast<unsigned long long>(key) << 32 | static_cast<uint32_t>(n));
  }
  best = fold_block(best, room, [](unsigned long long a, unsigned long long b) { return minimum(a, b); });
  return static_cast<int64_t>(best & 0xffffffffu);
}

static __global__ void draw_positives_kernel(const int64_t* labels, int64_t size, const int64_t* index, const int64_t* seed,
                                             int64_t* out) {
  const int64_t b = blockIdx.x;
  for (uint32_t s = 1; s <= 2; ++s) {
    const int64_t row = draw_row(labels, size, index[b], row_words(s, *seed, b));
    if (threadIdx.x == 0) out[2 * b + s - 1] = row;
  }
}

}  // namespace gcl
