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

// Which of the sets R(c, k1 / 2), c in R(i, k1), have more than two thirds of themselves in R(i, k1).
template <class T>
GCL_HD void accept_row(const ExpansionParams<T>& p, int64_t i) {
  const int32_t* near = p.near + i * p.width;
  const int64_t num_near = p.num_near[i];
  for (int64_t t = 0; t < p.width; ++t) {
    bool joins = false;
    if (t < num_near) {
      const int64_t c = near[t], size = p.num_close[c];
      joins = 3 * size_of_intersection(p.close + c * p.half_width, size, near, num_near) > 2 * size;
    }
    p.accepted[i * p.width + t] = joins;
  }
}

// Calls emit(j) for the members j of R*(i) in ascending order: a merge of R(i, k1) with the accepted sets. at [K] is scratch.
template <class T, class Emit>
GCL_HD void for_each_expanded(const ExpansionParams<T>& p, int64_t i, int32_t* at, Emit&& emit) {
  constexpr int32_t kEnd = 0x7fffffff;
  const int32_t* near = p.near + i * p.width;
  const uint8_t* accepted = p.accepted + i * p.width;
  const int64_t num_near = p.num_near[i];
  for (int64_t t = 0; t < num_near; ++t) at[t] = 0;
  int64_t member = 0;
  for (int32_t last = -1;;) {
    while (member < num_near && near[member] <= last) ++member;
    int32_t next = member < num_near ? near[member] : kEnd;
    for (int64_t t = 0; t < num_near; ++t) {
      if (!accepted[t]) continue;
      const int64_t c = near[t], size = p.num_close[c];
      const int32_t* list = p.close + c * p.half_width;
      int32_t head = at[t];
      while (head < size && list[head] <= last) ++head;
      at[t] = head;
      if (head < size) next = minimum(next, list[head]);
    }
    if (next == kEnd) return;
    emit(next);
    last = next;
  }
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
  constexpr int32_t kEnd = 0x7fffffff;
  const int32_t* rank = p.rank + i * p.width;
  for (int64_t t = 0; t < p.group; ++t) at[t] = p.start[rank[t]];
  while (true) {
    int32_t next = kEnd;
    for (int64_t t = 0; t < p.group; ++t) {
      if (at[t] < p.start[rank[t] + 1]) next = minimum(next, p.columns[at[t]]);
    }
    if (next == kEnd) return;
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
