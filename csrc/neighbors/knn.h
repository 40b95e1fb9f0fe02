// Parameters of the running selection of nearest neighbours. T is float or double, B what a block holds: T, or for T = float
// BFloat16 (CPU alone).
#pragma once

#include <cstdint>

namespace gcl {

template <class T, class B = T>
struct KnnParams {
  const B* block;  // [b, c]  similarities of rows `first_row` and on with rows `first_column` and on, before the penalty
  int64_t row_stride;  // one of the two strides is 1
  int64_t column_stride;
  int64_t height;  // b
  int64_t width;  // c
  const int64_t* rows;  // [b]  row numbers, or null: first_row, first_row + 1 ...
  int64_t first_row;
  int64_t first_column;
  const T* penalty;  // [c]  taken off each column, or null
  // Rows of x that equal an earlier one are left out as columns and follow their original instead. Null: there are none.
  const int64_t* original;  // [N]      the first row that equals this one
  const int64_t* copy_start;  // [N + 1]
  const int64_t* copies;  // [copy_start[N]]  of each original, ascending
  int64_t k;
  T* value;  // [b, k]  the best so far: itself in column 0, then descending, ties by index; -inf where there is none yet
  int64_t* index;  // [b, k]
};

}  // namespace gcl
