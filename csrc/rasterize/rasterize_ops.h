// The entry points of rasterize, once for both backends. A backend has forward(params, method, like), which may allocate
// workspace as `like` is, and backward(params).
#pragma once

#include <tuple>

#include "rasterize/rasterize_tensors.h"

namespace gcl {

template <class Backend>
std::tuple<Tensor, Tensor, Tensor> rasterize(Tensor verts, Tensor faces, int64_t height, int64_t width, bool cull_backfaces,
                                             int64_t method) {
  const char* op = "rasterize";
  const Backend backend{verts};
  check_method(op, method);
  RasterizeTensors t = rasterize_tensors(verts, faces, height, width);
  dispatch_real_index(op, t.verts, t.faces, [&](auto real, auto index) {
    auto p = rasterize_params<decltype(real), decltype(index)>(t, height, width, cull_backfaces);
    backend.forward(p, static_cast<Method>(method), t.verts);
  });
  backend.finish(op);
  return {t.bary, t.depth, t.face_id};
}

template <class Backend>
Tensor rasterize_backward(Tensor grad_bary, Tensor grad_depth, Tensor verts, Tensor faces, Tensor face_id, Tensor corner_order,
                          Tensor corner_begin) {
  const char* op = "rasterize_backward";
  const Backend backend{verts};
  RasterizeBackwardTensors t =
      rasterize_backward_tensors(grad_bary, grad_depth, verts, faces, face_id, corner_order, corner_begin);
  if (!verts.is_cuda()) check_corners(t);
  dispatch_real_index(op, t.verts, t.faces, [&](auto real, auto index) {
    backend.backward(rasterize_backward_params<decltype(real), decltype(index)>(t));
  });
  backend.finish(op);
  return t.grad_verts;
}

template <class Backend, class Library>
void register_rasterize(Library& m) {
  m.impl("rasterize", TORCH_BOX(&rasterize<Backend>));
  m.impl("rasterize_backward", TORCH_BOX(&rasterize_backward<Backend>));
}

}  // namespace gcl
