// The entry point of render_mesh, once for both backends. A backend has render(params, method, tensors), which
// allocates its workspace.
#pragma once

#include "render/render_tensors.h"

namespace gcl {

template <class Backend>
Tensor render_mesh(Tensor verts, Tensor faces, Tensor camera, Tensor turns, int64_t height, int64_t width, int64_t method) {
  const char* op = "render_mesh";
  const Backend backend{verts};
  check_method(op, method);
  RenderTensors t = render_tensors(verts, faces, camera, turns, height, width);
  dispatch_real_index(op, t.verts, t.faces, [&](auto real, auto index) {
    backend.render(render_params<decltype(real), decltype(index)>(t, height, width), static_cast<Method>(method), t);
  });
  backend.finish(op);
  return t.image;
}

template <class Backend, class Library>
void register_render(Library& m) {
  m.impl("render_mesh", TORCH_BOX(&render_mesh<Backend>));
}

}  // namespace gcl
