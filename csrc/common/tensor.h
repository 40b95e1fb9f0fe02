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
using torch::stable::contiguous;
using torch::stable::new_empty;
using torch::stable::new_zeros;

constexpr int64_t kAnySize = -1;

// Arguments that one check takes together: {{"faces", faces}, {"bary", bary}}.
struct NamedTensor {
  const char* name;
  const Tensor& tensor;
};
using NamedTensors = std::initializer_list<NamedTensor>;

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

inline void check_same_device(const char* op, const Tensor& like, NamedTensors tensors) {
  for (const auto& [name, tensor] : tensors) {
    STD_TORCH_CHECK(tensor.is_cuda() == like.is_cuda() && tensor.get_device_index() == like.get_device_index(), op, ": ", name,
                    " is on another device");
  }
}

inline bool is_float(const Tensor& t) { return t.scalar_type() == ScalarType::Float; }
inline bool is_double(const Tensor& t) { return t.scalar_type() == ScalarType::Double; }
inline bool is_bfloat16(const Tensor& t) { return t.scalar_type() == ScalarType::BFloat16; }
inline bool is_int32(const Tensor& t) { return t.scalar_type() == ScalarType::Int; }
inline bool is_int64(const Tensor& t) { return t.scalar_type() == ScalarType::Long; }

inline void check_type(const char* op, ScalarType type, const char* type_name, NamedTensors tensors) {
  for (const auto& [name, tensor] : tensors) {
    STD_TORCH_CHECK(tensor.scalar_type() == type, op, ": ", name, " must be ", type_name);
  }
}
inline void check_int32(const char* op, NamedTensors tensors) { check_type(op, ScalarType::Int, "int32", tensors); }
inline void check_int64(const char* op, NamedTensors tensors) { check_type(op, ScalarType::Long, "int64", tensors); }
inline void check_real(const char* op, const char* name, const Tensor& t) {
  STD_TORCH_CHECK(is_float(t) || is_double(t), op, ": ", name, " must be float32 or float64");
}
inline void check_index_type(const char* op, const char* name, const Tensor& t) {
  STD_TORCH_CHECK(is_int32(t) || is_int64(t), op, ": ", name, " must be int32 or int64");
}

// `like_name` names `like` in the message.
inline void check_same_type(const char* op, const char* like_name, const Tensor& like, NamedTensors tensors) {
  for (const auto& [name, tensor] : tensors) {
    STD_TORCH_CHECK(tensor.scalar_type() == like.scalar_type(), op, ": ", name, " must have the type of ", like_name);
  }
}

// Calls f(T{}) with the element type of `real`, which is float or double.
template <class F>
void dispatch_real(const Tensor& real, F&& f) {
  is_double(real) ? f(double{}) : f(float{});
}

// Calls f(T{}, Index{}) with the element types of `real` and `index`.
template <class F>
void dispatch_real_index(const char* op, const Tensor& real, const Tensor& index, F&& f) {
  STD_TORCH_CHECK(is_float(real) || is_double(real), op, ": expected float32 or float64");
  STD_TORCH_CHECK(is_int32(index) || is_int64(index), op, ": expected int32 or int64 indices");
  dispatch_real(real, [&](auto t) { is_int32(index) ? f(t, int32_t{}) : f(t, int64_t{}); });
}

}  // namespace gcl
