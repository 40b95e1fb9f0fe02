// CUDA backend of rasterize: workspace and launches. It never waits for the GPU; faces that name no vertex are skipped by the
// kernels, because finding them would mean reading them back.
#include "common/cuda_backend.h"
#include "rasterize/rasterize_kernels.cuh"
#include "rasterize/rasterize_ops.h"

namespace gcl {
namespace {

int64_t shared_bytes_of_a_block() {
  int bytes = 0, device = 0;
  check_cuda(cudaGetDevice(&device), "rasterize");
  check_cuda(cudaDeviceGetAttribute(&bytes, cudaDevAttrMaxSharedMemoryPerBlockOptin, device), "rasterize");
  return bytes;
}

struct RasterizeCuda : CudaBackend {
  template <class T, class Index>
  void forward(RasterizeParams<T, Index> p, const Tensor& like) const {
    p.shared_bytes = shared_bytes_of_a_block();
    const bool fuses = can_fuse<T>(p.height, p.width, p.shared_bytes);
    Tensor zbuffer = new_empty(like, {fuses ? 0 : p.batch, p.height, p.width}, ScalarType::Long);
    p.zbuffer = reinterpret_cast<uint64_t*>(zbuffer.mutable_data_ptr<int64_t>());
    launch_rasterize(p, stream());
  }

  GCL_LAUNCH_STEP(backward, launch_rasterize_backward)
};

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(gcl_fast, CUDA, m) { register_rasterize<RasterizeCuda>(m); }

}  // namespace gcl
