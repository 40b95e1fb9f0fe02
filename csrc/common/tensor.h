// Tensor checks of the launch layer. Python has checked the arguments already and raised ValueError; these guard direct
// calls of torch.ops.gcl_fast.*, so that nothing crashes the interpreter.
#pragma once

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>
#include <torch/headeronly/util/Exception.h>

#include <cstdint>
#include <initializer_list>

namespace gcl {

using Tensor = torch::stable::Tensor;
using torch::headeronly::ScalarType;

constexpr int64_t kAnySize = -1;

inline void check_shape(const char* op, const char* name, const Tensor& tensor, std::initializer_list<int64_t> shape) {
  bool fits = tensor.dim() == static_cast<int64_t>(shape.size());
  int64_t d = 0;
  for (const int64_t size : shape) {
    if (!fits) break;
    fits = size == kAnySize || tensor.size(d) == size;
    ++d;
  }
  STD_TORCH_CHECK(fits, op, ": ", name, " has a wrong shape");
}

inline void check_same_device(const char* op, const char* name, const Tensor& tensor, const Tensor& like) {
  STD_TORCH_CHECK(tensor.is_cuda() == like.is_cuda() && tensor.get_device_index() == like.get_device_index(), op, ": ", name,
                  " is on another device");
}

inline bool is_float(const Tensor& t) { return t.scalar_type() == ScalarType::Float; }
inline bool is_double(const Tensor& t) { return t.scalar_type() == ScalarType::Double; }
inline bool is_int32(const Tensor& t) { return t.scalar_type() == ScalarType::Int; }
inline bool is_int64(const Tensor& t) { return t.scalar_type() == ScalarType::Long; }

// Calls f(T{}, Index{}) with the element types of `real` and `index`.
template <class F>
void dispatch_real_index(const char* op, const Tensor& real, const Tensor& index, F&& f) {
  STD_TORCH_CHECK(is_float(real) || is_double(real), op, ": expected float32 or float64");
  STD_TORCH_CHECK(is_int32(index) || is_int64(index), op, ": expected int32 or int64 indices");
  if (is_float(real)) {
    is_int32(index) ? f(float{}, int32_t{}) : f(float{}, int64_t{});
  } else {
    is_int32(index) ? f(double{}, int32_t{}) : f(double{}, int64_t{});
  }
}

}  // namespace gcl
