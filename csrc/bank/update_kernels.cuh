// GPU kernels of bank_update_: one block for each bank row named, which applies that row's features in batch order.
#pragma once

#include "bank/block.cuh"

namespace gcl {

template <class T, class S>
__global__ void bank_similarity_kernel(UpdateParams<T> p) {
  __shared__ double room[kMostWarps];
  const int64_t b = blockIdx.x, n = p.index[b];
  if (n < 0 || n >= p.num_rows) return;
  const T* feature = p.feature + b * p.dim;
  const S* row = static_cast<const S*>(p.bank) + n * p.stride;
  double sum = 0, square = 0;
  for (int64_t d = threadIdx.x; d < p.dim; d += blockDim.x) {
    sum += static_cast<double>(feature[d]) * widen(row[d]);
    square += static_cast<double>(feature[d]) * feature[d];
  }
  sum = fold_block(sum, room, Sum{});
  square = fold_block(square, room, Sum{});
  if (threadIdx.x == 0) p.similarity[b] = static_cast<T>(p.unit && square > 0 ? sum / ::sqrt(square) : sum);
}

// By one block for batch position b: it moves the row that b names, if b is the first to name it.
template <class T, class S>
__device__ void move_row(const UpdateParams<T>& p, int64_t b) {
  __shared__ double room[kMostWarps];
  const int64_t n = p.index[b];
  if (n < 0 || n >= p.num_rows) return;
  bool earlier = false, later = false;  // a row belongs to the first batch position that names it
  for (int64_t o = threadIdx.x; o < p.batch; o += blockDim.x) {
    const bool same = p.index[o] == n;
    earlier = earlier || (same && o < b);
    later = later || (same && o > b);
  }
  if (__syncthreads_or(earlier)) return;
  const int64_t end = __syncthreads_or(later) ? p.batch : b + 1;
  S* row = static_cast<S*>(p.bank) + n * p.stride;
  const T kept = static_cast<T>(p.momentum), fresh = static_cast<T>(1 - p.momentum);
  for (int64_t o = b; o < end; ++o) {
    if (p.index[o] != n) continue;
    if (p.hard) {
      const T similarity = p.similarity[o];
      bool beaten = false;
      for (int64_t r = threadIdx.x; r < p.batch; r += blockDim.x) {
        if (p.index[r] == n) beaten = beaten || p.similarity[r] < similarity || (p.similarity[r] == similarity && r < o);
      }
      if (__syncthreads_or(beaten)) continue;
    }
    const T* feature = p.feature + o * p.dim;
    double length = 0, square = 0;
    if (p.unit) {
      for (int64_t d = threadIdx.x; d < p.dim; d += blockDim.x) length += static_cast<double>(feature[d]) * feature[d];
      length = fold_block(length, room, Sum{});
    }
    const T divide = length > 0 ? static_cast<T>(::sqrt(length)) : T(1);
    const auto moved = [&](int64_t d) { return kept * static_cast<T>(widen(row[d])) + fresh * (feature[d] / divide); };
    for (int64_t d = threadIdx.x; d < p.dim; d += blockDim.x) square += static_cast<double>(moved(d)) * moved(d);
    square = fold_block(square, room, Sum{});
    const T norm = square > 0 ? static_cast<T>(::sqrt(square)) : T(1);
    for (int64_t d = threadIdx.x; d < p.dim; d += blockDim.x) narrow(moved(d) / norm, row + d);  // its own columns only
  }
}

template <class T, class S>
__global__ void bank_update_kernel(UpdateParams<T> p) {
  move_row<T, S>(p, blockIdx.x);
}

template <class T, class S>
void launch_bank_update(const UpdateParams<T>& p, GclStream stream) {
  if (p.batch == 0) return;
  if (p.hard) GCL_LAUNCH((bank_similarity_kernel<T, S>), p.batch, kRowThreads, 0, stream, p);
  GCL_LAUNCH((bank_update_kernel<T, S>), p.batch, kRowThreads, 0, stream, p);
}

}  // namespace gcl
