// Checks shared by the launch layers of the neighbour ops.
#pragma once

#include <utility>

#include "common/tensor.h"

namespace gcl {

constexpr int64_t kMaxRows = (int64_t{1} << 31) - 2;

inline void check_type(const char* op, const char* name, const Tensor& tensor, ScalarType type, const char* type_name) {
  STD_TORCH_CHECK(tensor.scalar_type() == type, op, ": ", name, " must be ", type_name);
}
inline void check_int32(const char* op, const char* name, const Tensor& tensor) {
  check_type(op, name, tensor, ScalarType::Int, "int32");
}
inline void check_int64(const char* op, const char* name, const Tensor& tensor) {
  check_type(op, name, tensor, ScalarType::Long, "int64");
}
inline void check_real(const char* op, const char* name, const Tensor& t) {
  STD_TORCH_CHECK(is_float(t) || is_double(t), op, ": ", name, " must be float32 or float64");
}

// Calls f(T{}) with the element type of `real`.
template <class F>
void dispatch_real(const Tensor& real, F&& f) {
  is_double(real) ? f(double{}) : f(float{});
}

// CPU tensors only: every number is in [low, high).
template <class Index>
void check_range(const char* op, const char* name, const Tensor& tensor, int64_t low, int64_t high) {
  const Index* at = tensor.const_data_ptr<Index>();
  bool fits = true;
  for (int64_t n = 0; n < tensor.numel(); ++n) fits = fits && at[n] >= low && at[n] < high;
  STD_TORCH_CHECK(fits, op, ": ", name, " must be in [", low, ", ", high, ")");
}

// CPU tensors only: starts of compressed rows, from 0 to `total`.
inline void check_starts(const char* op, const char* name, const Tensor& tensor, int64_t total) {
  const int64_t* at = tensor.const_data_ptr<int64_t>();
  const int64_t last = tensor.numel() - 1;
  bool fits = last >= 0 && at[0] == 0 && at[last] == total;
  for (int64_t n = 0; n < last && fits; ++n) fits = at[n] <= at[n + 1];
  STD_TORCH_CHECK(fits, op, ": ", name, " must rise from 0 to ", total);
}

template <class T>
const T* pointer_or_null(const Tensor& tensor) {
  return tensor.numel() == 0 ? nullptr : tensor.const_data_ptr<T>();
}

}  // namespace gcl
