// GPU kernels of the Jaccard distance: one thread per row for the short sets, one warp per missing similarity, one block per
// row for the overlaps. No atomics: each sum has one order, the CPU's.
#pragma once

#include "common/launch.cuh"
#include "neighbors/jaccard_math.h"

namespace gcl {

constexpr int64_t kOverlapTile = 4096;  // columns summed at a time; 32 KiB of doubles

GCL_HD int64_t first_at_least(const int32_t* list, int64_t low, int64_t high, int64_t wanted) {
  while (low < high) {
    const int64_t middle = low + (high - low) / 2;
    if (list[middle] < wanted) low = middle + 1;
    else high = middle;
  }
  return low;
}

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
      if (!known_similarity(p, i, j, &value) && p.features != nullptr) value = static_cast<T>(NAN);
      if (e < p.start[i + 1]) {
        p.columns[e] = j;
        p.values[e] = value;
      }
      ++e;
    });
  }
}

template <class T>
__global__ void expansion_products_kernel(ExpansionParams<T> p) {
  const int64_t lane = threadIdx.x % 32;
  const int64_t warps = static_cast<int64_t>(gridDim.x) * blockDim.x / 32;
  for (int64_t e = (static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x) / 32; e < p.total; e += warps) {
    const T known = p.values[e];
    __syncwarp(0xffffffffu);
    if (known == known) continue;  // the whole warp reads the same
    int64_t low = 0, high = p.rows;  // the row that holds entry e: the last whose start is not above e
    while (low + 1 < high) {
      const int64_t middle = (low + high) / 2;
      if (p.start[middle] <= e) low = middle;
      else high = middle;
    }
    const T* a = p.features + low * p.dim;
    const T* b = p.features + p.columns[e] * p.dim;
    T sum = 0;
    for (int64_t d = lane; d < p.dim; d += 32) sum += a[d] * b[d];
    for (int width = 16; width > 0; width /= 2) sum += __shfl_down_sync(0xffffffffu, sum, width);
    if (lane == 0) p.values[e] = sum;
  }
}

template <class T>
__global__ void softmax_kernel(ExpansionParams<T> p) {
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

// A block sums up one row of the result, a tile of columns at a time, one common column after the other: two holders of a
// column are two rows, so no two threads add to the same sum between barriers. A sum below 0 has had no term.
template <class T, bool kFill>
__global__ void overlap_kernel(OverlapParams<T> p) {
  GCL_DYNAMIC_SHARED(T, sums);  // [tile]
  __shared__ int64_t columns_of[kThreads];
  const int64_t thread = threadIdx.x, threads = blockDim.x;
  const int64_t share = (p.tile + threads - 1) / threads;  // columns of the tile that one thread writes
  for (int64_t i = blockIdx.x; i < p.rows; i += gridDim.x) {
    int64_t done = kFill ? p.indptr[i] : 0;
    for (int64_t tile = 0; tile < p.rows; tile += p.tile) {
      for (int64_t c = thread; c < p.tile; c += threads) sums[c] = T(-1);
      __syncthreads();
      for (int64_t e = p.start[i]; e < p.start[i + 1]; ++e) {
        const int64_t n = p.columns[e], end = p.holder_start[n + 1];
        const T value = p.values[e];
        int64_t h = first_at_least(p.holder_rows, p.holder_start[n], end, tile);
        if (h == end || p.holder_rows[h] >= tile + p.tile) continue;  // all threads see the same
        for (h += thread; h < end && p.holder_rows[h] < tile + p.tile; h += threads) {
          T* sum = sums + (p.holder_rows[h] - tile);
          *sum = maximum(*sum, T(0)) + minimum(value, p.holder_values[h]);
        }
        __syncthreads();
      }
      const int64_t low = minimum(thread * share, p.tile), high = minimum(low + share, p.tile);
      int64_t columns = 0;
      for (int64_t c = low; c < high; ++c) columns += sums[c] >= T(0);
      columns_of[thread] = columns;
      __syncthreads();
      int64_t to = done, tile_columns = 0;
      for (int64_t t = 0; t < threads; ++t) {
        if (t < thread) to += columns_of[t];
        tile_columns += columns_of[t];
      }
      if (kFill) {
        for (int64_t c = low; c < high; ++c) {
          if (!(sums[c] >= T(0))) continue;
          if (to < p.indptr[i + 1]) {
            p.indices[to] = tile + c;
            p.distance[to] = tile + c == i ? T(0) : jaccard_of(sums[c]);
          }
          ++to;
        }
      }
      done += tile_columns;
      __syncthreads();
    }
    if (!kFill && thread == 0) p.count[i] = done;
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
void launch_expansion_weights(const ExpansionParams<T>& p, GclStream stream) {
  if (p.rows == 0 || p.total == 0) return;
  GCL_LAUNCH((expansion_fill_kernel<T>), blocks_for(p.rows), kThreads, 0, stream, p);
  if (p.features != nullptr) {
    GCL_LAUNCH((expansion_products_kernel<T>), blocks_for(p.total * 32), kThreads, 0, stream, p);
  }
  GCL_LAUNCH((softmax_kernel<T>), blocks_for(p.rows), kThreads, 0, stream, p);
}

template <class T>
void launch_mean_count(const MeanParams<T>& p, GclStream stream) {
  if (p.rows > 0) GCL_LAUNCH((mean_count_kernel<T>), blocks_for(p.rows), kThreads, 0, stream, p);
}

template <class T>
void launch_mean(const MeanParams<T>& p, GclStream stream) {
  if (p.rows > 0) GCL_LAUNCH((mean_fill_kernel<T>), blocks_for(p.rows), kThreads, 0, stream, p);
}

template <class T, bool kFill>
void launch_overlap(const OverlapParams<T>& p, GclStream stream) {
  if (p.rows == 0) return;
  const size_t bytes = static_cast<size_t>(p.tile) * sizeof(T);
  GCL_LAUNCH((overlap_kernel<T, kFill>), capped_blocks(p.rows), kThreads, bytes, stream, p);
}

}  // namespace gcl
