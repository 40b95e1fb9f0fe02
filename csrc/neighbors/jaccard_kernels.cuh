// GPU kernels of the Jaccard distance's sets and weights: one thread per row for the short sets, one warp per missing
// similarity. No atomics: each sum has one order.
#pragma once

#include "common/launch.cuh"
#include "neighbors/jaccard_math.h"

namespace gcl {

template <class Params>
__global__ void reciprocal_kernel(Params p) {
  GCL_EACH_ITEM(i, p.rows) reciprocal_row(p, i);
}

template <class T>
__global__ void expansion_count_kernel(ExpansionParams<T> p) {
  GCL_EACH_ITEM(i, p.rows) {
    accept_row(p, i);
    int64_t count = 0;
    for_each_expanded(p, i, p.at + i * p.width, [&](int32_t) { ++count; });
    p.count[i] = count;
  }
}

template <class T>
__global__ void expansion_fill_kernel(ExpansionParams<T> p) {
  GCL_EACH_ITEM(i, p.rows) {
    int64_t e = p.start[i];
    for_each_expanded(p, i, p.at + i * p.width, [&](int32_t j) {
      T value = 0;
      // What is to be computed is left as NaN, which no finite similarity is.
      if (!known_similarity(p, i, j, &value) && (p.features != nullptr || !p.finished)) value = static_cast<T>(NAN);
      if (e < p.start[i + 1]) {
        p.columns[e] = j;
        p.values[e] = value;
      }
      ++e;
    });
  }
}

// a . b by all lanes of a warp; the sum is lane 0's.
template <class T>
__device__ T warp_product(const T* a, const T* b, int64_t dim, int64_t lane) {
  T sum = 0;
  for (int64_t d = lane; d < dim; d += 32) sum += a[d] * b[d];
  for (int width = 16; width > 0; width /= 2) sum += __shfl_down_sync(kAllLanes, sum, width);
  return sum;
}

template <class T>
__global__ void products_kernel(ProductParams<T> p) {
  const int64_t lane = threadIdx.x % 32;
  const int64_t warps = static_cast<int64_t>(gridDim.x) * blockDim.x / 32;
  for (int64_t n = (static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x) / 32; n < p.pairs; n += warps) {
    const T product = warp_product(p.left + p.row[n] * p.dim, p.right + p.column[n] * p.dim, p.dim, lane);
    if (lane == 0) p.product[n] = product;
  }
}

template <class T>
__global__ void expansion_products_kernel(ExpansionParams<T> p) {
  const int64_t lane = threadIdx.x % 32;
  const int64_t warps = static_cast<int64_t>(gridDim.x) * blockDim.x / 32;
  for (int64_t e = (static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x) / 32; e < p.total; e += warps) {
    const T known = p.values[e];
    __syncwarp(kAllLanes);
    if (known == known) continue;  // the whole warp reads the same
    int64_t low = 0, high = p.rows;  // the row that holds entry e: the last whose start is not above e
    while (low + 1 < high) {
      const int64_t middle = (low + high) / 2;
      if (p.start[middle] <= e) low = middle;
      else high = middle;
    }
    const T sum = warp_product(p.features + low * p.dim, p.features + p.columns[e] * p.dim, p.dim, lane);
    if (lane == 0) p.values[e] = sum;
  }
}

template <class T>
__global__ void softmax_kernel(SoftmaxParams<T> p) {
  GCL_EACH_ITEM(i, p.rows) softmax_row(p.values + p.start[i], p.start[i + 1] - p.start[i]);
}

template <class T>
__global__ void mean_count_kernel(MeanParams<T> p) {
  GCL_EACH_ITEM(i, p.rows) {
    int64_t count = 0;
    for_each_mean(p, i, p.at + i * p.group, [&](int32_t, T) { ++count; });
    p.count[i] = count;
  }
}

template <class T>
__global__ void mean_fill_kernel(MeanParams<T> p) {
  GCL_EACH_ITEM(i, p.rows) {
    int64_t e = p.out_start[i];
    for_each_mean(p, i, p.at + i * p.group, [&](int32_t column, T value) {
      if (e < p.out_start[i + 1]) {
        p.out_columns[e] = column;
        p.out_values[e] = value;
      }
      ++e;
    });
  }
}

inline void launch_reciprocal(const ReciprocalParams& p, GclStream stream) {
  if (p.rows > 0) GCL_LAUNCH((reciprocal_kernel<ReciprocalParams>), blocks_for(p.rows), kThreads, 0, stream, p);
}

template <class T>
void launch_expansion_count(const ExpansionParams<T>& p, GclStream stream) {
  if (p.rows > 0) GCL_LAUNCH((expansion_count_kernel<T>), blocks_for(p.rows), kThreads, 0, stream, p);
}

template <class T>
void launch_products(const ProductParams<T>& p, GclStream stream) {
  if (p.pairs > 0) GCL_LAUNCH((products_kernel<T>), blocks_for(p.pairs * 32), kThreads, 0, stream, p);
}

template <class T>
void launch_softmax(const SoftmaxParams<T>& p, GclStream stream) {
  if (p.rows > 0) GCL_LAUNCH((softmax_kernel<T>), blocks_for(p.rows), kThreads, 0, stream, p);
}

template <class T>
void launch_expansion_weights(const ExpansionParams<T>& p, GclStream stream) {
  if (p.rows == 0 || p.total == 0) return;
  GCL_LAUNCH((expansion_fill_kernel<T>), blocks_for(p.rows), kThreads, 0, stream, p);
  if (p.features != nullptr) {
    GCL_LAUNCH((expansion_products_kernel<T>), blocks_for(p.total * 32), kThreads, 0, stream, p);
  }
  if (p.finished) launch_softmax(SoftmaxParams<T>{.start = p.start, .rows = p.rows, .values = p.values}, stream);
}

template <class T>
void launch_mean_count(const MeanParams<T>& p, GclStream stream) {
  if (p.rows > 0) GCL_LAUNCH((mean_count_kernel<T>), blocks_for(p.rows), kThreads, 0, stream, p);
}

template <class T>
void launch_mean(const MeanParams<T>& p, GclStream stream) {
  if (p.rows > 0) GCL_LAUNCH((mean_fill_kernel<T>), blocks_for(p.rows), kThreads, 0, stream, p);
}

}  // namespace gcl
