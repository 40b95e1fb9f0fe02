// GPU kernels of bank_nce and the order in which they run. No torch header: the same file runs on emulated threads.
//
// Three launches: the last key of each query's sample, one sweep that reads the bank once for each 16 queries (sweep_mma.cuh,
// sweep_fma.cuh), and the sum of its parts.
#pragma once

#include "bank/select_kernels.cuh"
#include "bank/sweep_fma.cuh"
#include "bank/sweep_mma.cuh"

namespace gcl {

// One block adds the parts of 256 columns of one query, in an order that never changes; the block of the first columns has the
// losses too.
template <class T, class S>
__global__ void bank_combine_kernel(NceParams<T> p, int64_t slices) {
  __shared__ double room[kMostWarps];
  const int64_t b = blockIdx.x / slices, slice = blockIdx.x % slices, t = threadIdx.x, d = slice * kRowThreads + t;
  const Negatives negatives = add_parts_together(p, b);
  const double lse = negatives.lse();
  T mean = T(0);
  if (p.with_grad) mean = average_column(p, b, slice * kRowThreads, negatives);
  const bool known = names_a_row(p, p.positive[b * p.positives]);
  for (int64_t k = 0; k < p.positives; ++k) {
    const int64_t at = b * p.positives + k, n = p.positive[at];
    const bool row_exists = known && names_a_row(p, n);
    const S* row = static_cast<const S*>(p.bank) + (row_exists ? n : 0) * p.stride;
    const T element = row_exists && d < p.dim ? static_cast<T>(widen(row[d])) : T(0);
    if (p.folded) mean -= element;
    else if (p.with_grad && d < p.dim) p.rows[at * p.dim + d] = element;
    if (slice != 0) continue;
    const T* query = p.positive_query != nullptr ? p.positive_query + at * p.dim : p.query + b * p.dim;
    double dot = 0;
    for (int64_t e = t; e < p.dim && row_exists; e += kRowThreads) dot += static_cast<double>(query[e]) * widen(row[e]);
    dot = fold_block(dot, room, Sum{});
    const double nan = std::numeric_limits<double>::quiet_NaN();
    const PairLoss pair = row_exists ? pair_loss(dot / p.temperature, lse) : PairLoss{nan, nan};
    if (t != 0) continue;
    p.loss[at] = static_cast<T>(pair.loss);
    if (p.with_grad) p.weight[at] = static_cast<T>(pair.weight);
  }
  if (p.with_grad && d < p.dim) p.mean[b * p.dim + d] = mean;
}

template <class T, class S>
void launch_sweep(const NceParams<T>& p, GclStream stream) {
  if constexpr (std::is_same_v<T, float>) {
    if (p.sweep != Sweep::fused) return launch_sweep_mma<S>(p, stream);
    const bool whole = whole_rows<S>(p.bank, p.stride, p.dim, 4) && whole_rows<T>(p.query, p.dim, p.dim, 4);
    if (whole) return launch_sweep_fma<T, S, true>(p, stream);
  }
  launch_sweep_fma<T, S, false>(p, stream);
}

inline int64_t row_slices(int64_t dim) { return maximum((dim + kRowThreads - 1) / kRowThreads, int64_t{1}); }

template <class T, class S>
void launch_bank_nce(const NceParams<T>& p, GclStream stream) {
  if (p.batch == 0) return;
  launch_select(p, stream);
  launch_sweep<T, S>(p, stream);
  const int64_t slices = row_slices(p.dim);
  GCL_LAUNCH((bank_combine_kernel<T, S>), p.batch * slices, kRowThreads, 0, stream, p, slices);
}

}  // namespace gcl
