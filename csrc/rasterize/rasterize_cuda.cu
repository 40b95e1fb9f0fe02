// CUDA backend of rasterize: outputs and workspace, device guard, current stream, launches. It never waits for the GPU; faces
// that name no vertex are skipped by the kernels, because finding them would mean reading them back.
#include "common/cuda_stream.h"
#include "common/tensor.h"
#include "rasterize/rasterize_kernels.cuh"
#include "rasterize/rasterize_tensors.h"

namespace gcl {
namespace {

std::tuple<Tensor, Tensor, Tensor> rasterize_cuda(Tensor verts, Tensor faces, int64_t height, int64_t width,
                                                  bool cull_backfaces) {
  const CudaScope scope(verts.get_device_index());
  RasterizeTensors t = rasterize_tensors(verts, faces, height, width);
  int shared = 0, device = 0;
  check_cuda(cudaGetDevice(&device), "rasterize");
  check_cuda(cudaDeviceGetAttribute(&shared, cudaDevAttrMaxSharedMemoryPerBlockOptin, device), "rasterize");
  const bool fuses = is_float(verts) ? can_fuse<float>(height, width, shared) : can_fuse<double>(height, width, shared);
  Tensor zbuffer = torch::stable::new_empty(verts, {fuses ? 0 : verts.size(0), height, width}, ScalarType::Long);
  dispatch_real_index("rasterize", t.verts, t.faces, [&](auto real, auto index) {
    auto p = rasterize_params<decltype(real), decltype(index)>(t, height, width, cull_backfaces);
    p.shared_bytes = shared;
    p.zbuffer = reinterpret_cast<uint64_t*>(zbuffer.mutable_data_ptr<int64_t>());
    launch_rasterize(p, scope.stream());
  });
  check_cuda(cudaGetLastError(), "rasterize");
  return {t.bary, t.depth, t.face_id};
}

Tensor rasterize_backward_cuda(Tensor grad_bary, Tensor grad_depth, Tensor verts, Tensor faces, Tensor face_id,
                               Tensor corner_order, Tensor corner_begin) {
  const CudaScope scope(verts.get_device_index());
  BackwardTensors t = backward_tensors(grad_bary, grad_depth, verts, faces, face_id, corner_order, corner_begin);
  dispatch_real_index("rasterize_backward", t.verts, t.faces, [&](auto real, auto index) {
    launch_rasterize_backward(backward_params<decltype(real), decltype(index)>(t), scope.stream());
  });
  check_cuda(cudaGetLastError(), "rasterize_backward");
  return t.grad_verts;
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(gcl_fast, CUDA, m) {
  m.impl("rasterize", TORCH_BOX(&rasterize_cuda));
  m.impl("rasterize_backward", TORCH_BOX(&rasterize_backward_cuda));
}

}  // namespace gcl
