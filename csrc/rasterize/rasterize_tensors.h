// From tensors to the parameter structs: checks, contiguous inputs, outputs. Shared by the two backends.
#pragma once

#include "common/tensor.h"
#include "rasterize/rasterize.h"
#include "rasterize/rasterize_math.h"

namespace gcl {

inline void check_mesh(const char* op, const Tensor& verts, const Tensor& faces) {
  check_shape(op, "verts", verts, {kAnySize, kAnySize, 3});
  check_shape(op, "faces", faces, {kAnySize, 3});
  check_same_device(op, verts, {{"faces", faces}});
  check_real(op, "verts", verts);
  check_index_type(op, "faces", faces);
}

inline void check_image_size(const char* op, int64_t height, int64_t width) {
  STD_TORCH_CHECK(height >= 0 && width >= 0 && height <= kMaxImageSize && width <= kMaxImageSize, op,
                  ": image sides must be in [0, ", kMaxImageSize, "], got ", height, " x ", width);
}

inline void check_method(const char* op, int64_t method) {
  STD_TORCH_CHECK(method >= 0 && method <= static_cast<int64_t>(Method::fused), op, ": method must be 0, 1 or 2, got ", method);
}

struct RasterizeTensors {
  Tensor verts, faces;
  Tensor face_id, bary, depth;
};

inline RasterizeTensors rasterize_tensors(const Tensor& verts, const Tensor& faces, int64_t height, int64_t width) {
  const char* op = "rasterize";
  check_mesh(op, verts, faces);
  STD_TORCH_CHECK(faces.size(0) < (int64_t{1} << 31), op, ": fewer than 2^31 faces");
  check_image_size(op, height, width);
  const int64_t batch = verts.size(0);
  return {.verts = contiguous(verts),
          .faces = contiguous(faces),
          .face_id = new_empty(verts, {batch, height, width}, ScalarType::Int),
          .bary = new_empty(verts, {batch, height, width, 3}),
          .depth = new_empty(verts, {batch, height, width})};
}

template <class T, class Index>
RasterizeParams<T, Index> rasterize_params(RasterizeTensors& t, int64_t height, int64_t width, bool cull_backfaces) {
  RasterizeParams<T, Index> p{};
  p.verts = t.verts.template const_data_ptr<T>();
  p.faces = t.faces.template const_data_ptr<Index>();
  p.batch = t.verts.size(0);
  p.num_verts = t.verts.size(1);
  p.num_faces = t.faces.size(0);
  p.height = height;
  p.width = width;
  p.cull_backfaces = cull_backfaces;
  p.face_id = t.face_id.template mutable_data_ptr<int32_t>();
  p.bary = t.bary.template mutable_data_ptr<T>();
  p.depth = t.depth.template mutable_data_ptr<T>();
  return p;
}

struct RasterizeBackwardTensors {
  Tensor grad_bary, grad_depth, verts, faces, face_id, corner_order, corner_begin;
  Tensor grad_corner, grad_verts;
};

inline RasterizeBackwardTensors rasterize_backward_tensors(const Tensor& grad_bary, const Tensor& grad_depth, const Tensor& verts,
                                                           const Tensor& faces, const Tensor& face_id, const Tensor& corner_order,
                                                           const Tensor& corner_begin) {
  const char* op = "rasterize_backward";
  check_mesh(op, verts, faces);
  check_shape(op, "face_id", face_id, {verts.size(0), kAnySize, kAnySize});
  check_shape(op, "grad_bary", grad_bary, {verts.size(0), face_id.size(1), face_id.size(2), 3});
  check_shape(op, "grad_depth", grad_depth, {verts.size(0), face_id.size(1), face_id.size(2)});
  check_shape(op, "corner_order", corner_order, {3 * faces.size(0)});
  check_shape(op, "corner_begin", corner_begin, {verts.size(1) + 1});
  const NamedTensors gradients = {{"grad_bary", grad_bary}, {"grad_depth", grad_depth}};
  const NamedTensors corners = {{"corner_order", corner_order}, {"corner_begin", corner_begin}};
  check_same_device(op, verts, gradients);
  check_same_device(op, verts, corners);
  check_same_device(op, verts, {{"face_id", face_id}});
  check_same_type(op, "verts", verts, gradients);
  check_int64(op, corners);
  check_int32(op, {{"face_id", face_id}});
  return {.grad_bary = contiguous(grad_bary),
          .grad_depth = contiguous(grad_depth),
          .verts = contiguous(verts),
          .faces = contiguous(faces),
          .face_id = contiguous(face_id),
          .corner_order = contiguous(corner_order),
          .corner_begin = contiguous(corner_begin),
          .grad_corner = new_zeros(verts, {verts.size(0), faces.size(0), 3, 3}),
          .grad_verts = new_empty(verts, {verts.size(0), verts.size(1), 3})};
}

// CPU tensors only: the corner table stays inside its arrays.
inline void check_corners(const RasterizeBackwardTensors& t) {
  const int64_t corners = t.corner_order.numel();
  const int64_t* order = t.corner_order.const_data_ptr<int64_t>();
  const int64_t* begin = t.corner_begin.const_data_ptr<int64_t>();
  bool fits = true;
  for (int64_t c = 0; c < corners; ++c) fits = fits && order[c] >= 0 && order[c] < corners;
  for (int64_t v = 0; v < t.corner_begin.numel(); ++v) fits = fits && begin[v] >= 0 && begin[v] <= corners;
  STD_TORCH_CHECK(fits, "rasterize_backward: corner_order or corner_begin out of range");
}

template <class T, class Index>
RasterizeBackwardParams<T, Index> rasterize_backward_params(RasterizeBackwardTensors& t) {
  RasterizeBackwardParams<T, Index> p{};
  p.grad_bary = t.grad_bary.template const_data_ptr<T>();
  p.grad_depth = t.grad_depth.template const_data_ptr<T>();
  p.verts = t.verts.template const_data_ptr<T>();
  p.faces = t.faces.template const_data_ptr<Index>();
  p.face_id = t.face_id.template const_data_ptr<int32_t>();
  p.corner_order = t.corner_order.template const_data_ptr<int64_t>();
  p.corner_begin = t.corner_begin.template const_data_ptr<int64_t>();
  p.batch = t.verts.size(0);
  p.num_verts = t.verts.size(1);
  p.num_faces = t.faces.size(0);
  p.height = t.face_id.size(1);
  p.width = t.face_id.size(2);
  p.grad_corner = t.grad_corner.template mutable_data_ptr<T>();
  p.grad_verts = t.grad_verts.template mutable_data_ptr<T>();
  return p;
}

}  // namespace gcl
