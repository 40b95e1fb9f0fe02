// What gcl_memory_loss adds around bank_nce on the GPU: unit features and random positives before, gradients after.
#pragma once

#include "bank/bank_kernels.cuh"

namespace gcl {

template <class T>
__device__ void normalise_row(const T* from, int64_t dim, T* to, T* length, double* room) {
  double square = 0;
  for (int64_t d = threadIdx.x; d < dim; d += blockDim.x) square += static_cast<double>(from[d]) * from[d];
  const T norm = static_cast<T>(::sqrt(fold_block(square, room, [](double a, double b) { return a + b; })));
  const T divide = norm == T(0) ? T(1) : norm;
  for (int64_t d = threadIdx.x; d < dim; d += blockDim.x) to[d] = from[d] / divide;
  if (threadIdx.x == 0) *length = divide;
}

// One block for each row of the batch.
template <class T>
__global__ void gcl_prepare_kernel(GclParams<T> q, NceParams<T> p) {
  __shared__ double room[kRowThreads];
  const int64_t b = blockIdx.x;
  normalise_row(q.photo + b * p.dim, p.dim, q.unit_photo + b * p.dim, q.photo_length + b, room);
  normalise_row(q.view + b * p.dim, p.dim, q.unit_view + b * p.dim, q.view_length + b, room);
  for (uint32_t s = 0; s <= 2; ++s) {
    int64_t row = q.index[b];
    if (s > 0) row = draw_row(p.labels, p.num_rows, row, row_words(s, *p.seed, b));
    if (threadIdx.x == 0) q.positive[3 * b + s] = row;
  }
}

// grad = (scale * (base - row) without its part along the unit vector) / length; a null base or row counts as zero. grad may be
// where row is.
template <class T>
__device__ void write_gradient(T scale, const T* base, const T* row, const T* unit, T length, int64_t dim, T* grad,
                               double* room) {
  double along = 0;
  for (int64_t d = threadIdx.x; d < dim; d += blockDim.x) {
    grad[d] = scale * ((base != nullptr ? base[d] : T(0)) - (row != nullptr ? row[d] : T(0)));
    along += static_cast<double>(grad[d]) * unit[d];
  }
  along = fold_block(along, room, [](double a, double b) { return a + b; });
  for (int64_t d = threadIdx.x; d < dim; d += blockDim.x) grad[d] = static_cast<T>((grad[d] - along * unit[d]) / length);
}

template <class T>
__global__ void gcl_gradient_kernel(GclParams<T> q, NceParams<T> p) {
  __shared__ double room[kRowThreads];
  const int64_t b = blockIdx.x;
  for (int64_t k = 0; k < 3; ++k) {
    const T scale = p.weight[3 * b + k] / p.temperature, *none = nullptr;
    T* grad = q.view_grad + (3 * b + k) * p.dim;  // holds the positive row
    if (k == 2)
      write_gradient(scale, none, grad, q.unit_photo + b * p.dim, q.photo_length[b], p.dim, q.photo_grad + b * p.dim, room);
    write_gradient(scale, p.mean + b * p.dim, k < 2 ? grad : none, q.unit_view + b * p.dim, q.view_length[b], p.dim, grad, room);
  }
}

template <class T, class S>
void launch_gcl(const GclParams<T>& q, const NceParams<T>& p, GclStream stream) {
  if (p.batch == 0) return;
  GCL_LAUNCH((gcl_prepare_kernel<T>), p.batch, kRowThreads, 0, stream, q, p);
  launch_bank_nce<T, S>(p, stream);
  if (p.with_grad) GCL_LAUNCH((gcl_gradient_kernel<T>), p.batch, kRowThreads, 0, stream, q, p);
}

}  // namespace gcl
