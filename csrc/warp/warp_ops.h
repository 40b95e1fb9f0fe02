// The entry points of mesh_flow and mesh_warp, once for both backends. A backend has flow(params), warp(params) and
// backward(params).
#pragma once

#include <tuple>

#include "warp/warp_tensors.h"

namespace gcl {

template <class Backend>
std::tuple<Tensor, Tensor> mesh_flow(Tensor src_verts, Tensor faces, Tensor dst_face_id, Tensor dst_bary, Tensor src_face_id,
                                     Tensor src_depth) {
  const char* op = "mesh_flow";
  const Backend backend{src_verts};
  FlowTensors t = flow_tensors(op, src_verts, faces, dst_face_id, dst_bary, src_face_id, src_depth);
  Tensor grid = flow_grid(t);
  dispatch_real(src_verts, [&](auto real) {
    using T = decltype(real);
    auto p = flow_params<T>(t);
    p.grid = grid.mutable_data_ptr<T>();
    backend.flow(p);
  });
  backend.finish(op);
  return {grid, t.visibility};
}

template <class Backend>
std::tuple<Tensor, Tensor, Tensor> mesh_warp(Tensor image, Tensor src_verts, Tensor faces, Tensor dst_face_id, Tensor dst_bary,
                                             Tensor src_face_id, Tensor src_depth, double fill, bool keep_source) {
  const Backend backend{src_verts};
  WarpTensors t = warp_tensors(image, src_verts, faces, dst_face_id, dst_bary, src_face_id, src_depth, keep_source);
  dispatch_verts_image(src_verts, image,
                       [&](auto real, auto pixel) { backend.warp(warp_params<decltype(real), decltype(pixel)>(t, fill)); });
  backend.finish("mesh_warp");
  return {t.warped, t.source, t.flow.visibility};
}

template <class Backend>
Tensor mesh_warp_backward(Tensor grad_warped, Tensor source, Tensor visibility, Tensor pixel_order, Tensor cell_begin) {
  const Backend backend{grad_warped};
  WarpBackwardTensors t = warp_backward_tensors(grad_warped, source, visibility, pixel_order, cell_begin);
  dispatch_verts_image(source, grad_warped, [&](auto real, auto pixel) {
    backend.backward(warp_backward_params<decltype(real), decltype(pixel)>(t));
  });
  backend.finish("mesh_warp_backward");
  return t.grad_image;
}

template <class Backend, class Library>
void register_warp(Library& m) {
  m.impl("mesh_flow", TORCH_BOX(&mesh_flow<Backend>));
  m.impl("mesh_warp", TORCH_BOX(&mesh_warp<Backend>));
  m.impl("mesh_warp_backward", TORCH_BOX(&mesh_warp_backward<Backend>));
}

}  // namespace gcl
