// What happens to one row, for host and device.
#pragma once

#include "common/device.h"
#include "neighbors/jaccard.h"

namespace gcl {

GCL_HD int64_t find_in(const int32_t* list, int64_t size, int32_t wanted) {
  for (int64_t t = 0; t < size; ++t) {
    if (list[t] == wanted) return t;
  }
  return -1;
}

GCL_HD void insert_ascending(int32_t* list, int64_t size, int32_t value) {
  int64_t at = size;
  for (; at > 0 && list[at - 1] > value; --at) list[at] = list[at - 1];
  list[at] = value;
}

// R(i, k1) and R(i, k1 / 2): the neighbours of i that have i among theirs.
GCL_HD void reciprocal_row(const ReciprocalParams& p, int64_t i) {
  int32_t* near = p.near + i * p.width;
  int32_t* close = p.close + i * p.half_width;
  int32_t num_near = 0, num_close = 0;
  for (int64_t t = 0; t < p.width; ++t) {
    const int32_t j = p.rank[i * p.width + t];
    const int64_t back = find_in(p.rank + j * p.width, p.width, static_cast<int32_t>(i));
    if (back < 0) continue;
    insert_ascending(near, num_near++, j);
    if (t < p.half_width && back < p.half_width) insert_ascending(close, num_close++, j);
  }
  p.num_near[i] = num_near;
  p.num_close[i] = num_close;
  for (int64_t t = num_near; t < p.width; ++t) near[t] = -1;
  for (int64_t t = num_close; t < p.half_width; ++t) close[t] = -1;
}

GCL_HD int64_t size_of_intersection(const int32_t* a, int64_t size_a, const int32_t* b, int64_t size_b) {
  int64_t common = 0;
  for (int64_t i = 0, j = 0; i < size_a && j < size_b;) {
    const int32_t x = a[i], y = b[j];
    common += x == y;
    i += x <= y;
    j += y <= x;
  }
  return common;
}

constexpr int32_t kNoMember = 0x7fffffff;  // behind all others

// Whether R(c, k1 / 2) of the t-th c in R(i, k1) has more than two thirds of itself in R(i, k1).
template <class T>
GCL_HD bool accepts(const ExpansionParams<T>& p, int64_t i, int64_t t) {
  const int32_t* near = p.near + i * p.width;
  const int64_t num_near = p.num_near[i];
  if (t >= num_near) return false;
  const int64_t c = near[t], size = p.num_close[c];
  return 3 * size_of_intersection(p.close + c * p.half_width, size, near, num_near) > 2 * size;
}

// The known similarity of i and j, where j is among the neighbours of i or i among those of j.
template <class T>
GCL_HD bool known_similarity(const ExpansionParams<T>& p, int64_t i, int32_t j, T* value) {
  if (p.similarity == nullptr) return false;
  int64_t t = find_in(p.rank + i * p.width, p.width, j);
  if (t >= 0) {
    *value = p.similarity[i * p.width + t];
    return true;
  }
  t = find_in(p.rank + j * p.width, p.width, static_cast<int32_t>(i));
  if (t >= 0) *value = p.similarity[j * p.width + t];
  return t >= 0;
}

// Similarities of one row become softmax(2 s - 2).
template <class T>
GCL_HD void softmax_row(T* values, int64_t size) {
  if (size == 0) return;
  T top = values[0], total = 0;
  for (int64_t e = 1; e < size; ++e) top = maximum(top, values[e]);
  for (int64_t e = 0; e < size; ++e) {
    values[e] = std::exp(T(2) * (values[e] - top));
    total += values[e];
  }
  for (int64_t e = 0; e < size; ++e) values[e] /= total;
}

// Calls emit(column, mean) for row i of the averaged matrix, columns ascending; terms are added in the order of the
// neighbours. at [group] is scratch.
template <class T, class Emit>
GCL_HD void for_each_mean(const MeanParams<T>& p, int64_t i, int64_t* at, Emit&& emit) {
  const int32_t* rank = p.rank + i * p.width;
  for (int64_t t = 0; t < p.group; ++t) at[t] = p.start[rank[t]];
  while (true) {
    int32_t next = kNoMember;
    for (int64_t t = 0; t < p.group; ++t) {
      if (at[t] < p.start[rank[t] + 1]) next = minimum(next, p.columns[at[t]]);
    }
    if (next == kNoMember) return;
    T sum = 0;
    for (int64_t t = 0; t < p.group; ++t) {
      if (at[t] >= p.start[rank[t] + 1] || p.columns[at[t]] != next) continue;
      sum += p.values[at[t]];
      ++at[t];
    }
    emit(next, sum / static_cast<T>(p.group));
  }
}

}  // namespace gcl
