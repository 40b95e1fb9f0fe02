// Runs the CUDA kernels of rasterize, forward and backward, with the launches that the GPU gets.
#include "case_io.h"
#include "rasterize/rasterize_kernels.cuh"

namespace {

template <class T, class Index>
void forward(simt::Case& c) {
  const int64_t batch = c.size("verts", 0), height = c.integer("height"), width = c.integer("width");
  gcl::RasterizeParams<T, Index> p{};
  p.verts = c.input<T>("verts");
  p.faces = c.input<Index>("faces");
  p.batch = batch;
  p.num_verts = c.size("verts", 1);
  p.num_faces = c.size("faces", 0);
  p.height = height;
  p.width = width;
  p.cull_backfaces = c.integer("cull_backfaces") != 0;
  p.face_id = c.output<int32_t>("face_id", {batch, height, width});
  p.bary = c.output<T>("bary", {batch, height, width, 3});
  p.depth = c.output<T>("depth", {batch, height, width});
  p.shared_bytes = c.integer("shared_bytes");
  const bool fuses = gcl::can_fuse<T>(height, width, p.shared_bytes);
  p.zbuffer = c.workspace<uint64_t>({fuses ? 0 : batch, height, width});
  gcl::launch_rasterize(p, GclStream{});
}

template <class T, class Index>
void backward(simt::Case& c) {
  gcl::RasterizeBackwardParams<T, Index> p{};
  p.grad_bary = c.input<T>("grad_bary");
  p.grad_depth = c.input<T>("grad_depth");
  p.verts = c.input<T>("verts");
  p.faces = c.input<Index>("faces");
  p.face_id = c.input<int32_t>("face_id");
  p.corner_order = c.input<int64_t>("corner_order");
  p.corner_begin = c.input<int64_t>("corner_begin");
  p.batch = c.size("verts", 0);
  p.num_verts = c.size("verts", 1);
  p.num_faces = c.size("faces", 0);
  p.height = c.size("face_id", 1);
  p.width = c.size("face_id", 2);
  p.grad_corner = c.workspace<T>({p.batch, p.num_faces, 3, 3});
  std::fill_n(p.grad_corner, 9 * p.batch * p.num_faces, T(0));  // as the launch layer does
  p.grad_verts = c.output<T>("grad_verts", {p.batch, p.num_verts, 3});
  gcl::launch_rasterize_backward(p, GclStream{});
}

template <template <class, class> class Run>
void by_type(simt::Case& c) {
  const bool real8 = c.type("verts") == "f8", index8 = c.type("faces") == "i8";
  if (real8) index8 ? Run<double, int64_t>{}(c) : Run<double, int32_t>{}(c);
  else index8 ? Run<float, int64_t>{}(c) : Run<float, int32_t>{}(c);
}

template <class T, class Index>
struct Forward {
  void operator()(simt::Case& c) const { forward<T, Index>(c); }
};
template <class T, class Index>
struct Backward {
  void operator()(simt::Case& c) const { backward<T, Index>(c); }
};

}  // namespace

int main(int argc, char** argv) {
  return simt::drive(argc, argv, {{"forward", by_type<Forward>}, {"backward", by_type<Backward>}});
}
