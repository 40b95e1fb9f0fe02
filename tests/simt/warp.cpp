// Runs the CUDA kernels of mesh_flow, mesh_warp and its backward, with the launches that the GPU gets.
#include "case_io.h"
#include "warp/warp_kernels.cuh"

namespace {

template <class T>
gcl::FlowParams<T> inputs(simt::Case& c) {
  gcl::FlowParams<T> p{};
  p.src_verts = c.input<T>("src_verts");
  p.faces = c.input<int32_t>("faces");
  p.dst_face_id = c.input<int32_t>("dst_face_id");
  p.dst_bary = c.input<T>("dst_bary");
  p.src_face_id = c.input<int32_t>("src_face_id");
  p.src_depth = c.input<T>("src_depth");
  p.batch = c.size("src_verts", 0);
  p.num_verts = c.size("src_verts", 1);
  p.num_faces = p.num_verts > 0 ? c.size("faces", 0) : 0;
  p.height = c.size("dst_face_id", 1);
  p.width = c.size("dst_face_id", 2);
  p.limits = c.workspace<T>({p.batch, 2});
  p.visibility = c.output<uint8_t>("visibility", {p.batch, p.height, p.width});
  return p;
}

template <class T>
void flow(simt::Case& c) {
  auto p = inputs<T>(c);
  p.grid = c.output<T>("grid", {p.batch, p.height, p.width, 2});
  gcl::launch_flow(p, GclStream{});
}

template <class T, class S>
void warp(simt::Case& c) {
  gcl::WarpParams<T, S> p{};
  p.flow = inputs<T>(c);
  p.image = c.input<S>("image");
  p.channels = c.size("image", 1);
  p.fill = *c.input<S>("fill");
  const int64_t batch = p.flow.batch, height = p.flow.height, width = p.flow.width;
  if (c.integer("keep_source") != 0) p.source = c.output<T>("source", {batch, height, width, 2});
  p.warped = c.output<S>("warped", {batch, p.channels, height, width});
  gcl::launch_warp(p, GclStream{});
}

template <class T, class S>
void backward(simt::Case& c) {
  gcl::WarpBackwardParams<T, S> p{};
  p.grad_warped = c.input<S>("grad_warped");
  p.source = c.input<T>("source");
  p.visibility = c.input<uint8_t>("visibility");
  p.pixel_order = c.input<int64_t>("pixel_order");
  p.cell_begin = c.input<int64_t>("cell_begin");
  p.batch = c.size("grad_warped", 0);
  p.channels = c.size("grad_warped", 1);
  p.height = c.size("grad_warped", 2);
  p.width = c.size("grad_warped", 3);
  p.grad_image = c.output<S>("grad_image", {p.batch, p.channels, p.height, p.width});
  gcl::launch_warp_backward(p, GclStream{});
}

// Calls f(T{}, S{}) with the types of the vertices, or what came of them, and of the image.
template <class F>
void with_types(simt::Case& c, const char* verts, const char* image, F&& f) {
  simt::with_real(c, verts, [&](auto real) { simt::with_real(c, image, [&](auto pixel) { f(real, pixel); }); });
}

void flow_by_type(simt::Case& c) {
  simt::with_real(c, "src_verts", [&](auto real) { flow<decltype(real)>(c); });
}
void warp_by_type(simt::Case& c) {
  with_types(c, "src_verts", "image", [&](auto real, auto pixel) { warp<decltype(real), decltype(pixel)>(c); });
}
void backward_by_type(simt::Case& c) {
  with_types(c, "source", "grad_warped", [&](auto real, auto pixel) { backward<decltype(real), decltype(pixel)>(c); });
}

}  // namespace

int main(int argc, char** argv) {
  return simt::drive(argc, argv, {{"flow", flow_by_type}, {"warp", warp_by_type}, {"backward", backward_by_type}});
}
