// The CPU's float32 sweep of a bank, compiled for each instruction set: plain structs that both sides know.
#pragma once

#include <cstdint>

#include "common/isa.h"

namespace gcl {

constexpr int kGroup = 16;  // queries that share a sweep, one to a lane

enum class Storage : int32_t { float32, float64, bfloat16, float16 };

// What decides whether a bank row is a negative of each query of a group. A lane without a query keeps none: `used` 0.
struct GroupRows {
  int32_t own_low[kGroup], own_high[kGroup];  // halves of the label, or of the row itself where there is no label
  int32_t classless[kGroup];                  // -1 where there is no label, else 0
  int32_t used[kGroup];                       // -1 or 0
  uint32_t inner[kGroup], outer[kGroup];      // words of the sampling key
  uint32_t last[kGroup];                      // largest key in the sample
};

struct BankSweepParams {
  const float* packed;    // [D, 16]   the group's queries, zero in lanes without one
  const GroupRows* rows;
  int queries;            // at most 16
  bool sampled;           // false: keys need not be looked at
  bool with_mean;
  const void* bank;       // [N, D]    of `storage`, rows `stride` elements apart
  Storage storage;
  int64_t stride;
  bool padded;            // rows are float32, zero from D to padded_dim(D), and stand apart as in the scratch
  const int64_t* labels;  // [N]
  int64_t begin, end;     // bank rows of this sweep
  int64_t num_rows;       // N
  int64_t dim;            // D
  float temperature;
  float* max;             // [16]      largest logit of a negative, -inf without any
  double* sum;            // [16]      sum of exp(logit - max)
  float* mean;            // [16, padded_dim(D)]  sum of exp(logit - max) * bank row
  float* scratch;         // scratch_floats(D), aligned to 64 bytes as the arrays above
};

constexpr int64_t kPad = 16;
constexpr int64_t padded_dim(int64_t dim) { return (dim + kPad - 1) / kPad * kPad; }
// Rows of a block: what stays in the second cache beside the queries and their sums. A multiple of 12, every tile's height.
constexpr int64_t block_rows(int64_t dim) {
  const int64_t rows = dim > 0 ? 49152 / padded_dim(dim) / 12 * 12 : 96;  // rows may have no elements
  return rows < 12 ? 12 : rows > 96 ? 96 : rows;
}
// Rows in the scratch stand apart by an odd number of cache lines: a power of two would put them all into one cache set.
constexpr int64_t scratch_stride(int64_t dim) { return padded_dim(dim) + (padded_dim(dim) / kPad % 2 == 0 ? kPad : 0); }
constexpr int64_t scratch_floats(int64_t dim) { return block_rows(dim) * scratch_stride(dim); }

struct WidenParams {
  const void* bank;   // [N, D] of `storage`, rows `stride` elements apart
  Storage storage;
  int64_t stride, dim;
  float* to;          // [N, to_stride], zero from D on
  int64_t to_stride;
};

struct SelectParams {
  const int64_t* labels;  // [N]
  int64_t num_rows;       // N
  int64_t own_label, first;
  uint32_t inner, outer;
  int64_t count;          // K
};

// sweep_bank: one pass over [begin, end). widen_bank_row: row n as float32. last_key: the K-th smallest key of a query's
// negatives, every key when fewer. smallest_key: the row of `own_label` with the smallest key, `first` when there is no label.
#define GCL_DECLARE_BANK(isa)                           \
  namespace isa {                                       \
  void sweep_bank(const BankSweepParams& p);            \
  void widen_bank_row(const WidenParams& p, int64_t n); \
  uint32_t last_key(const SelectParams& p);             \
  int64_t smallest_key(const SelectParams& p);          \
  }
GCL_EACH_ISA(GCL_DECLARE_BANK)
#undef GCL_DECLARE_BANK

}  // namespace gcl
