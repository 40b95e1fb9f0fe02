// What is wrong with one number, for host and device.
#pragma once

#include "common/device.h"
#include "neighbors/faults.h"

namespace gcl {

template <class T>
GCL_HD bool is_finite(T x) {
  return x - x == 0;
}

template <class Index, class T>
GCL_HD uint32_t neighbor_faults(const NeighborFaultParams<Index, T>& p, int64_t i, int64_t c) {
  const int64_t j = p.index[i * p.width + c];
  return (j < 0 || j >= p.rows ? kNoRowThere : 0u) | (c == 0 && j != i ? kNotItselfFirst : 0u);
}

template <class Index, class T>
GCL_HD uint32_t entry_faults(const GraphFaultParams<Index, T>& p, int64_t e) {
  const bool is_distance = p.values[e] >= 0 && p.values[e] <= 1;  // NaN is none
  return (is_distance ? 0u : kNoDistance) | (p.indices[e] < 0 || p.indices[e] >= p.rows ? kMalformed : 0u);
}

template <class Index, class T>
GCL_HD uint32_t start_faults(const GraphFaultParams<Index, T>& p, int64_t i) {
  const bool first = i > 0 || p.indptr[0] == 0, last = i < p.rows || p.indptr[i] == p.entries;
  return first && last && (i == 0 || p.indptr[i - 1] <= p.indptr[i]) ? 0u : kMalformed;
}

}  // namespace gcl
