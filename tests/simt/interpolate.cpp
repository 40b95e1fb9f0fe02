// Runs the CUDA kernels of interpolate, forward and backward, with the launches that the GPU gets.
#define GCL_MOST_IN_32_BITS 400  // output numbers: some cases have more
#include "case_io.h"
#include "interpolate/interpolate_kernels.cuh"

namespace {

template <class T>
gcl::InterpolateParams<T> inputs(simt::Case& c) {
  gcl::InterpolateParams<T> p{};
  p.attributes = c.input<T>("attributes");
  p.faces = c.input<int32_t>("faces");
  p.face_id = c.input<int32_t>("face_id");
  p.bary = c.input<T>("bary");
  p.batch = c.size("face_id", 0);
  p.shared = c.integer("shared") != 0;
  p.num_verts = c.size("attributes", p.shared ? 0 : 1);
  p.num_faces = c.size("faces", 0);
  p.pixels = c.size("face_id", 1) * c.size("face_id", 2);
  p.channels = c.size("attributes", p.shared ? 1 : 2);
  return p;
}

template <class T>
void forward(simt::Case& c) {
  auto p = inputs<T>(c);
  p.out = c.output<T>("out", {p.batch, c.size("face_id", 1), c.size("face_id", 2), p.channels});
  gcl::launch_interpolate(p, GclStream{});
}

template <class T>
void backward(simt::Case& c) {
  gcl::InterpolateBackwardParams<T> p{};
  p.forward = inputs<T>(c);
  p.grad_out = c.input<T>("grad_out");
  p.entry_order = c.input<int64_t>("entry_order");
  p.entry_begin = c.input<int64_t>("entry_begin");
  const int64_t rows = (p.forward.shared ? 1 : p.forward.batch) * p.forward.num_verts;
  p.grad_attributes = c.output<T>("grad_attributes", {rows, p.forward.channels});
  p.grad_bary = c.output<T>("grad_bary", {p.forward.batch, p.forward.pixels, 3});
  gcl::launch_interpolate_backward(p, GclStream{});
}

// By the type of the attributes.
#define BY_TYPE(run) [](simt::Case& c) { simt::with_real(c, "attributes", [&](auto real) { run<decltype(real)>(c); }); }

}  // namespace

int main(int argc, char** argv) {
  return simt::drive(argc, argv, {{"forward", BY_TYPE(forward)}, {"backward", BY_TYPE(backward)}});
}
