// From tensors to the parameter struct of render_mesh: checks, contiguous inputs, output. Shared by the two backends.
#pragma once

#include "rasterize/rasterize_tensors.h"
#include "render/render.h"

namespace gcl {

struct RenderTensors {
  Tensor verts, faces, camera, turns, image;
};

// turns may lie on the CPU whatever the device of the rest: its numbers travel with the launch.
inline RenderTensors render_tensors(const Tensor& verts, const Tensor& faces, const Tensor& camera, const Tensor& turns,
                                    int64_t height, int64_t width) {
  const char* op = "render_mesh";
  check_mesh(op, verts, faces);
  check_shape(op, "turns", turns, {kAnySize, 2});
  check_shape(op, "camera", camera, {verts.size(0), camera.dim() == 2 && camera.size(1) == 6 ? 6 : 3});
  check_same_device(op, verts, {{"camera", camera}});
  if (turns.is_cuda()) check_same_device(op, verts, {{"turns", turns}});
  check_same_type(op, "verts", verts, {{"camera", camera}, {"turns", turns}});
  STD_TORCH_CHECK(faces.size(0) < (int64_t{1} << 31) - 1, op, ": fewer than 2^31 - 1 faces");
  check_image_size(op, height, width);
  return {.verts = contiguous(verts),
          .faces = contiguous(faces),
          .camera = contiguous(camera),
          .turns = contiguous(turns),
          .image = new_empty(verts, {verts.size(0), turns.size(0), 1, height, width})};
}

template <class T, class Index>
RenderParams<T, Index> render_params(RenderTensors& t, int64_t height, int64_t width) {
  RenderParams<T, Index> p{};
  p.verts = t.verts.template const_data_ptr<T>();
  p.faces = t.faces.template const_data_ptr<Index>();
  p.camera = t.camera.template const_data_ptr<T>();
  p.turns = t.turns.template const_data_ptr<T>();
  p.batch = t.verts.size(0);
  p.views = t.turns.size(0);
  p.num_verts = t.verts.size(1);
  p.num_faces = t.faces.size(0);
  p.height = height;
  p.width = width;
  p.perspective = t.camera.size(1) == 6;
  p.image = t.image.template mutable_data_ptr<T>();
  return p;
}

}  // namespace gcl
