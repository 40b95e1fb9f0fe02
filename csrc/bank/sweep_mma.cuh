// The sweep on tensor cores, for aligned rows of up to 2,048 float32, bfloat16 or float16 elements, from sm_80 on.
//
// A warp owns 128 columns (256 of 16 bits): of the tile's rows in shared memory, which nobody else reads, of 16 queries, and of
// their weighted sums in registers. Only logits go from warp to warp. A tile's rows give the logits and then, weighted, the sums;
// as each 128 bytes of columns are done with, the next tile's are asked for in their place.
//
// float32 by three products (common/mma.cuh); numbers of 16 bits are one tf32 already, so the queries alone are split. The cores
// cut what they add, so they add twice to the large terms of a logit and 6 times to a sum; the rest is added in float32, rounded
// to nearest. (Four times, an H100 was 2.01 times as far from float64 as PyTorch; twice PyTorch's error is allowed.)
#pragma once

#include <utility>

#include "bank/sweep_tile.cuh"
#include "common/mma.cuh"

namespace gcl {

constexpr int kMmaQueries = 16;
constexpr int64_t kMmaWidest = 2048;
// Columns of a warp. With 128 its sums leave room for four warps on each scheduler, which hide one another's waits; two tiles'
// worth of 16 bits would spill.
template <class S>
constexpr int kMmaColumns = sizeof(S) == 4 ? 128 : 256;
template <class S>
constexpr int kMmaThreads = kMmaWidest / kMmaColumns<S> * 32;  // at most

template <class S>
constexpr int kMmaRows = sizeof(S) == 4 ? 8 : 16;  // of a tile: 4 KiB a warp, 8 of 16 bits

// Bytes of dynamic shared memory: rows, queries where they lie there, logits of each warp, weights.
template <class S>
constexpr int64_t mma_shared_bytes(int64_t dim, bool queries_shared) {
  const int64_t warps = (dim + kMmaColumns<S> - 1) / kMmaColumns<S>, pairs = kMmaQueries * kMmaRows<S>;
  const int64_t columns = kMmaColumns<S> * (kMmaRows<S> * int64_t{sizeof(S)} + (queries_shared ? kMmaQueries * 4 : 0));
  return warps * (columns + pairs * 4) + pairs * 4;
}

// Where byte `byte` of a row's 128 bytes of columns lies. They are turned, 16 at a time, so that no two rows that are read
// together share a bank.
constexpr int kSpanBytes = 128;
template <int ROW_BYTES>
__device__ int span_place(int row, int span, int byte, int turn) {
  return row * ROW_BYTES + span * kSpanBytes + (byte ^ turn << 4);
}

// Bits of the numbers, that a core takes as tf32: low only where S has more than tf32.
template <class S>
struct TileFour {
  uint32_t high[4], low[4];

