// CUDA backend of render_mesh: output and workspace, device guard, current stream, launches. It never waits for the GPU; faces
// that name no vertex are skipped by the kernels, because finding them would mean reading them back.
#include "common/cuda_stream.h"
#include "common/tensor.h"
#include "render/render_kernels.cuh"
#include "render/render_tensors.h"

namespace gcl {
namespace {

Tensor render_mesh_cuda(Tensor verts, Tensor faces, Tensor camera, Tensor turns, int64_t height, int64_t width) {
  const CudaScope scope(verts.get_device_index());
  RenderTensors t = render_tensors(verts, faces, camera, turns, height, width);
  using torch::stable::new_empty;
  const int64_t batch = verts.size(0), pixels = turns.size(0) * height * width;
  Tensor middle = new_empty(verts, {batch, 2});
  Tensor zbuffer = new_empty(verts, {batch, pixels}, ScalarType::Long);
  Tensor face_id = new_empty(verts, {is_double(verts) ? batch : 0, pixels}, ScalarType::Int);
  dispatch_real_index("render_mesh", t.verts, t.faces, [&](auto real, auto index) {
    using T = decltype(real);
    auto p = render_params<T, decltype(index)>(t, height, width);
    p.middle = middle.mutable_data_ptr<T>();
    p.zbuffer = reinterpret_cast<uint64_t*>(zbuffer.mutable_data_ptr<int64_t>());
    p.face_id = sizeof(T) == 8 ? face_id.mutable_data_ptr<int32_t>() : nullptr;
    launch_render(p, t.turns.is_cuda() ? nullptr : p.turns, scope.stream());
  });
  check_cuda(cudaGetLastError(), "render_mesh");
  return t.image;
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(gcl_fast, CUDA, m) { m.impl("render_mesh", TORCH_BOX(&render_mesh_cuda)); }

}  // namespace gcl
