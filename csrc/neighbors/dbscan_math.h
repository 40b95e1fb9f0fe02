// Core points, union by the smallest index, border points: for host and device.
#pragma once

#include "common/device.h"
#include "neighbors/dbscan.h"

namespace gcl {

// Whether at least min_samples points are near, itself counted: it is 0 from itself unless something else is stored.
template <class T>
GCL_HD bool is_core(const DbscanParams<T>& p, int64_t i) {
  int64_t count = 1;
  for (int64_t e = p.indptr[i]; e < p.indptr[i + 1]; ++e) {
    const bool near = p.values[e] <= p.eps;
    if (p.indices[e] == i) count -= !near;
    else count += near;
  }
  return count >= p.min_samples;
}

// Joins the trees of a and b below the smaller root. A parent is never above its child, so the root of a cluster is its
// smallest member, whatever the order of the unions. `load` and `lower` (set to the minimum, return the old) are atomic.
template <class Load, class Lower>
GCL_HD void unite(int32_t a, int32_t b, Load&& load, Lower&& lower) {
  while (true) {
    for (int32_t above = load(a); above != a; above = load(a)) a = above;
    for (int32_t above = load(b); above != b; above = load(b)) b = above;
    if (a == b) return;
    if (a < b) {
      const int32_t c = a;
      a = b;
      b = c;
    }
    const int32_t old = lower(a, b);
    if (old == a) return;
    a = old;  // somebody else was faster: what a hung below must meet b too
  }
}

// Entries first, first + step ... of row i: each pair once, from its larger end.
template <class T, class IsCore, class Load, class Lower>
GCL_HD void unite_entries(const DbscanParams<T>& p, int64_t i, int64_t first, int64_t step, IsCore&& core, Load&& load,
                          Lower&& lower) {
  for (int64_t e = first; e < p.indptr[i + 1]; e += step) {
    const int64_t j = p.indices[e];
    if (j < i && p.values[e] <= p.eps && core(j)) unite(static_cast<int32_t>(i), static_cast<int32_t>(j), load, lower);
  }
}

// A border point goes to the first cluster that reaches it.
template <class T>
GCL_HD int64_t label_of(const DbscanParams<T>& p, int64_t i) {
  int64_t label = p.core_label[i];
  if (label >= 0) return label;
  for (int64_t e = p.indptr[i]; e < p.indptr[i + 1]; ++e) {
    if (!(p.values[e] <= p.eps)) continue;
    const int64_t near = p.core_label[p.indices[e]];
    if (near >= 0 && (label < 0 || near < label)) label = near;
  }
  return label;
}

}  // namespace gcl
