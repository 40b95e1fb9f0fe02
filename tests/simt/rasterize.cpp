// Runs the CUDA kernels of rasterize, forward and backward, with the launches that the GPU gets.
#include "mesh_case.h"
#include "rasterize/rasterize_kernels.cuh"

namespace {

template <class T, class Index>
void forward(simt::Case& c) {
  gcl::RasterizeParams<T, Index> p{};
  simt::read_mesh<T, Index>(c, &p);
  const int64_t batch = p.batch, height = c.integer("height"), width = c.integer("width");
  p.height = height;
  p.width = width;
  p.cull_backfaces = c.integer("cull_backfaces") != 0;
  p.face_id = c.output<int32_t>("face_id", {batch, height, width});
  p.bary = c.output<T>("bary", {batch, height, width, 3});
  p.depth = c.output<T>("depth", {batch, height, width});
  p.shared_bytes = c.integer("shared_bytes");
  p.at_once = sizeof(T) == 8 ? batch : c.integer("at_once");  // 0: fused
  p.zbuffer = c.workspace<uint64_t>({p.at_once, height, width});
  gcl::launch_rasterize(p, GclStream{});
}

template <class T, class Index>
void backward(simt::Case& c) {
  gcl::RasterizeBackwardParams<T, Index> p{};
  simt::read_mesh<T, Index>(c, &p);
  p.grad_bary = c.input<T>("grad_bary");
  p.grad_depth = c.input<T>("grad_depth");
  p.face_id = c.input<int32_t>("face_id");
  p.corner_order = c.input<int64_t>("corner_order");
  p.corner_begin = c.input<int64_t>("corner_begin");
  p.height = c.size("face_id", 1);
  p.width = c.size("face_id", 2);
  p.grad_corner = c.workspace<T>({p.batch, p.num_faces, 3, 3});
  std::fill_n(p.grad_corner, 9 * p.batch * p.num_faces, T(0));  // as the launch layer does
  p.grad_verts = c.output<T>("grad_verts", {p.batch, p.num_verts, 3});
  gcl::launch_rasterize_backward(p, GclStream{});
}

// What the launch layers choose: whether images of float32 and of float64 are fused, and how many a plain launch draws and a
// fused one of render.
void choose(simt::Case& c) {
  const gcl::Gpu gpu{.shared_bytes = c.integer("shared_bytes"),
                     .multiprocessors = c.integer("multiprocessors"),
                     .cache_bytes = c.integer("cache_bytes")};
  const auto method = static_cast<gcl::Method>(c.integer("method"));
  const int64_t images = c.integer("images"), height = c.integer("height"), width = c.integer("width");
  int64_t* const out = c.output<int64_t>("chosen", {4});
  out[0] = gcl::draws_fused<float>(method, images, height, width, gpu);
  out[1] = gcl::draws_fused<double>(method, images, height, width, gpu);
  out[2] = gcl::images_at_once(images, height * width, c.integer("faces"), gpu);
  out[3] = gcl::images_to_fuse(images, gcl::cut_into_strips(height, width, gpu.shared_bytes).count(), gpu);
}

// By the types of the mesh.
#define BY_MESH(run) \
  [](simt::Case& c) { simt::with_mesh(c, [&](auto real, auto index) { run<decltype(real), decltype(index)>(c); }); }

}  // namespace

int main(int argc, char** argv) {
  return simt::drive(argc, argv, {{"forward", BY_MESH(forward)}, {"backward", BY_MESH(backward)}, {"choose", choose}});
}
