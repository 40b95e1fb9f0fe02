// From tensors to the parameter struct of reflect_pad: element types, memory formats, outputs. Shared by the two backends.
#pragma once

#include "common/halves.h"
#include "common/tensor.h"
#include "reflect_pad/reflect_pad.h"

namespace gcl {

using torch::headeronly::MemoryFormat;

// Calls f(T{}) with the element type of `t`.
template <class F>
void dispatch_number(const char* op, const char* name, const Tensor& t, F&& f) {
  switch (t.scalar_type()) {
    case ScalarType::Float:
      return f(float{});
    case ScalarType::Double:
      return f(double{});
    case ScalarType::BFloat16:
      return f(BFloat16{});
    case ScalarType::Half:
      return f(Half{});
    default:
      STD_TORCH_CHECK(false, op, ": ", name, " must be float32, float64, bfloat16 or float16");
  }
}

// Whether [B, C, H, W] lies in memory as [B, H, W, C] without gaps, and not as it is named too.
inline bool channels_last(const Tensor& t) {
  if (t.is_contiguous()) return false;
  int64_t step = 1;
  for (const int64_t d : {1, 3, 2, 0}) {
    if (t.size(d) != 1 && t.stride(d) != step) return false;
    step *= t.size(d);
  }
  return true;
}

struct ReflectPadTensors {
  Tensor from, to;  // of the same memory format
  bool last;        // channels last
};

// `like` without gaps, and an output of its format with maps of another size.
inline ReflectPadTensors reflect_pad_tensors(const Tensor& like, int64_t height, int64_t width) {
  const bool last = channels_last(like);
  const auto format = last ? MemoryFormat::ChannelsLast : MemoryFormat::Contiguous;
  const Tensor to = torch::stable::empty({like.size(0), like.size(1), height, width}, like.scalar_type(), std::nullopt,
                                         like.device(), std::nullopt, format);
  return {.from = last ? like : contiguous(like), .to = to, .last = last};
}

// Of maps of height x width.
template <class T>
ReflectPadParams<T> reflect_pad_params(const ReflectPadTensors& t, int64_t height, int64_t width, int64_t pad) {
  const int64_t batch = t.to.size(0), channels = t.to.size(1);
  return {.from = static_cast<const T*>(t.from.const_data_ptr()),
          .to = static_cast<T*>(t.to.mutable_data_ptr()),
          .outer = t.last ? batch : batch * channels,
          .height = height,
          .width = width,
          .inner = t.last ? channels : 1,
          .pad = pad};
}

}  // namespace gcl
