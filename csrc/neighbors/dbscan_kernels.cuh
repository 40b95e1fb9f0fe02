// GPU kernels of DBSCAN; clusters grow together by atomic minima, which leave the smallest member as root in any order.
#pragma once

#include "common/launch.cuh"
#include "neighbors/dbscan_math.h"

namespace gcl {

// A root that other threads may lower meanwhile.
__device__ inline int32_t load_root(const int32_t* root) {
  return static_cast<int32_t>(load_relaxed(reinterpret_cast<const unsigned*>(root)));
}

template <class T>
__global__ void dbscan_core_kernel(DbscanParams<T> p) {
  GCL_EACH_ITEM(i, p.rows) { p.root[i] = is_core(p, i) ? static_cast<int32_t>(i) : -1; }
}

// A warp takes a row, its lanes the entries.
template <class T>
__global__ void dbscan_unite_kernel(DbscanParams<T> p) {
  const auto load = [&](int32_t n) { return load_root(p.root + n); };
  const auto lower = [&](int32_t n, int32_t to) { return atomicMin(p.root + n, to); };
  GCL_EACH_WARP(i, p.rows) {
    if (load(static_cast<int32_t>(i)) < 0) continue;
    const int64_t first = p.indptr[i] + threadIdx.x % kWarpLanes;
    unite_entries(p, i, first, kWarpLanes, [&](int64_t j) { return load(static_cast<int32_t>(j)) >= 0; }, load, lower);
  }
}

template <class T>
__global__ void dbscan_flatten_kernel(DbscanParams<T> p) {
  GCL_EACH_ITEM(i, p.rows) {
    const auto load = [&](int32_t n) { return load_root(p.root + n); };
    int32_t top = load(static_cast<int32_t>(i));
    if (top < 0) continue;
    for (int32_t above = load(top); above != top; above = load(top)) top = above;
    atomicMin(p.root + i, top);
  }
}

template <class T>
__global__ void dbscan_label_kernel(DbscanParams<T> p) {
  GCL_EACH_ITEM(i, p.rows) { p.labels[i] = label_of(p, i); }
}

template <class T>
void launch_dbscan_roots(const DbscanParams<T>& p, GclStream stream) {
  if (p.rows == 0) return;
  GCL_LAUNCH((dbscan_core_kernel<T>), blocks_for(p.rows), kThreads, 0, stream, p);
  GCL_LAUNCH((dbscan_unite_kernel<T>), blocks_for(p.rows * kWarpLanes), kThreads, 0, stream, p);
  GCL_LAUNCH((dbscan_flatten_kernel<T>), blocks_for(p.rows), kThreads, 0, stream, p);
}

template <class T>
void launch_dbscan_labels(const DbscanParams<T>& p, GclStream stream) {
  if (p.rows > 0) GCL_LAUNCH((dbscan_label_kernel<T>), blocks_for(p.rows), kThreads, 0, stream, p);
}

}  // namespace gcl
