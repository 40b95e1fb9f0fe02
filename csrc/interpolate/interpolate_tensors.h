// From tensors to the parameter structs of interpolate: checks, contiguous inputs, outputs. Shared by the two backends.
#pragma once

#include "common/tensor.h"
#include "interpolate/interpolate.h"

namespace gcl {

struct InterpolateTensors {
  Tensor attributes, faces, face_id, bary;
};

inline InterpolateTensors interpolate_inputs(const char* op, const Tensor& attributes, const Tensor& faces, const Tensor& face_id,
                                             const Tensor& bary) {
  check_shape(op, "face_id", face_id, {kAnySize, kAnySize, kAnySize});
  const int64_t batch = face_id.size(0);
  STD_TORCH_CHECK(attributes.dim() == 2 || (attributes.dim() == 3 && attributes.size(0) == batch), op,
                  ": attributes has a wrong shape");
  check_shape(op, "faces", faces, {kAnySize, 3});
  check_shape(op, "bary", bary, {batch, face_id.size(1), face_id.size(2), 3});
  check_same_device(op, attributes, {{"faces", faces}, {"face_id", face_id}, {"bary", bary}});
  check_real(op, "attributes", attributes);
  check_same_type(op, "attributes", attributes, {{"bary", bary}});
  check_int32(op, {{"faces", faces}, {"face_id", face_id}});
  return {
      .attributes = contiguous(attributes), .faces = contiguous(faces), .face_id = contiguous(face_id), .bary = contiguous(bary)};
}

template <class T>
InterpolateParams<T> interpolate_params(const InterpolateTensors& t) {
  InterpolateParams<T> p{};
  const int64_t d = t.attributes.dim();
  p.attributes = t.attributes.template const_data_ptr<T>();
  p.faces = t.faces.template const_data_ptr<int32_t>();
  p.face_id = t.face_id.template const_data_ptr<int32_t>();
  p.bary = t.bary.template const_data_ptr<T>();
  p.batch = t.face_id.size(0);
  p.num_verts = t.attributes.size(d - 2);
  p.num_faces = t.faces.size(0);
  p.pixels = t.face_id.size(1) * t.face_id.size(2);
  p.channels = t.attributes.size(d - 1);
  p.shared = d == 2;
  return p;
}

inline Tensor interpolate_output(const InterpolateTensors& t) {
  const int64_t channels = t.attributes.size(t.attributes.dim() - 1);
  return new_empty(t.attributes, {t.face_id.size(0), t.face_id.size(1), t.face_id.size(2), channels});
}

struct InterpolateBackwardTensors {
  InterpolateTensors forward;
  Tensor grad_out, entry_order, entry_begin;
  Tensor grad_attributes, grad_bary;  // [0] if not wanted
  bool need_attributes, need_bary;
};

inline InterpolateBackwardTensors interpolate_backward_tensors(const Tensor& grad_out, const Tensor& attributes,
                                                               const Tensor& faces, const Tensor& face_id, const Tensor& bary,
                                                               const Tensor& entry_order, const Tensor& entry_begin,
                                                               bool need_attributes, bool need_bary) {
  const char* op = "interpolate_backward";
  const InterpolateTensors t = interpolate_inputs(op, attributes, faces, face_id, bary);
  const int64_t d = attributes.dim(), rows = attributes.size(d - 2) * (d == 3 ? attributes.size(0) : 1);
  check_shape(op, "grad_out", grad_out, {face_id.size(0), face_id.size(1), face_id.size(2), attributes.size(d - 1)});
  check_same_type(op, "attributes", attributes, {{"grad_out", grad_out}});
  check_int64(op, {{"entry_order", entry_order}, {"entry_begin", entry_begin}});
  if (attributes.is_cuda() && need_attributes) {
    check_shape(op, "entry_order", entry_order, {3 * face_id.numel()});
    check_shape(op, "entry_begin", entry_begin, {rows + 1});
  }
  check_same_device(op, attributes, {{"grad_out", grad_out}, {"entry_order", entry_order}, {"entry_begin", entry_begin}});
  const auto gradient_of = [](const Tensor& input, bool need) {
    return need ? new_empty(input, input.sizes()) : new_empty(input, {0});
  };
  return {.forward = t,
          .grad_out = contiguous(grad_out),
          .entry_order = contiguous(entry_order),
          .entry_begin = contiguous(entry_begin),
          .grad_attributes = gradient_of(t.attributes, need_attributes),
          .grad_bary = gradient_of(t.bary, need_bary),
          .need_attributes = need_attributes,
          .need_bary = need_bary};
}

template <class T>
InterpolateBackwardParams<T> interpolate_backward_params(InterpolateBackwardTensors& t) {
  InterpolateBackwardParams<T> p{};
  p.forward = interpolate_params<T>(t.forward);
  p.grad_out = t.grad_out.template const_data_ptr<T>();
  p.entry_order = t.entry_order.template const_data_ptr<int64_t>();
  p.entry_begin = t.entry_begin.template const_data_ptr<int64_t>();
  p.grad_attributes = t.need_attributes ? t.grad_attributes.template mutable_data_ptr<T>() : nullptr;
  p.grad_bary = t.need_bary ? t.grad_bary.template mutable_data_ptr<T>() : nullptr;
  return p;
}

}  // namespace gcl
