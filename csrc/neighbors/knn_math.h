// One candidate for the list of one row, for host and device.
#pragma once

#include <limits>

#include "common/device.h"
#include "common/halves.h"
#include "neighbors/knn.h"

namespace gcl {

template <class T>
GCL_HD bool comes_before(T value, int64_t index, T other_value, int64_t other_index) {
  return value > other_value || (value == other_value && index < other_index);
}

// NaN, the difference of two infinities, comes last.
template <class T>
GCL_HD T ordered(T value) {
  return value == value ? value : -std::numeric_limits<T>::infinity();
}

template <class T, class B>
GCL_HD int64_t row_number(const KnnParams<T, B>& p, int64_t r) {
  return p.rows == nullptr ? p.first_row + r : p.rows[r];
}

template <class T, class B>
GCL_HD T entry(const KnnParams<T, B>& p, int64_t r, int64_t c) {
  const T value = widen(p.block[r * p.row_stride + c * p.column_stride]);
  return ordered(p.penalty == nullptr ? value : value - p.penalty[c]);
}

// Offers row `row` every other row that the column stands for: itself, if it is an original, and its copies. insert(value, index)
// says whether the list took it; what comes later is no better, so the first refusal ends it.
template <class T, class B, class Insert>
GCL_HD void offer(const KnnParams<T, B>& p, int64_t row, int64_t column, T value, Insert&& insert) {
  if (p.original == nullptr) {
    if (column != row) insert(value, column);
    return;
  }
  if (p.original[column] != column) return;
  if (column != row && !insert(value, column)) return;
  for (int64_t n = p.copy_start[column]; n < p.copy_start[column + 1]; ++n) {
    if (p.copies[n] != row && !insert(value, p.copies[n])) return;
  }
}

}  // namespace gcl