  // `turn` is that of the row.
  __device__ void load(const unsigned char* rows, int row, int span, int column, int turn) {
    const int byte = column * static_cast<int>(sizeof(S));
    const Four<S> four =
        *reinterpret_cast<const Four<S>*>(rows + span_place<kMmaColumns<S>* static_cast<int>(sizeof(S))>(row, span, byte, turn));
    GCL_UNROLL
    for (int e = 0; e < 4; ++e) {
      if constexpr (sizeof(S) == 4) {
        const Tf32 two = nearest_tf32(four.v[e]);
        high[e] = two.high;
        low[e] = two.low;
      } else {
        high[e] = to_bits(widen(four.v[e]));
      }
    }
  }
};

// f of each number below COUNT, as a constant.
template <int COUNT, class F>
__device__ void each_span(F&& f) {
  [&]<int... SPAN>(std::integer_sequence<int, SPAN...>) {
    (f(std::integral_constant<int, SPAN>{}), ...);
  }(std::make_integer_sequence<int, COUNT>{});
}

// SHARED: the queries lie in shared memory too, else each tile reads them through the first cache.
template <class S, bool SHARED>
__global__ void __launch_bounds__(kMmaThreads<S>) bank_sweep_mma_kernel(NceParams<float> p) {
  constexpr int kRows = kMmaRows<S>, kEights = kRows / 8, kPairs = kMmaQueries * kRows;
  constexpr int kSpan = kSpanBytes / sizeof(S), kSpans = kMmaColumns<S> / kSpan, kPieces = kSpan / 32;
  constexpr int kElements = 16 / sizeof(S), kCopies = kRows / 4;  // of a lane in a span: 16 bytes of every fourth row
  GCL_DYNAMIC_SHARED(unsigned char, shared);
  __shared__ Queries<float, kMmaQueries> queries;

  const int t = static_cast<int>(threadIdx.x), warps = static_cast<int>(blockDim.x) / 32, warp = t / 32, lane = t % 32;
  const int group = lane / 4, quad = lane % 4;
  unsigned char* rows = shared + warp * kMmaColumns<S> * kRows * static_cast<int>(sizeof(S));
  unsigned char* after = shared + warps * kMmaColumns<S> * kRows * static_cast<int>(sizeof(S));
  unsigned char* own_queries = after + warp * kMmaColumns<S> * kMmaQueries * 4;
  if constexpr (SHARED) after += warps * kMmaColumns<S> * kMmaQueries * 4;
  float* partial = reinterpret_cast<float*>(after);
  float* weight = partial + warps * kPairs;

  const SweepPlace place = sweep_place(p, kMmaQueries, kRows);
  const int column0 = warp * kMmaColumns<S>;
  const int64_t b0 = place.b0;
  const S* bank = static_cast<const S*>(p.bank);
  queries.start(p, b0);

  // The lane's share of a tile: columns left from its first on, and rows of the tile.
  const int lane_column = column0 + lane % 8 * kElements;
  const int columns_left = static_cast<int>(minimum(p.dim - lane_column, int64_t{kMmaColumns<S>}));
  const S* next = bank + (place.begin + lane / 8) * p.stride + lane_column;
  const auto rows_from = [&](int64_t n) { return static_cast<int>(minimum(place.end - n, int64_t{kRows})) - lane / 8; };
  int rows_left = rows_from(place.begin);
  const auto fetch = [&](int span) {
    GCL_UNROLL
    for (int i = 0; i < kCopies; ++i) {
      const bool there = span * kSpan < columns_left && 4 * i < rows_left;
      copy_16(
          rows + span_place<kMmaColumns<S>* static_cast<int>(sizeof(S))>(4 * i + lane / 8, span, lane % 8 * 16, (lane / 8) << 1),
          next + 4 * i * p.stride + span * kSpan, there);
    }
    end_copy_group();
  };
  // Columns [column, column + 4) of query q of the group, 0 past the end.
  const auto query_four = [&](int q, int column, float* to) {
    const int64_t b = minimum(b0 + q, p.batch - 1);
    load_four<true>(p.query + b * p.dim, column0 + column, p.dim, to);
  };

  float sum[kSpans * kPieces][4][4];  // [32 columns][column % 4][of the core's sum]
  GCL_UNROLL
  for (int v = 0; v < kSpans * kPieces; ++v) {
    GCL_UNROLL
    for (int k = 0; k < 4; ++k) {
      GCL_UNROLL
      for (int c = 0; c < 4; ++c) sum[v][k][c] = 0.0f;
    }
  }
  if (place.begin < place.end) {
    GCL_UNROLL
    for (int span = 0; span < kSpans; ++span) fetch(span);
  }
  if constexpr (SHARED) {
    GCL_ROLLED
    for (int i = lane; i < kMmaQueries * kMmaColumns<S> / 4; i += 32) {
      const int q = i / (kMmaColumns<S> / 4), column = i % (kMmaColumns<S> / 4) * 4;
      Four<float> four;
      query_four(q, column, four.v);
      *reinterpret_cast<Four<float>*>(own_queries +
                                      span_place<kMmaColumns<S> * 4>(q, column / 32, column % 32 * 4, (q & 1) << 2)) = four;
    }
  }
  __syncthreads();

  for (int64_t n0 = place.begin; n0 < place.end; n0 += kRows) {
    const uint32_t kept = queries.template negatives<kRows>(p, n0, place.end);
    // Logits of 16 queries and 8 rows at a time: the core's row g is row `row` of the eight, which keeps reads apart.
    float large[kEights][4] = {}, small[kEights][4] = {};
    const int row = (group & 4) | (group & 1) << 1 | (group >> 1 & 1);
    const auto logits_of_span = [&](int span) {
      GCL_ROLLED
      for (int step = 0; step < kSpan / 16; ++step) {
        const int column = step * 16 + quad * 4, span_of_queries = (span * kSpan + step * 16) / 32;
        Tf32 query[2][4];
        GCL_UNROLL
        for (int half = 0; half < 2; ++half) {
          const int q = group + 8 * half;
          Four<float> four;
          if constexpr (SHARED) {
            const int byte = step % 2 * 64 + quad * 16;
            four = *reinterpret_cast<const Four<float>*>(
                own_queries + span_place<kMmaColumns<S> * 4>(q, span_of_queries, byte, (group & 1) << 2));
          } else {
            query_four(q, span * kSpan + column, four.v);
          }
          GCL_UNROLL
          for (int e = 0; e < 4; ++e) query[half][e] = cut_tf32(four.v[e]);
        }
        GCL_UNROLL
        for (int eight = 0; eight < kEights; ++eight) {
          TileFour<S> x;
          x.load(rows, 8 * eight + row, span, column, (row & 3) << 1);
          float chain[4] = {};
          GCL_UNROLL
          for (int e = 0; e < 4; e += 2) {
            const uint32_t high[4] = {query[0][e].high, query[1][e].high, query[0][e + 1].high, query[1][e + 1].high};
            const uint32_t low[4] = {query[0][e].low, query[1][e].low, query[0][e + 1].low, query[1][e + 1].low};
            mma_tf32(small[eight], low, x.high[e], x.high[e + 1]);
            if constexpr (sizeof(S) == 4) mma_tf32(small[eight], high, x.low[e], x.low[e + 1]);
            mma_tf32(chain, high, x.high[e], x.high[e + 1]);
          }
          GCL_UNROLL
          for (int c = 0; c < 4; ++c) large[eight][c] += chain[c];
        }
      }
    };
    each_span<kSpans>([&](auto span) {
      wait_copy_groups<kSpans - 1 - decltype(span)::value>();
      __syncwarp();
      logits_of_span(decltype(span)::value);
    });
    GCL_UNROLL
    for (int eight = 0; eight < kEights; ++eight) {
      GCL_UNROLL
      for (int c = 0; c < 4; ++c) {
        const int q = group + 8 * (c / 2), g = 2 * quad + c % 2, r = (g & 4) | (g & 1) << 1 | (g >> 1 & 1);
        partial[warp * kPairs + q * kRows + 8 * eight + r] = large[eight][c] + small[eight][c];
      }
    }
    __syncthreads();
    queries.template weigh<kRows>(p, kept, partial, weight);
    __syncthreads();

    const bool more = n0 + kRows < place.end;
    next += kRows * p.stride;
    rows_left = rows_from(n0 + kRows);
    uint32_t high[kEights][4], low[kEights][4];  // the weights
    GCL_UNROLL
    for (int eight = 0; eight < kEights; ++eight) {
      GCL_UNROLL
      for (int a = 0; a < 4; ++a) {
        const Tf32 two = nearest_tf32(weight[(group + 8 * (a % 2)) * kRows + 8 * eight + quad + 4 * (a / 2)]);
        high[eight][a] = two.high;
        low[eight][a] = two.low;
      }
    }
    const float scale[2] = {queries.scale[group], queries.scale[group + 8]};
    GCL_UNROLL
    for (int span = 0; span < kSpans; ++span) {
      GCL_UNROLL
      for (int piece = 0; piece < kPieces; ++piece) {
        if (!p.with_grad) break;
        float add[4][4] = {};
        GCL_UNROLL
        for (int eight = 0; eight < kEights; ++eight) {
          TileFour<S> x[2];
          GCL_UNROLL
          for (int half = 0; half < 2; ++half)
            x[half].load(rows, 8 * eight + 4 * half + quad, span, piece * 32 + group * 4, quad << 1);
          GCL_UNROLL
          for (int e = 0; e < 4; ++e) {
            mma_tf32(add[e], low[eight], x[0].high[e], x[1].high[e]);
            if constexpr (sizeof(S) == 4) mma_tf32(add[e], high[eight], x[0].low[e], x[1].low[e]);
            mma_tf32(add[e], high[eight], x[0].high[e], x[1].high[e]);
          }
        }
        GCL_UNROLL
        for (int e = 0; e < 4; ++e) {
          GCL_UNROLL
          for (int c = 0; c < 4; ++c) {
            float& to = sum[span * kPieces + piece][e][c];
            to = fused(to, scale[c / 2], add[e][c]);
          }
        }
      }
      __syncwarp();
      if (more) fetch(span);
    }
  }

  __syncthreads();
  queries.finish(p, place);
  if (!p.with_grad) return;
  GCL_UNROLL
  for (int v = 0; v < kSpans * kPieces; ++v) {
    GCL_UNROLL
    for (int c = 0; c < 4; ++c) {
      const int64_t b = b0 + group + 8 * (c / 2), d = column0 + v * 32 + 4 * (2 * quad + c % 2);
      Four<float> four;
      GCL_UNROLL
      for (int e = 0; e < 4; ++e) four.v[e] = sum[v][e][c];
      if (b < p.batch && d < p.dim) {
        *reinterpret_cast<Four<float>*>(p.part_mean + (place.chunk * p.batch + b) * padded_dim(p.dim) + d) = four;
      }
    }
  }
}

template <class S>
int mma_threads(int64_t dim) {
  return static_cast<int>(maximum((dim + kMmaColumns<S> - 1) / kMmaColumns<S>, int64_t{1})) * 32;
}

// Parts of the bank: one block for each place on `processors` with `shared_bytes` each, at least two tiles each.
template <class S>
int64_t mma_chunks(int64_t batch, int64_t rows, int64_t dim, int64_t processors, int64_t shared_bytes, bool queries_shared) {
  constexpr int64_t kReserved = 2048;  // of a block besides: its queries, and what the system takes
  const int64_t groups = (batch + kMmaQueries - 1) / kMmaQueries,
                fit = shared_bytes / (mma_shared_bytes<S>(dim, queries_shared) + kReserved);
  const int64_t each = maximum(minimum(int64_t{kMmaThreads<S>} / mma_threads<S>(dim), fit), int64_t{1});
  const int64_t wanted = processors * each / maximum(groups, int64_t{1});
  return maximum(minimum(wanted, rows / (2 * kMmaRows<S>)), int64_t{1});
}

template <class S>
void launch_sweep_mma(const NceParams<float>& p, GclStream stream) {
  const int64_t blocks = (p.batch + kMmaQueries - 1) / kMmaQueries * p.chunks;
  const int threads = mma_threads<S>(p.dim);
  if (p.sweep == Sweep::tensor_cores) {
    const int64_t bytes = mma_shared_bytes<S>(p.dim, true);
    GCL_ALLOW_SHARED((bank_sweep_mma_kernel<S, true>), bytes);
    GCL_LAUNCH((bank_sweep_mma_kernel<S, true>), blocks, threads, bytes, stream, p);
  } else {
    const int64_t bytes = mma_shared_bytes<S>(p.dim, false);
    GCL_ALLOW_SHARED((bank_sweep_mma_kernel<S, false>), bytes);
    GCL_LAUNCH((bank_sweep_mma_kernel<S, false>), blocks, threads, bytes, stream, p);
  }
}

}  // namespace gcl
