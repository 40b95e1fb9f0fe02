// CUDA backend of rasterize: workspace and launches. It never waits for the GPU; faces that name no vertex are skipped by the
// kernels, because finding them would mean reading them back.
#include "rasterize/choose_cuda.h"
#include "rasterize/rasterize_ops.h"

namespace gcl {
namespace {

struct RasterizeCuda : CudaBackend {
  template <class T, class Index>
  void forward(RasterizeParams<T, Index> p, Method method, const Tensor& like) const {
    const Gpu gpu = current_gpu("rasterize");
    const bool fused = draws_fused<T>(method, p.batch, p.height, p.width, gpu);
    p.shared_bytes = gpu.shared_bytes;
    p.at_once = fused ? 0 : images_at_once(p.batch, p.height * p.width, p.num_faces, gpu);
    Tensor zbuffer = new_empty(like, {p.at_once, p.height, p.width}, ScalarType::Long);
    p.zbuffer = reinterpret_cast<uint64_t*>(zbuffer.mutable_data_ptr<int64_t>());
    launch_rasterize(p, stream());
  }

  GCL_LAUNCH_STEP(backward, launch_rasterize_backward)
};

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(gcl_fast, CUDA, m) { register_rasterize<RasterizeCuda>(m); }

}  // namespace gcl
