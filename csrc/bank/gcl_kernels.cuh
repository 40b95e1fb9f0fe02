// GPU kernels of GCL's memory step: loss, gradients and the moved rows in three launches. The first brings features to unit
// length, draws the positives and keeps their rows and products, and chooses the negatives; the second sweeps the bank; the
// third, which reads of the bank only the rows that it moves, adds the parts, has loss and gradients, and moves the rows.
#pragma once

#include "bank/bank_kernels.cuh"
#include "bank/update_kernels.cuh"

namespace gcl {

// Unit features of row b, its positives, their rows (where gradients are asked for) and their products with it, NaN for a row
// that is not there. What is needed of memory is asked for together: there is one block a row, which waits for little else.
template <class T, class S>
__device__ void prepare_row(const GclParams<T>& q, const NceParams<T>& p, int64_t b) {
  // Columns of a thread at once: all of 2,048 with 1,024 threads, which leave it 64 registers.
  constexpr int kFlight = sizeof(T) == 8 ? 1 : 2;
  __shared__ double room[3 * kMostWarps];
  const int64_t index = q.index[b], t = threadIdx.x, threads = blockDim.x;
  const T *photo = q.photo + b * p.dim, *view = q.view + b * p.dim;
  double square[2] = {0, 0};
  for (int64_t d = t; d < p.dim; d += threads) {
    square[0] += static_cast<double>(photo[d]) * photo[d];
    square[1] += static_cast<double>(view[d]) * view[d];
  }
  int64_t rows[3] = {index, index, index};
  draw_rows(p.labels, p.num_rows, index, seed_of(p), b, rows + 1);
  fold_block_each(square, room, Sum{});
  T length[2];
  GCL_UNROLL
  for (int k = 0; k < 2; ++k) {
    length[k] = static_cast<T>(::sqrt(square[k]));
    if (length[k] == T(0)) length[k] = T(1);
  }
  bool there[3];
  const S* row[3];
  double dot[3] = {0, 0, 0};
  GCL_UNROLL
  for (int k = 0; k < 3; ++k) {
    there[k] = names_a_row(p, rows[k]);
    row[k] = static_cast<const S*>(p.bank) + (there[k] ? rows[k] : 0) * p.stride;
  }
  for (int64_t d0 = t; d0 < p.dim; d0 += kFlight * threads) {
    T unit[kFlight][2], element[kFlight][3];
    GCL_UNROLL
    for (int i = 0; i < kFlight; ++i) {
      const int64_t d = d0 + i * threads;
      if (d >= p.dim) break;
      GCL_UNROLL
      for (int k = 0; k < 3; ++k) element[i][k] = there[k] ? static_cast<T>(widen(row[k][d])) : T(0);
      unit[i][0] = photo[d] / length[0];
      unit[i][1] = view[d] / length[1];
    }
    GCL_UNROLL
    for (int i = 0; i < kFlight; ++i) {
      const int64_t d = d0 + i * threads;
      if (d >= p.dim) break;
      q.unit_photo[b * p.dim + d] = unit[i][0];
      q.unit_view[b * p.dim + d] = unit[i][1];
      GCL_UNROLL
      for (int k = 0; k < 3; ++k) {
        dot[k] += static_cast<double>(unit[i][k < 2 ? 1 : 0]) * element[i][k];
        if (p.with_grad && there[k]) q.view_grad[(3 * b + k) * p.dim + d] = element[i][k];
      }
    }
  }
  fold_block_each(dot, room, Sum{});
  if (t != 0) return;
  q.photo_length[b] = length[0];
  q.view_length[b] = length[1];
  GCL_UNROLL
  for (int k = 0; k < 3; ++k) {
    q.positive[3 * b + k] = rows[k];
    q.dot[3 * b + k] = there[k] ? dot[k] : std::numeric_limits<double>::quiet_NaN();
  }
}

// For each row of the batch one block that prepares it, and `splits` (0 where all negatives count) that choose its negatives.
template <class T, class S>
__global__ void __launch_bounds__(kMostWarps * 32) gcl_prepare_kernel(GclParams<T> q, NceParams<T> p, int64_t splits) {
  const int64_t b = blockIdx.x % p.batch, part = blockIdx.x / p.batch;
  if (part < splits) select_rows(p, b, part, splits, 0);
  else prepare_row<T, S>(q, p, b);
}

// Derivatives of the terms, which are means over the batch, at 256 columns of row b. What lies along the unit vector falls away;
// it is known from products, so no block waits for another's columns.
template <class T>
__device__ void write_gradients(const GclParams<T>& q, const NceParams<T>& p, int64_t b, int64_t slice) {
  __shared__ double scale[3];
  const int64_t column0 = slice * kRowThreads, d = column0 + threadIdx.x;
  T row[3] = {}, view{}, photo{};
  T* grad = q.view_grad + 3 * b * p.dim + d;  // holds the positive rows
  const auto read = [&] {
    if (d >= p.dim) return;
    view = q.unit_view[b * p.dim + d];
    photo = q.unit_photo[b * p.dim + d];
    GCL_UNROLL
    for (int k = 0; k < 3; ++k) row[k] = grad[k * p.dim];
  };
  if constexpr (sizeof(T) == 4) read();  // ahead, where registers allow
  const Negatives negatives = add_parts_together(p, b);
  if (threadIdx.x < 3) {
    const PairLoss pair = pair_loss(q.dot[3 * b + threadIdx.x] / p.temperature, negatives.lse());
    scale[threadIdx.x] = pair.weight / (p.temperature * p.batch);
  }
  const T mean = average_column(p, b, column0, negatives);  // with a barrier
  const double average = negatives.average * p.temperature;  // of products with the unit vector
  if (d >= p.dim) return;
  if constexpr (sizeof(T) != 4) read();
  GCL_UNROLL
  for (int k = 0; k < 3; ++k) {
    const double dot = q.dot[3 * b + k], positive = dot == dot ? static_cast<double>(row[k]) : 0.0;
    if (k == 2) q.photo_grad[b * p.dim + d] = static_cast<T>(-scale[k] * (positive - dot * photo) / q.photo_length[b]);
    const double base = k < 2 ? mean - positive : static_cast<double>(mean), along = k < 2 ? average - dot : average;
    grad[k * p.dim] = static_cast<T>(scale[k] * (base - along * view) / q.view_length[b]);
  }
}

// The means of the three terms, by one block: so many lanes to a query that it takes as many queries at once as it can.
template <class T>
__device__ void write_terms(const GclParams<T>& q, const NceParams<T>& p) {
  __shared__ double room[3 * kMostWarps];
  const int t = static_cast<int>(threadIdx.x), threads = static_cast<int>(blockDim.x);
  int lanes = 32;
  while (lanes > 1 && threads / lanes < p.batch) lanes /= 2;
  const int apart = 32 / lanes, first = t % 32 / apart;
  double sum[3] = {0, 0, 0};
  for (int64_t b0 = 0; b0 < p.batch; b0 += threads / lanes) {
    const int64_t b = b0 + t / 32 * apart + t % apart;
    const double lse = add_parts(p, minimum(b, p.batch - 1), lanes).lse();
    GCL_ROLLED
    for (int k = first; k < 3 && b < p.batch; k += lanes) {
      const double loss = pair_loss(q.dot[3 * b + k] / p.temperature, lse).loss;
      GCL_UNROLL
      for (int j = 0; j < 3; ++j) sum[j] += j == k ? loss : 0.0;
    }
  }
  fold_block_each(sum, room, Sum{});
  GCL_UNROLL
  for (int k = 0; k < 3; ++k) {
    if (t == k) q.terms[k] = static_cast<T>(sum[k] / p.batch);
  }
}

// Blocks: one for the terms, one for each row of the batch that moves its row of the bank (none without u.bank), the gradients'.
template <class T, class S>
__global__ void GCL_LAUNCH_BOUNDS(kRowThreads, 2)
    gcl_finish_kernel(GclParams<T> q, NceParams<T> p, UpdateParams<T> u, int64_t slices) {
  const int64_t moves = u.bank != nullptr ? p.batch : 0, block = blockIdx.x;
  if (block == 0) write_terms(q, p);
  else if (block <= moves) move_row<T, S>(u, block - 1);
  else write_gradients(q, p, (block - 1 - moves) / slices, (block - 1 - moves) % slices);
}

// u.bank: null, or the bank, whose rows of the batch move towards the photos.
template <class T, class S>
void launch_gcl(const GclParams<T>& q, const NceParams<T>& p, const UpdateParams<T>& u, GclStream stream) {
  if (p.batch == 0) return;
  const int64_t splits = p.count >= 0 ? p.splits : 0, slices = row_slices(p.dim);
  if (splits > 1) GCL_FILL_BYTES(p.counts, 0, sizeof(uint32_t) * p.batch * kDigits * kMostBins, stream);
  GCL_LAUNCH((gcl_prepare_kernel<T, S>), p.batch * (splits + 1), row_threads(p.num_rows, p.dim), 0, stream, q, p, splits);
  launch_select_rest(p, stream);
  launch_sweep<T, S>(p, stream);
  const int64_t blocks = 1 + (u.bank != nullptr ? p.batch : 0) + (p.with_grad ? p.batch * slices : 0);
  GCL_LAUNCH((gcl_finish_kernel<T, S>), blocks, kRowThreads, 0, stream, q, p, u, slices);
}

// Gradients of f and f_nv from that of the terms.
template <class T>
__global__ void gcl_backward_kernel(GclBackwardParams<T> p) {
  GCL_EACH_ITEM(i, p.batch * p.dim) {
    const int64_t b = i / p.dim, d = i % p.dim;
    gcl_gradient(p, b, d);
  }
}

template <class T>
void launch_gcl_backward(const GclBackwardParams<T>& p, GclStream stream) {
  if (p.batch * p.dim == 0) return;
  GCL_LAUNCH((gcl_backward_kernel<T>), blocks_for(p.batch * p.dim), kThreads, 0, stream, p);
}

}  // namespace gcl
