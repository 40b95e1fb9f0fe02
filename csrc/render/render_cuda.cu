// CUDA backend of render_mesh: workspace and launches. It never waits for the GPU; faces that name no vertex are skipped by the
// kernels, because finding them would mean reading them back.
#include "rasterize/choose_cuda.h"
#include "render/render_kernels.cuh"
#include "render/render_ops.h"

namespace gcl {
namespace {

struct RenderCuda : CudaBackend {
  template <class T, class Index>
  void render(RenderParams<T, Index> p, Method method, const RenderTensors& t) const {
    const Gpu gpu = current_gpu("render_mesh");
    const int64_t views = minimum(p.views, kViewsAtOnce), pixels = p.height * p.width;
    p.fused = draws_fused<T>(method, p.batch * views, p.height, p.width, gpu);
    p.shared_bytes = gpu.shared_bytes;
    const int64_t strips = views * cut_into_strips(p.height, p.width, gpu.shared_bytes).count();
    p.bodies_at_once =
        p.fused ? images_to_fuse(p.batch, strips, gpu) : images_at_once(p.batch, views * pixels, views * p.num_faces, gpu);
    const int64_t pictures = p.bodies_at_once * views;
    Tensor middle = new_empty(t.verts, {p.batch, 2});
    Tensor vertices = new_empty(t.verts, {pictures, p.num_verts, 3});
    Tensor grey = new_empty(t.verts, {pictures, p.num_faces});
    Tensor zbuffer = new_empty(t.verts, {p.fused ? 0 : pictures, pixels}, ScalarType::Long);
    Tensor face_id = new_empty(t.verts, {sizeof(T) == 8 ? pictures : 0, pixels}, ScalarType::Int);
    p.middle = middle.mutable_data_ptr<T>();
    p.pixels = vertices.mutable_data_ptr<T>();
    p.grey = grey.mutable_data_ptr<T>();
    p.zbuffer = reinterpret_cast<uint64_t*>(zbuffer.mutable_data_ptr<int64_t>());
    p.face_id = sizeof(T) == 8 ? face_id.mutable_data_ptr<int32_t>() : nullptr;
    launch_render(p, t.turns.is_cuda() ? nullptr : p.turns, stream());
  }
};

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(gcl_fast, CUDA, m) { register_render<RenderCuda>(m); }

}  // namespace gcl
