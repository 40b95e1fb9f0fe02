// CUDA backend of render_mesh: workspace and launches. It never waits for the GPU; faces that name no vertex are skipped by the
// kernels, because finding them would mean reading them back.
#include "common/cuda_backend.h"
#include "render/render_kernels.cuh"
#include "render/render_ops.h"

namespace gcl {
namespace {

struct RenderCuda : CudaBackend {
  template <class T, class Index>
  void render(RenderParams<T, Index> p, const RenderTensors& t) const {
    const int64_t pixels = p.views * p.height * p.width;
    Tensor middle = new_empty(t.verts, {p.batch, 2});
    Tensor zbuffer = new_empty(t.verts, {p.batch, pixels}, ScalarType::Long);
    Tensor face_id = new_empty(t.verts, {sizeof(T) == 8 ? p.batch : 0, pixels}, ScalarType::Int);
    p.middle = middle.mutable_data_ptr<T>();
    p.zbuffer = reinterpret_cast<uint64_t*>(zbuffer.mutable_data_ptr<int64_t>());
    p.face_id = sizeof(T) == 8 ? face_id.mutable_data_ptr<int32_t>() : nullptr;
    launch_render(p, t.turns.is_cuda() ? nullptr : p.turns, stream());
  }
};

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(gcl_fast, CUDA, m) { register_render<RenderCuda>(m); }

}  // namespace gcl
