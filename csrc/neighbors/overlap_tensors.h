// From tensors to the parameter structs of the overlaps: checks, contiguous inputs. Shared by the two backends.
#pragma once

#include "neighbors/neighbors_tensors.h"
#include "neighbors/overlap.h"

namespace gcl {

// Which rows of a matrix are asked for: first, first + step ... below last.
inline int64_t results_of(const char* op, int64_t rows, int64_t first, int64_t last, int64_t step) {
  STD_TORCH_CHECK(step >= 1, op, ": step must be at least 1");
  STD_TORCH_CHECK(0 <= first && first <= last && last <= rows, op, ": first and last must be in [0, ", rows, "], in order");
  return (last - first + step - 1) / step;
}

// A matrix and its transpose.
struct OverlapTensors {
  RowsTensors matrix, holders;

  OverlapTensors(const char* op, const Tensor& start, const Tensor& columns, const Tensor& values, const Tensor& holder_start,
                 const Tensor& holder_rows, const Tensor& holder_values)
      : matrix(op, start, columns, values), holders(op, holder_start, holder_rows, holder_values) {
    STD_TORCH_CHECK(holders.rows == matrix.rows, op, ": holder_start must have as many entries as start");
    check_same_device(op, matrix.start, {{"holder_start", holders.start}});
    check_same_type(op, "values", matrix.values, {{"holder_values", holders.values}});
  }

  template <class T>
  OverlapParams<T> params() const {
    OverlapParams<T> p{};
    p.start = matrix.start.const_data_ptr<int64_t>();
    p.columns = matrix.columns.const_data_ptr<int32_t>();
    p.values = matrix.values.const_data_ptr<T>();
    p.holder_start = holders.start.const_data_ptr<int64_t>();
    p.holder_rows = holders.columns.const_data_ptr<int32_t>();
    p.holder_values = holders.values.const_data_ptr<T>();
    p.rows = matrix.rows;
    return p;
  }
};

}  // namespace gcl
