// From tensors to the parameter structs of mesh_flow and mesh_warp: checks, contiguous inputs, outputs. Shared by the backends.
#pragma once

#include "common/tensor.h"
#include "rasterize/rasterize_tensors.h"
#include "warp/warp.h"

namespace gcl {

constexpr int64_t kMaxFlowIndex = (int64_t{1} << 31) - 1;

struct FlowTensors {
  Tensor src_verts, faces, dst_face_id, dst_bary, src_face_id, src_depth;
  Tensor limits, visibility;
};

inline FlowTensors flow_tensors(const char* op, const Tensor& src_verts, const Tensor& faces, const Tensor& dst_face_id,
                                const Tensor& dst_bary, const Tensor& src_face_id, const Tensor& src_depth) {
  check_shape(op, "src_verts", src_verts, {kAnySize, kAnySize, 3});
  check_shape(op, "faces", faces, {kAnySize, 3});
  check_shape(op, "dst_face_id", dst_face_id, {src_verts.size(0), kAnySize, kAnySize});
  const int64_t batch = src_verts.size(0), height = dst_face_id.size(1), width = dst_face_id.size(2);
  check_shape(op, "dst_bary", dst_bary, {batch, height, width, 3});
  check_shape(op, "src_face_id", src_face_id, {batch, height, width});
  check_shape(op, "src_depth", src_depth, {batch, height, width});
  const NamedTensors numbers = {{"faces", faces}, {"dst_face_id", dst_face_id}, {"src_face_id", src_face_id}};
  const NamedTensors reals = {{"dst_bary", dst_bary}, {"src_depth", src_depth}};
  check_same_device(op, src_verts, numbers);
  check_same_device(op, src_verts, reals);
  check_real(op, "src_verts", src_verts);
  check_same_type(op, "src_verts", src_verts, reals);
  check_int32(op, numbers);
  check_image_size(op, height, width);  // beyond, a float may lie in a column that is not there
  const bool fits = height * width <= kMaxFlowIndex && src_verts.size(1) <= kMaxFlowIndex / 3;
  STD_TORCH_CHECK(fits && faces.size(0) <= kMaxFlowIndex / 3, op,
                  ": fewer than 2^31 pixels an image and 2^31 / 3 vertices and faces");
  return {.src_verts = contiguous(src_verts),
          .faces = contiguous(faces),
          .dst_face_id = contiguous(dst_face_id),
          .dst_bary = contiguous(dst_bary),
          .src_face_id = contiguous(src_face_id),
          .src_depth = contiguous(src_depth),
          .limits = new_empty(src_verts, {batch, 2}),
          .visibility = new_empty(src_verts, {batch, height, width}, ScalarType::Byte)};
}

template <class T>
FlowParams<T> flow_params(FlowTensors& t) {
  FlowParams<T> p{};
  p.src_verts = t.src_verts.template const_data_ptr<T>();
  p.faces = t.faces.template const_data_ptr<int32_t>();
  p.dst_face_id = t.dst_face_id.template const_data_ptr<int32_t>();
  p.dst_bary = t.dst_bary.template const_data_ptr<T>();
  p.src_face_id = t.src_face_id.template const_data_ptr<int32_t>();
  p.src_depth = t.src_depth.template const_data_ptr<T>();
  p.batch = t.src_verts.size(0);
  p.num_verts = t.src_verts.size(1);
  p.num_faces = p.num_verts > 0 ? t.faces.size(0) : 0;
  p.height = t.dst_face_id.size(1);
  p.width = t.dst_face_id.size(2);
  p.limits = t.limits.template mutable_data_ptr<T>();
  p.visibility = t.visibility.template mutable_data_ptr<uint8_t>();
  return p;
}

inline Tensor flow_grid(const FlowTensors& t) {
  return new_empty(t.src_verts, {t.src_verts.size(0), t.dst_face_id.size(1), t.dst_face_id.size(2), 2});
}

struct WarpTensors {
  FlowTensors flow;
  Tensor image, source, warped;
  bool keep_source;
};

inline WarpTensors warp_tensors(const Tensor& image, const Tensor& src_verts, const Tensor& faces, const Tensor& dst_face_id,
                                const Tensor& dst_bary, const Tensor& src_face_id, const Tensor& src_depth, bool keep_source) {
  const char* op = "mesh_warp";
  const FlowTensors t = flow_tensors(op, src_verts, faces, dst_face_id, dst_bary, src_face_id, src_depth);
  check_shape(op, "image", image, {src_verts.size(0), kAnySize, dst_face_id.size(1), dst_face_id.size(2)});
  check_same_device(op, src_verts, {{"image", image}});
  check_real(op, "image", image);
  return {.flow = t,
          .image = contiguous(image),
          .source = keep_source ? flow_grid(t) : new_empty(t.src_verts, {0}),
          .warped = new_empty(image, image.sizes()),
          .keep_source = keep_source};
}

template <class T, class S>
WarpParams<T, S> warp_params(WarpTensors& t, double fill) {
  WarpParams<T, S> p{};
  p.flow = flow_params<T>(t.flow);
  p.image = t.image.template const_data_ptr<S>();
  p.channels = t.image.size(1);
  p.fill = static_cast<S>(fill);
  p.source = t.keep_source ? t.source.template mutable_data_ptr<T>() : nullptr;
  p.warped = t.warped.template mutable_data_ptr<S>();
  return p;
}

struct WarpBackwardTensors {
  Tensor grad_warped, source, visibility, pixel_order, cell_begin, grad_image;
};

inline WarpBackwardTensors warp_backward_tensors(const Tensor& grad_warped, const Tensor& source, const Tensor& visibility,
                                                 const Tensor& pixel_order, const Tensor& cell_begin) {
  const char* op = "mesh_warp_backward";
  check_shape(op, "grad_warped", grad_warped, {kAnySize, kAnySize, kAnySize, kAnySize});
  const int64_t batch = grad_warped.size(0), height = grad_warped.size(2), width = grad_warped.size(3);
  check_shape(op, "source", source, {batch, height, width, 2});
  check_shape(op, "visibility", visibility, {batch, height, width});
  check_image_size(op, height, width);
  STD_TORCH_CHECK(height * width <= kMaxFlowIndex, op, ": fewer than 2^31 pixels an image");
  check_real(op, "grad_warped", grad_warped);
  check_real(op, "source", source);
  check_type(op, ScalarType::Byte, "uint8", {{"visibility", visibility}});
  check_int64(op, {{"pixel_order", pixel_order}, {"cell_begin", cell_begin}});
  if (grad_warped.is_cuda()) {
    check_shape(op, "pixel_order", pixel_order, {batch * height * width});
    check_shape(op, "cell_begin", cell_begin, {batch * (height + 1) * (width + 1) + 1});
  }
  check_same_device(op, grad_warped,
                    {{"source", source}, {"visibility", visibility}, {"pixel_order", pixel_order}, {"cell_begin", cell_begin}});
  return {.grad_warped = contiguous(grad_warped),
          .source = contiguous(source),
          .visibility = contiguous(visibility),
          .pixel_order = contiguous(pixel_order),
          .cell_begin = contiguous(cell_begin),
          .grad_image = new_empty(grad_warped, grad_warped.sizes())};
}

template <class T, class S>
WarpBackwardParams<T, S> warp_backward_params(WarpBackwardTensors& t) {
  WarpBackwardParams<T, S> p{};
  p.grad_warped = t.grad_warped.template const_data_ptr<S>();
  p.source = t.source.template const_data_ptr<T>();
  p.visibility = t.visibility.template const_data_ptr<uint8_t>();
  p.pixel_order = t.pixel_order.template const_data_ptr<int64_t>();
  p.cell_begin = t.cell_begin.template const_data_ptr<int64_t>();
  p.batch = t.grad_warped.size(0);
  p.channels = t.grad_warped.size(1);
  p.height = t.grad_warped.size(2);
  p.width = t.grad_warped.size(3);
  p.grad_image = t.grad_image.template mutable_data_ptr<S>();
  return p;
}

// Calls f(T{}, S{}) with the element types of the vertices (or the source) and of the image; both are float or double.
template <class F>
void dispatch_verts_image(const Tensor& verts, const Tensor& image, F&& f) {
  dispatch_real(verts, [&](auto real) { dispatch_real(image, [&](auto pixel) { f(real, pixel); }); });
}

}  // namespace gcl
