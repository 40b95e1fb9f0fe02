// GPU kernels of the looks at what was given, and of packing rows. A fault is rare: few threads write one.
#pragma once

#include "common/warp_fold.cuh"
#include "neighbors/faults_math.h"

namespace gcl {

constexpr int64_t kLookBlocks = 4096;  // at most

// All lanes of the warp. Whether the value that `lane` holds of row [width] stands there before it, too.
template <class Index>
__device__ bool stands_before(const Index* row, int64_t c, int64_t width, int lane) {
  const Index mine = c < width ? row[c] : Index(0);
  bool twice = false;
  for (int64_t first = 0; first <= c - lane; first += kWarpLanes) {  // the same for the whole warp
    const Index theirs = first + lane < width ? row[first + lane] : Index(0);
    for (int n = 0; n < kWarpLanes && first + n < width; ++n) {
      const Index other = __shfl_sync(kAllLanes, theirs, n);
      twice = twice || (first + n < c && other == mine);
    }
  }
  return c < width && twice;
}

template <class Index, class T>
__global__ void neighbor_faults_kernel(NeighborFaultParams<Index, T> p) {
  const int lane = threadIdx.x % kWarpLanes;
  GCL_EACH_WARP(i, p.rows) {
    uint32_t faults = 0;
    for (int64_t first = 0; first < p.width; first += kWarpLanes) {
      const int64_t c = first + lane;
      if (stands_before(p.index + i * p.width, c, p.width, lane)) faults |= kNamedTwice;
      if (c < p.width) faults |= neighbor_faults(p, i, c);
    }
    if (faults != 0) atomicOr(p.faults, faults);
  }
}

template <class Index, class T>
__global__ void finite_kernel(NeighborFaultParams<Index, T> p, bool by_fours) {
  bool finite = true;
  if (by_fours) {
    const Four<T>* fours = reinterpret_cast<const Four<T>*>(p.features);
    GCL_EACH_ITEM(n, p.numbers / 4) {
      const Four<T> some = fours[n];
      for (int v = 0; v < 4; ++v) finite = finite && is_finite(some.v[v]);
    }
  } else {
    GCL_EACH_ITEM(n, p.numbers) finite = finite && is_finite(p.features[n]);
  }
  if (!finite) atomicOr(p.faults, kNotFinite);
}

template <class Index, class T>
__global__ void graph_faults_kernel(GraphFaultParams<Index, T> p) {
  uint32_t faults = 0;
  GCL_EACH_ITEM(e, p.entries) faults |= entry_faults(p, e);
  GCL_EACH_ITEM(i, p.rows + 1) faults |= start_faults(p, i);
  if (faults != 0) atomicOr(p.faults, faults);
}

template <class T>
__global__ void pack_rows_kernel(PackParams<T> p) {
  GCL_EACH_WARP(r, p.rows) {
    const int64_t from = p.starts[r], to = p.indptr[r], size = p.indptr[r + 1] - to;
    for (int64_t e = threadIdx.x % kWarpLanes; e < size; e += kWarpLanes) {
      p.out_indices[to + e] = p.indices[from + e];
      p.out_values[to + e] = p.values[from + e];
    }
  }
}

template <class Index, class T>
void launch_neighbor_faults(const NeighborFaultParams<Index, T>& p, GclStream stream) {
  if (p.numbers > 0) {
    const bool by_fours = p.numbers % 4 == 0 && reinterpret_cast<uintptr_t>(p.features) % alignof(Four<T>) == 0;
    GCL_LAUNCH((finite_kernel<Index, T>), minimum(blocks_for(p.numbers), kLookBlocks), kThreads, 0, stream, p, by_fours);
  }
  if (p.rows > 0) {
    GCL_LAUNCH((neighbor_faults_kernel<Index, T>), blocks_for(p.rows * kWarpLanes), kThreads, 0, stream, p);
  }
}

template <class Index, class T>
void launch_graph_faults(const GraphFaultParams<Index, T>& p, GclStream stream) {
  const int64_t items = maximum(p.entries, p.rows + 1);
  GCL_LAUNCH((graph_faults_kernel<Index, T>), minimum(blocks_for(items), kLookBlocks), kThreads, 0, stream, p);
}

template <class T>
void launch_pack_rows(const PackParams<T>& p, GclStream stream) {
  if (p.rows > 0) GCL_LAUNCH((pack_rows_kernel<T>), blocks_for(p.rows * kWarpLanes), kThreads, 0, stream, p);
}

}  // namespace gcl
