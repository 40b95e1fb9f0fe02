// GPU kernels of GCL's memory step: loss, gradients and the moved rows in three launches. The first brings features to unit
// length, draws the positives and keeps their rows and products, and chooses the negatives; the second sweeps the bank; the
// third, which reads of the bank only the rows that it moves, adds the parts, has loss and gradients, and moves the rows.
#pragma once

#include "bank/bank_kernels.cuh"
#include "bank/update_kernels.cuh"

namespace gcl {

template <class T>
__device__ void normalise_row(const T* from, int64_t dim, T* to, T* length, double* room) {
  double square = 0;
  for (int64_t d = threadIdx.x; d < dim; d += blockDim.x) square += static_cast<double>(from[d]) * from[d];
  const T norm = static_cast<T>(::sqrt(fold_block(square, room, Sum{})));
  const T divide = norm == T(0) ? T(1) : norm;
  for (int64_t d = threadIdx.x; d < dim; d += blockDim.x) to[d] = from[d] / divide;
  if (threadIdx.x == 0) *length = divide;
}

// Unit features of row b, its positives, their rows (where gradients are asked for) and their products with it, NaN for a row
// that is not there. A thread reads only the unit features that it wrote.
template <class T, class S>
__device__ void prepare_row(const GclParams<T>& q, const NceParams<T>& p, int64_t b) {
  __shared__ double room[kMostWarps];
  const int64_t index = q.index[b];
  normalise_row(q.photo + b * p.dim, p.dim, q.unit_photo + b * p.dim, q.photo_length + b, room);
  normalise_row(q.view + b * p.dim, p.dim, q.unit_view + b * p.dim, q.view_length + b, room);
  int64_t rows[3] = {index, index, index};
  draw_rows(p.labels, p.num_rows, index, seed_of(p), b, rows + 1);
  for (int k = 0; k < 3; ++k) {
    if (threadIdx.x == 0) q.positive[3 * b + k] = rows[k];
    const bool there = names_a_row(p, rows[k]);
    const S* row = static_cast<const S*>(p.bank) + (there ? rows[k] : 0) * p.stride;
    const T* unit = (k < 2 ? q.unit_view : q.unit_photo) + b * p.dim;
    double dot = 0;
    for (int64_t d = threadIdx.x; d < p.dim && there; d += blockDim.x) {
      const T element = static_cast<T>(widen(row[d]));
      dot += static_cast<double>(unit[d]) * element;
      if (p.with_grad) q.view_grad[(3 * b + k) * p.dim + d] = element;
    }
    dot = fold_block(dot, room, Sum{});
    if (threadIdx.x == 0) q.dot[3 * b + k] = there ? dot : std::numeric_limits<double>::quiet_NaN();
  }
}

// For each row of the batch one block that prepares it, and `splits` (0 where all negatives count) that choose its negatives.
template <class T, class S>
__global__ void gcl_prepare_kernel(GclParams<T> q, NceParams<T> p, int64_t splits) {
  const int64_t b = blockIdx.x % p.batch, part = blockIdx.x / p.batch;
  if (part < splits) select_rows(p, b, part, splits, 0);
  else prepare_row<T, S>(q, p, b);
}

// Derivatives of the terms, which are means over the batch, at 256 columns of row b. What lies along the unit vector falls away;
// it is known from products, so no block waits for another's columns.
template <class T>
__device__ void write_gradients(const GclParams<T>& q, const NceParams<T>& p, int64_t b, int64_t slice) {
  __shared__ double scale[3];
  const int64_t d = slice * kRowThreads + threadIdx.x;
  const Negatives negatives = add_parts_once(p, b);
  if (threadIdx.x < 3) {
    const PairLoss pair = pair_loss(q.dot[3 * b + threadIdx.x] / p.temperature, negatives.lse());
    scale[threadIdx.x] = pair.weight / (p.temperature * p.batch);
  }
  const T mean = average_column(p, b, d, negatives);  // with a barrier
  const double average = negatives.average * p.temperature;  // of products with the unit vector
  if (d >= p.dim) return;
  const T view = q.unit_view[b * p.dim + d], photo = q.unit_photo[b * p.dim + d];
  for (int64_t k = 0; k < 3; ++k) {
    const double dot = q.dot[3 * b + k];
    T* grad = q.view_grad + (3 * b + k) * p.dim + d;  // holds the positive row
    const double row = dot == dot ? static_cast<double>(*grad) : 0.0;
    if (k == 2) q.photo_grad[b * p.dim + d] = static_cast<T>(-scale[k] * (row - dot * photo) / q.photo_length[b]);
    const double base = k < 2 ? mean - row : static_cast<double>(mean), along = k < 2 ? average - dot : average;
    *grad = static_cast<T>(scale[k] * (base - along * view) / q.view_length[b]);
  }
}

// The means of the three terms, by one block: a warp adds the losses of every so many rows, in order.
template <class T>
__device__ void write_terms(const GclParams<T>& q, const NceParams<T>& p) {
  __shared__ double room[kMostWarps][3];
  const int warp = static_cast<int>(threadIdx.x) / 32, warps = static_cast<int>(blockDim.x) / 32;
  double sum[3] = {0, 0, 0};
  for (int64_t b = warp; b < p.batch; b += warps) {
    const double lse = add_parts(p, b).lse();
    for (int k = 0; k < 3; ++k) sum[k] += pair_loss(q.dot[3 * b + k] / p.temperature, lse).loss;
  }
  if (threadIdx.x % 32 == 0) {
    for (int k = 0; k < 3; ++k) room[warp][k] = sum[k];
  }
  __syncthreads();
  if (threadIdx.x >= 3) return;
  double total = 0;
  for (int w = 0; w < warps; ++w) total += room[w][threadIdx.x];
  q.terms[threadIdx.x] = static_cast<T>(total / p.batch);
}

// Blocks: one for the terms, one for each row of the batch that moves its row of the bank (none without u.bank), the gradients'.
template <class T, class S>
__global__ void __launch_bounds__(kRowThreads)
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
