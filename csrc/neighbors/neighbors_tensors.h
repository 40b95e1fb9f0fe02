// Checks shared by the launch layers of the neighbour ops.
#pragma once

#include "common/tensor.h"

namespace gcl {

constexpr int64_t kMaxRows = (int64_t{1} << 31) - 2;

// CPU tensors only: every number is in [low, high).
template <class Index>
void check_range(const char* op, const char* name, const Tensor& tensor, int64_t low, int64_t high) {
  const Index* number = tensor.const_data_ptr<Index>();
  bool fits = true;
  for (int64_t n = 0; n < tensor.numel(); ++n) fits = fits && number[n] >= low && number[n] < high;
  STD_TORCH_CHECK(fits, op, ": ", name, " must be in [", low, ", ", high, ")");
}

// CPU tensors only: starts of compressed rows, from 0 to `total`.
inline void check_starts(const char* op, const char* name, const Tensor& tensor, int64_t total) {
  const int64_t* start = tensor.const_data_ptr<int64_t>();
  const int64_t last = tensor.numel() - 1;
  bool fits = last >= 0 && start[0] == 0 && start[last] == total;
  for (int64_t n = 0; n < last && fits; ++n) fits = start[n] <= start[n + 1];
  STD_TORCH_CHECK(fits, op, ": ", name, " must rise from 0 to ", total);
}

// Where each of `rows` rows of a result begins, and their `total`; contiguous.
inline Tensor row_starts(const char* op, const char* name, const Tensor& tensor, const Tensor& like, int64_t rows,
                         int64_t total) {
  check_shape(op, name, tensor, {rows + 1});
  check_int64(op, {{name, tensor}});
  check_same_device(op, like, {{name, tensor}});
  Tensor starts = contiguous(tensor);
  if (!starts.is_cuda()) check_starts(op, name, starts, total);
  return starts;
}

// A square sparse matrix in compressed rows.
struct RowsTensors {
  Tensor start, columns, values;
  int64_t rows;

  RowsTensors(const char* op, const Tensor& start_, const Tensor& columns_, const Tensor& values_) {
    check_shape(op, "start", start_, {kAnySize});
    STD_TORCH_CHECK(start_.size(0) >= 1, op, ": start must have at least one entry");
    rows = start_.size(0) - 1;
    check_shape(op, "columns", columns_, {kAnySize});
    check_int32(op, {{"columns", columns_}});
    check_shape(op, "values", values_, {columns_.size(0)});
    check_real(op, "values", values_);
    check_same_device(op, start_, {{"columns", columns_}, {"values", values_}});
    start = row_starts(op, "start", start_, start_, rows, columns_.size(0));
    columns = contiguous(columns_), values = contiguous(values_);
    if (!start.is_cuda()) check_range<int32_t>(op, "columns", columns, 0, rows);
  }
};

template <class T>
const T* pointer_or_null(const Tensor& tensor) {
  return tensor.numel() == 0 ? nullptr : tensor.const_data_ptr<T>();
}

}  // namespace gcl
