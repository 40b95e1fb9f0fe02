// The entry points of interpolate, once for both backends. A backend has forward(params) and backward(params).
#pragma once

#include <tuple>

#include "interpolate/interpolate_tensors.h"

namespace gcl {

template <class Backend>
Tensor interpolate(Tensor attributes, Tensor faces, Tensor face_id, Tensor bary) {
  const char* op = "interpolate";
  const Backend backend{attributes};
  const InterpolateTensors t = interpolate_inputs(op, attributes, faces, face_id, bary);
  Tensor out = interpolate_output(t);
  dispatch_real(attributes, [&](auto real) {
    using T = decltype(real);
    auto p = interpolate_params<T>(t);
    p.out = out.mutable_data_ptr<T>();
    backend.forward(p);
  });
  backend.finish(op);
  return out;
}

template <class Backend>
std::tuple<Tensor, Tensor> interpolate_backward(Tensor grad_out, Tensor attributes, Tensor faces, Tensor face_id, Tensor bary,
                                                Tensor entry_order, Tensor entry_begin, bool need_attributes, bool need_bary) {
  const Backend backend{attributes};
  InterpolateBackwardTensors t = interpolate_backward_tensors(grad_out, attributes, faces, face_id, bary, entry_order,
                                                              entry_begin, need_attributes, need_bary);
  dispatch_real(attributes, [&](auto real) { backend.backward(interpolate_backward_params<decltype(real)>(t)); });
  backend.finish("interpolate_backward");
  return {t.grad_attributes, t.grad_bary};
}

template <class Backend, class Library>
void register_interpolate(Library& m) {
  m.impl("interpolate", TORCH_BOX(&interpolate<Backend>));
  m.impl("interpolate_backward", TORCH_BOX(&interpolate_backward<Backend>));
}

}  // namespace gcl
