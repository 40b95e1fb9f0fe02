// What the bank ops compute for one row or one (query, bank row) pair: sampling keys, who is a negative, the loss of one
// positive. Compiled for the CPU loops (in their own namespace for each instruction set) and for the kernels.
#pragma once

#include "common/device.h"
#include "common/halves.h"

#if defined(GCL_ISA)
namespace gcl {
namespace GCL_ISA {
#else
namespace gcl {
#endif

// Sampling, as gcl_fast.reference.bank defines it: for one (seed, stream, row of the batch) `sampling_key` is a bijection of
// the bank row, so the K allowed rows with the smallest keys are an exact sample without replacement, and a bank row is in
// it if its key is not above the largest of those. Streams: 0 the negatives, 1 and 2 the two random positives.
constexpr uint32_t kNegatives = 0;
constexpr uint32_t kEveryKey = 0xffffffffu;

struct RowWords {
  uint32_t inner, outer;
};

template <class U>  // a word, or a vector of them
GCL_HD U mix_bits(U x) {
  x ^= x >> 16;
  x *= 0x7feb352du;
  x ^= x >> 15;
  x *= 0x846ca68bu;
  return x ^ (x >> 16);
}

GCL_HD uint32_t row_word(uint32_t t, int64_t seed, int64_t row) {
  const uint64_t bits = static_cast<uint64_t>(seed);
  uint32_t x = mix_bits(t * 0x9e3779b9u);
  x = mix_bits(x ^ static_cast<uint32_t>(bits));
  x = mix_bits(x ^ static_cast<uint32_t>(bits >> 32));
  return mix_bits(x ^ static_cast<uint32_t>(row));
}

GCL_HD RowWords row_words(uint32_t stream, int64_t seed, int64_t row) {
  return {row_word(2 * stream + 1, seed, row), row_word(2 * stream + 2, seed, row)};
}

// The seed of an NceParams: the caller's number, or one that lies with the tensors.
template <class P>
GCL_HD int64_t seed_of(const P& p) {
  return p.seed != nullptr ? *p.seed : p.seed_value;
}

template <class U>
GCL_HD U sampling_key(U inner, U outer, U column) {
  return mix_bits<U>(mix_bits<U>(column ^ inner) ^ outer);
}

// Rows of another label are negatives; without a label (below 0) a query's first positive has all rows but itself.
GCL_HD bool is_negative(int64_t own_label, int64_t first, int64_t label, int64_t n) {
  return own_label < 0 ? n != first : label != own_label;
}

// The cross-entropy of a positive logit against the log-sum-exp of its negatives, log(1 + exp(lse - positive)), and its
// derivative by lse (minus that by the positive logit).
struct PairLoss {
  double loss, weight;
};

GCL_HD PairLoss pair_loss(double positive, double lse) {
  const double x = lse - positive;
  if (x != x) return {x, x};
  const double e = ::exp(x > 0 ? -x : x);  // lse = -inf, no negatives: loss 0, weight 0
  return {(x > 0 ? x : 0.0) + ::log1p(e), x > 0 ? 1.0 / (1.0 + e) : e / (1.0 + e)};
}

// Column d of row b of both gradients, from a GclBackwardParams.
template <class P>
GCL_HD void gcl_gradient(const P& p, int64_t b, int64_t d) {
  const auto* rows = p.view_grad + 3 * b * p.dim + d;
  p.view[b * p.dim + d] = (p.grad[0] * rows[0] + p.grad[1] * rows[p.dim]) + p.grad[2] * rows[2 * p.dim];
  p.photo[b * p.dim + d] = p.grad[2] * p.photo_grad[b * p.dim + d];
}

}  // namespace gcl
#if defined(GCL_ISA)
}
#endif
