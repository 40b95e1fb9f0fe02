// The entry points of reflect_pad, once for both backends. A backend has forward(params) and backward(params).
#pragma once

#include "reflect_pad/reflect_pad_tensors.h"

namespace gcl {

template <class Backend>
Tensor reflect_pad(Tensor x, int64_t pad) {
  const char* op = "reflect_pad";
  const Backend backend{x};
  check_shape(op, "x", x, {kAnySize, kAnySize, kAnySize, kAnySize});
  STD_TORCH_CHECK(pad >= 0 && pad < x.size(2) && pad < x.size(3), op, ": pad must be at least 0 and smaller than H and W");
  const ReflectPadTensors t = reflect_pad_tensors(x, x.size(2) + 2 * pad, x.size(3) + 2 * pad);
  dispatch_number(op, "x", x,
                  [&](auto number) { backend.forward(reflect_pad_params<decltype(number)>(t, x.size(2), x.size(3), pad)); });
  backend.finish(op);
  return t.to;
}

template <class Backend>
Tensor reflect_pad_backward(Tensor grad, int64_t pad) {
  const char* op = "reflect_pad_backward";
  const Backend backend{grad};
  check_shape(op, "grad", grad, {kAnySize, kAnySize, kAnySize, kAnySize});
  const auto fits = [&](int64_t padded) { return padded > 0 && pad <= (padded - 1) / 3; };  // pad < padded - 2 * pad
  STD_TORCH_CHECK(pad >= 0 && fits(grad.size(2)) && fits(grad.size(3)), op,
                  ": pad must be at least 0 and smaller than a third of grad's height and width");
  const int64_t height = grad.size(2) - 2 * pad, width = grad.size(3) - 2 * pad;
  const ReflectPadTensors t = reflect_pad_tensors(grad, height, width);
  dispatch_number(op, "grad", grad,
                  [&](auto number) { backend.backward(reflect_pad_params<decltype(number)>(t, height, width, pad)); });
  backend.finish(op);
  return t.to;
}

template <class Backend, class Library>
void register_reflect_pad(Library& m) {
  m.impl("reflect_pad", TORCH_BOX(&reflect_pad<Backend>));
  m.impl("reflect_pad_backward", TORCH_BOX(&reflect_pad_backward<Backend>));
}

}  // namespace gcl
