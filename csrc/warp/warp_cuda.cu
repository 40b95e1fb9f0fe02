// CUDA backend of mesh_flow and mesh_warp: outputs and workspace, device guard, current stream, launches. It never waits for
// the GPU.
#include <tuple>

#include "common/cuda_stream.h"
#include "common/tensor.h"
#include "warp/warp_kernels.cuh"
#include "warp/warp_tensors.h"

namespace gcl {
namespace {

std::tuple<Tensor, Tensor> mesh_flow_cuda(Tensor src_verts, Tensor faces, Tensor dst_face_id, Tensor dst_bary, Tensor src_face_id,
                                          Tensor src_depth) {
  const CudaScope scope(src_verts.get_device_index());
  FlowTensors t = flow_tensors("mesh_flow", src_verts, faces, dst_face_id, dst_bary, src_face_id, src_depth);
  Tensor grid = flow_grid(t);
  const auto launch = [&](auto real) {
    using T = decltype(real);
    auto p = flow_params<T>(t);
    p.grid = grid.mutable_data_ptr<T>();
    launch_flow(p, scope.stream());
  };
  is_float(src_verts) ? launch(float{}) : launch(double{});
  check_cuda(cudaGetLastError(), "mesh_flow");
  return {grid, t.visibility};
}

std::tuple<Tensor, Tensor, Tensor> mesh_warp_cuda(Tensor image, Tensor src_verts, Tensor faces, Tensor dst_face_id,
                                                  Tensor dst_bary, Tensor src_face_id, Tensor src_depth, double fill,
                                                  bool keep_source) {
  const CudaScope scope(src_verts.get_device_index());
  WarpTensors t = warp_tensors(image, src_verts, faces, dst_face_id, dst_bary, src_face_id, src_depth, keep_source);
  dispatch_verts_image(src_verts, image, [&](auto real, auto pixel) {
    launch_warp(warp_params<decltype(real), decltype(pixel)>(t, fill), scope.stream());
  });
  check_cuda(cudaGetLastError(), "mesh_warp");
  return {t.warped, t.source, t.flow.visibility};
}

Tensor mesh_warp_backward_cuda(Tensor grad_warped, Tensor source, Tensor visibility, Tensor pixel_order, Tensor cell_begin) {
  const CudaScope scope(grad_warped.get_device_index());
  WarpBackwardTensors t = warp_backward_tensors(grad_warped, source, visibility, pixel_order, cell_begin);
  dispatch_verts_image(source, grad_warped, [&](auto real, auto pixel) {
    launch_warp_backward(warp_backward_params<decltype(real), decltype(pixel)>(t), scope.stream());
  });
  check_cuda(cudaGetLastError(), "mesh_warp_backward");
  return t.grad_image;
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(gcl_fast, CUDA, m) {
  m.impl("mesh_flow", TORCH_BOX(&mesh_flow_cuda));
  m.impl("mesh_warp", TORCH_BOX(&mesh_warp_cuda));
  m.impl("mesh_warp_backward", TORCH_BOX(&mesh_warp_backward_cuda));
}

}  // namespace gcl
