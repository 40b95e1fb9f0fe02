// Runs the CUDA kernels of render_mesh with the launches that the GPU gets.
#include "mesh_case.h"
#include "render/render_kernels.cuh"

namespace {

template <class T, class Index>
void render(simt::Case& c) {
  gcl::RenderParams<T, Index> p{};
  simt::read_mesh<T, Index>(c, &p);
  p.camera = c.input<T>("camera");
  p.turns = c.input<T>("turns");
  p.views = c.size("turns", 0);
  p.height = c.integer("height");
  p.width = c.integer("width");
  p.perspective = c.size("camera", 1) == 6;
  p.image = c.output<T>("image", {p.batch, p.views, 1, p.height, p.width});
  p.fused = sizeof(T) == 4 && c.integer("fused") != 0 && p.height * p.width > 0;
  p.shared_bytes = c.integer("shared_bytes");
  p.bodies_at_once = c.integer("bodies_at_once");
  const int64_t pictures = p.bodies_at_once * gcl::minimum(p.views, gcl::kViewsAtOnce);
  p.middle = c.workspace<T>({p.batch, 2});
  p.pixels = c.workspace<T>({pictures, p.num_verts, 3});
  p.grey = c.workspace<T>({pictures, p.num_faces});
  p.zbuffer = c.workspace<uint64_t>({p.fused ? 0 : pictures, p.height, p.width});
  if (sizeof(T) == 8) p.face_id = c.workspace<int32_t>({pictures, p.height, p.width});
  gcl::launch_render(p, c.integer("turns_on_host") != 0 ? p.turns : nullptr, GclStream{});
}

void by_mesh(simt::Case& c) {
  simt::with_mesh(c, [&](auto real, auto index) { render<decltype(real), decltype(index)>(c); });
}

}  // namespace

int main(int argc, char** argv) { return simt::drive(argc, argv, {{"render", by_mesh}}); }
