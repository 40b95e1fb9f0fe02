// Runs the CUDA kernels of render_mesh with the launches that the GPU gets.
#include "case_io.h"
#include "render/render_kernels.cuh"

namespace {

template <class T, class Index>
void render(simt::Case& c) {
  gcl::RenderParams<T, Index> p{};
  p.verts = c.input<T>("verts");
  p.faces = c.input<Index>("faces");
  p.camera = c.input<T>("camera");
  p.turns = c.input<T>("turns");
  p.batch = c.size("verts", 0);
  p.views = c.size("turns", 0);
  p.num_verts = c.size("verts", 1);
  p.num_faces = c.size("faces", 0);
  p.height = c.integer("height");
  p.width = c.integer("width");
  p.perspective = c.size("camera", 1) == 6;
  p.image = c.output<T>("image", {p.batch, p.views, 1, p.height, p.width});
  p.middle = c.workspace<T>({p.batch, 2});
  p.zbuffer = c.workspace<uint64_t>({p.batch, p.views, p.height, p.width});
  if (sizeof(T) == 8) p.face_id = c.workspace<int32_t>({p.batch, p.views, p.height, p.width});
  gcl::launch_render(p, c.integer("turns_on_host") != 0 ? p.turns : nullptr, GclStream{});
}

}  // namespace

int main(int argc, char** argv) {
  return simt::drive(argc, argv,
                     {
                         {"render",
                          [](simt::Case& c) {
                            const bool real8 = c.type("verts") == "f8", index8 = c.type("faces") == "i8";
                            if (real8) index8 ? render<double, int64_t>(c) : render<double, int32_t>(c);
                            else index8 ? render<float, int64_t>(c) : render<float, int32_t>(c);
                          }},
                     });
}
