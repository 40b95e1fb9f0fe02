// CPU backend of mesh_flow and mesh_warp: rows of the batch in parallel, each pixel on its own; backward by image and channels.
// So no result depends on the number of threads.
#include <tuple>

#include "warp/warp_rows.h"
#include "warp/warp_tensors.h"

namespace gcl {
namespace {

using torch::stable::parallel_for;

constexpr int64_t kPixelsAtOnce = 4096;
constexpr int64_t kChannelsAtOnce = 4;  // of one image share the taps

template <class T>
void find_limits(const FlowParams<T>& p) {
  parallel_for(0, p.batch, 1, [&](int64_t begin, int64_t end) {
    for (int64_t b = begin; b < end; ++b) GCL_PICK(flow_limits<FlowParams<T>>)(p, b);
  });
}

template <class T>
int64_t rows_at_once(const FlowParams<T>& p) {
  return p.width < kPixelsAtOnce ? kPixelsAtOnce / (p.width + 1) + 1 : 1;
}

std::tuple<Tensor, Tensor> mesh_flow_cpu(Tensor src_verts, Tensor faces, Tensor dst_face_id, Tensor dst_bary, Tensor src_face_id,
                                         Tensor src_depth) {
  FlowTensors t = flow_tensors("mesh_flow", src_verts, faces, dst_face_id, dst_bary, src_face_id, src_depth);
  Tensor grid = flow_grid(t);
  const auto run = [&](auto real) {
    using T = decltype(real);
    auto p = flow_params<T>(t);
    p.grid = grid.mutable_data_ptr<T>();
    find_limits(p);
    parallel_for(0, p.batch * p.height, rows_at_once(p),
                 [&](int64_t begin, int64_t end) { GCL_PICK(flow_rows<FlowParams<T>>)(p, begin, end); });
  };
  is_float(src_verts) ? run(float{}) : run(double{});
  return {grid, t.visibility};
}

std::tuple<Tensor, Tensor, Tensor> mesh_warp_cpu(Tensor image, Tensor src_verts, Tensor faces, Tensor dst_face_id,
                                                 Tensor dst_bary, Tensor src_face_id, Tensor src_depth, double fill,
                                                 bool keep_source) {
  WarpTensors t = warp_tensors(image, src_verts, faces, dst_face_id, dst_bary, src_face_id, src_depth, keep_source);
  dispatch_verts_image(src_verts, image, [&](auto real, auto pixel) {
    using P = WarpParams<decltype(real), decltype(pixel)>;
    const P p = warp_params<decltype(real), decltype(pixel)>(t, fill);
    find_limits(p.flow);
    parallel_for(0, p.flow.batch * p.flow.height, rows_at_once(p.flow),
                 [&](int64_t begin, int64_t end) { GCL_PICK(warp_rows<P>)(p, begin, end); });
  });
  return {t.warped, t.source, t.flow.visibility};
}

Tensor mesh_warp_backward_cpu(Tensor grad_warped, Tensor source, Tensor visibility, Tensor pixel_order, Tensor cell_begin) {
  WarpBackwardTensors t = warp_backward_tensors(grad_warped, source, visibility, pixel_order, cell_begin);
  dispatch_verts_image(source, grad_warped, [&](auto real, auto pixel) {
    using P = WarpBackwardParams<decltype(real), decltype(pixel)>;
    const P p = warp_backward_params<decltype(real), decltype(pixel)>(t);
    const int64_t groups = (p.channels + kChannelsAtOnce - 1) / kChannelsAtOnce;
    parallel_for(0, p.batch * groups, 1, [&](int64_t begin, int64_t end) {
      for (int64_t n = begin; n < end; ++n) {
        const int64_t first = n % groups * kChannelsAtOnce, last = first + kChannelsAtOnce;
        GCL_PICK(warp_backward<P>)(p, n / groups, first, last < p.channels ? last : p.channels);
      }
    });
  });
  return t.grad_image;
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(gcl_fast, CPU, m) {
  m.impl("mesh_flow", TORCH_BOX(&mesh_flow_cpu));
  m.impl("mesh_warp", TORCH_BOX(&mesh_warp_cpu));
  m.impl("mesh_warp_backward", TORCH_BOX(&mesh_warp_backward_cpu));
}

}  // namespace gcl
