// One sweep of a bank by a group of queries: for a block of bank rows that stays in the cache, the logits of all queries, their
// softmax weights (online: maximum and sum so far), and the weighted sum of the rows. The order of every addition is fixed by
// the sizes alone.
#include "bank/bank_math.h"
#include "bank/bank_sweep.h"
#include "bank/bank_vector.h"

namespace gcl {
namespace GCL_ISA {
namespace {

constexpr int64_t kSlice = 256;  // elements summed in a register before they join the logit; their queries fit the first cache
constexpr int kMaxBlock = 96;
constexpr int kAhead = 16;  // floats between the columns worked on and those asked for: a cache line

struct Block {
  const float* row[kMaxBlock];  // float32 rows, in the bank or in the scratch; those past the last repeat it
  int64_t rows;
};

// The next block's cache lines, asked for a few at a time between the products of this one: in a burst they would stall it.
struct Prefetch {
  const char* next;
  int lines;  // to a step of kStep elements

  void go() {
    for (int k = 0; k < lines; ++k, next += 64) __builtin_prefetch(next, 0, 2);
  }
};
constexpr int64_t kStep = 16;

// logits[r][lane] += row[r] . query[lane] over [d0, d1), REGS registers of lanes.
template <int ROWS, int REGS>
inline void dot_tile(const float* const* row, const float* packed, int64_t d0, int64_t d1, float* logits, Prefetch& prefetch) {
  const float* x[ROWS];
  for (int r = 0; r < ROWS; ++r) x[r] = row[r];
  Reg sum[ROWS][REGS];
#pragma GCC unroll 16
  for (int r = 0; r < ROWS; ++r) {
#pragma GCC unroll 4
    for (int v = 0; v < REGS; ++v) sum[r][v] = splat_reg(0.0f);
  }
  for (int64_t step = d0; step < d1; step += kStep) {
    const int64_t stop = step + kStep < d1 ? step + kStep : d1;
    for (int64_t d = step; d < stop; ++d) {
      Reg q[REGS];
#pragma GCC unroll 4
      for (int v = 0; v < REGS; ++v) q[v] = load_reg(packed + d * kGroup + v * kWidth);
#pragma GCC unroll 16
      for (int r = 0; r < ROWS; ++r) {
        const Reg element = splat_reg(x[r][d]);
#pragma GCC unroll 4
        for (int v = 0; v < REGS; ++v) sum[r][v] = fma_reg(element, q[v], sum[r][v]);
      }
    }
    prefetch.go();
  }
#pragma GCC unroll 16
  for (int r = 0; r < ROWS; ++r) {
#pragma GCC unroll 4
    for (int v = 0; v < REGS; ++v) {
      float* to = logits + r * kGroup + v * kWidth;
      store_reg(to, fma_reg(splat_reg(1.0f), sum[r][v], load_reg(to)));
    }
  }
}

// mean[b][d..] += sum over rows of weight[r][b] * row[r][d..], for QUERIES queries and REGS registers of d.
template <int QUERIES, int REGS, bool AHEAD>
inline void mean_tile(const Block& block, const float* weight, int64_t d, float* mean, int64_t mean_stride) {
  Reg sum[QUERIES][REGS];
#pragma GCC unroll 4
  for (int b = 0; b < QUERIES; ++b) {
#pragma GCC unroll 4
    for (int v = 0; v < REGS; ++v) sum[b][v] = load_reg(mean + b * mean_stride + d + v * kWidth);
  }
  for (int64_t r = 0; r < block.rows; ++r) {
    Reg x[REGS];
#pragma GCC unroll 4
    for (int v = 0; v < REGS; ++v) x[v] = load_reg(block.row[r] + d + v * kWidth);
    if (AHEAD) __builtin_prefetch(block.row[r] + d + REGS * kWidth + kAhead);
#pragma GCC unroll 4
    for (int b = 0; b < QUERIES; ++b) {
      const Reg w = splat_reg(weight[r * kGroup + b]);
#pragma GCC unroll 4
      for (int v = 0; v < REGS; ++v) sum[b][v] = fma_reg(w, x[v], sum[b][v]);
    }
  }
#pragma GCC unroll 4
  for (int b = 0; b < QUERIES; ++b) {
#pragma GCC unroll 4
    for (int v = 0; v < REGS; ++v) store_reg(mean + b * mean_stride + d + v * kWidth, sum[b][v]);
  }
}

template <class S>
void widen_row(const S* from, int64_t dim, float* to) {
  for (int64_t d = 0; d < dim; ++d) to[d] = widen(from[d]);
}
#if defined(__F16C__)
template <>
void widen_row(const Half* from, int64_t dim, float* to) {
  int64_t d = 0;
  for (; d + 8 <= dim; d += 8) {
    __m128i bits;
    std::memcpy(&bits, from + d, sizeof bits);
    _mm256_storeu_ps(to + d, _mm256_cvtph_ps(bits));
  }
  for (; d < dim; ++d) to[d] = widen(from[d]);
}
#endif

template <class S>
void widen_rows(const BankSweepParams& p, int64_t n, Block& block) {
  const int64_t stride = scratch_stride(p.dim);
  for (int64_t r = 0; r < block.rows; ++r) {
    float* to = p.scratch + r * stride;
    widen_row(static_cast<const S*>(p.bank) + (n + r) * p.stride, p.dim, to);
    for (int64_t d = p.dim; d < padded_dim(p.dim); ++d) to[d] = 0.0f;
    block.row[r] = to;
  }
}

int element_size(Storage storage) { return storage == Storage::float32 ? 4 : 2; }

void load_block(const BankSweepParams& p, int64_t n, int64_t capacity, Block& block) {
  block.rows = p.end - n < capacity ? p.end - n : capacity;
  if (p.storage == Storage::bfloat16) widen_rows<BFloat16>(p, n, block);
  else if (p.storage == Storage::float16) widen_rows<Half>(p, n, block);
  else if (p.padded || (p.dim % kWidth == 0 && (p.queries <= 4 || p.stride % 256 != 0))) {
    for (int64_t r = 0; r < block.rows; ++r) block.row[r] = static_cast<const float*>(p.bank) + (n + r) * p.stride;
  } else {
    widen_rows<float>(p, n, block);
  }
  for (int64_t r = block.rows; r < capacity; ++r) block.row[r] = block.row[block.rows - 1];
}

// Which of the queries from `lane` on have bank row n as a negative.
inline IReg negatives(const BankSweepParams& p, int64_t n, int lane) {
  const GroupRows& g = *p.rows;
  const int64_t label = p.labels[n];
  const IReg classless = load<IReg>(g.classless + lane);
  const IReg low = (classless & static_cast<int32_t>(n)) | (~classless & static_cast<int32_t>(label));
  const IReg high = (classless & static_cast<int32_t>(n >> 32)) | (~classless & static_cast<int32_t>(label >> 32));
  IReg keep = (low != load<IReg>(g.own_low + lane)) | (high != load<IReg>(g.own_high + lane));
  keep &= load<IReg>(g.used + lane);
  if (p.sampled) {
    const UReg column = UReg{} + static_cast<uint32_t>(n);
    const UReg key = sampling_key<UReg>(load<UReg>(g.inner + lane), load<UReg>(g.outer + lane), column);
    keep &= (IReg)(key <= load<UReg>(g.last + lane));
  }
  return keep;
}

// Scales what was summed for one query.
inline void scale_sums(const BankSweepParams& p, int b, float scale) {
  if (scale == 1.0f) return;
  p.sum[b] *= scale;
  float* mean = p.mean + b * padded_dim(p.dim);
  for (int64_t d = 0; p.with_mean && d < padded_dim(p.dim); d += kWidth) {
    store_reg(mean + d, fma_reg(load_reg(mean + d), splat_reg(scale), splat_reg(0.0f)));
  }
}

// Turns the block's logits of the queries from `lane` on into weights exp(logit - max), 0 where the row is no negative, and
// moves max and sum along; what was summed before is scaled to the new max.
void weigh(const BankSweepParams& p, int64_t n, int64_t rows, int lane, float* logits) {
  IReg keep[kMaxBlock];
  const Reg before = load_reg(p.max + lane), temperature = splat_reg(p.temperature), nothing = splat_reg(-__builtin_inff());
  Reg top = before;
  for (int64_t r = 0; r < rows; ++r) {
    keep[r] = negatives(p, n + r, lane);
    const Reg logit = load_reg(logits + r * kGroup) / temperature;
    store_reg(logits + r * kGroup, logit);
    top = max_reg(keep[r] ? logit : nothing, top);
  }
  const Reg shift = top > nothing ? top : splat_reg(0.0f);
  if (any((IReg)(top > before))) {
    const Reg scale = before > nothing ? exp_not_positive(before - shift) : splat_reg(0.0f);
    for (int l = 0; l < kWidth && lane + l < p.queries; ++l) scale_sums(p, lane + l, scale[l]);
    store_reg(p.max + lane, top);
  }
  Reg sum = splat_reg(0.0f);
  for (int64_t r = 0; r < rows; ++r) {
    const Reg weight = keep[r] ? exp_not_positive(load_reg(logits + r * kGroup) - shift) : splat_reg(0.0f);
    store_reg(logits + r * kGroup, weight);
    sum += weight;
  }
  for (int l = 0; l < kWidth; ++l) p.sum[lane + l] += sum[l];
}

template <int REGS>
void mean_columns(const BankSweepParams& p, const Block& block, const float* weight, int64_t d) {
  const int64_t stride = padded_dim(p.dim);
  if (p.queries == 1) return mean_tile<1, REGS, true>(block, weight, d, p.mean, stride);
  if (p.queries == 2) return mean_tile<2, REGS, true>(block, weight, d, p.mean, stride);
  mean_tile<4, REGS, true>(block, weight, d, p.mean, stride);
  for (int b = 4; b < p.queries; b += 4) mean_tile<4, REGS, false>(block, weight + b, d, p.mean + b * stride, stride);
}

template <int LANES>  // 16, or 8 where half of them would be idle
void sweep(const BankSweepParams& p) {
  constexpr int kAcross = LANES / kWidth < 1 ? 1 : LANES / kWidth, kRows = 12 / kAcross;
  const int64_t capacity = block_rows(p.dim);
  const int64_t padded = (p.storage == Storage::float32 && p.dim % kWidth == 0) ? p.dim : padded_dim(p.dim);
  alignas(64) float logits[kMaxBlock * kGroup];
  Block block;
  for (int64_t n = p.begin; n < p.end; n += capacity) {
    load_block(p, n, capacity, block);
    Prefetch prefetch{};
    if (n + capacity < p.num_rows) {
      const int64_t row_bytes = p.stride * element_size(p.storage), left = p.num_rows - n - capacity;
      const int64_t steps = ((p.dim + kStep - 1) / kStep) * ((block.rows + kRows - 1) / kRows);
      prefetch.next = static_cast<const char*>(p.bank) + (n + capacity) * row_bytes;
      prefetch.lines = static_cast<int>(((left < capacity ? left : capacity) * row_bytes / 64 + steps - 1) / steps);
    }
    std::memset(logits, 0, sizeof logits);
    for (int64_t d = 0; d < p.dim; d += kSlice) {
      const int64_t stop = d + kSlice < p.dim ? d + kSlice : p.dim;
      for (int64_t r = 0; r < block.rows; r += kRows) {
        dot_tile<kRows, kAcross>(block.row + r, p.packed, d, stop, logits + r * kGroup, prefetch);
      }
    }
    for (int lane = 0; lane < p.queries; lane += kWidth) weigh(p, n, block.rows, lane, logits + lane);
    if (!p.with_mean) continue;
    int64_t d = 0;
    for (; d + 3 * kWidth <= padded; d += 3 * kWidth) mean_columns<3>(p, block, logits, d);
    if (d + 2 * kWidth <= padded) mean_columns<2>(p, block, logits, d);
    else if (d + kWidth <= padded) mean_columns<1>(p, block, logits, d);
  }
}

}  // namespace

void sweep_bank(const BankSweepParams& p) {
  for (int b = 0; b < kGroup; ++b) {
    p.max[b] = -__builtin_inff();
    p.sum[b] = 0.0;
  }
  if (p.with_mean && p.dim > 0) std::memset(p.mean, 0, sizeof(float) * kGroup * padded_dim(p.dim));
  if (p.queries <= 8) sweep<8>(p);
  else sweep<16>(p);
}

void widen_bank_row(const WidenParams& p, int64_t n) {
  float* to = p.to + n * p.to_stride;
  const int64_t at = n * p.stride;
  if (p.storage == Storage::bfloat16) widen_row(static_cast<const BFloat16*>(p.bank) + at, p.dim, to);
  else if (p.storage == Storage::float16) widen_row(static_cast<const Half*>(p.bank) + at, p.dim, to);
  else widen_row(static_cast<const float*>(p.bank) + at, p.dim, to);
  for (int64_t d = p.dim; d < p.to_stride; ++d) to[d] = 0.0f;
}

}  // namespace GCL_ISA
}  // namespace gcl
