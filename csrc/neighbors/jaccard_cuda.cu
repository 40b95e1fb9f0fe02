// CUDA backend of the Jaccard distance: launches. It never waits for the GPU.
#include "common/cuda_backend.h"
#include "neighbors/jaccard_kernels.cuh"
#include "neighbors/jaccard_ops.h"

namespace gcl {
namespace {

struct JaccardCuda : CudaBackend {
  GCL_LAUNCH_STEP(reciprocal, launch_reciprocal)
  GCL_LAUNCH_STEP(expansion_count, launch_expansion_count)
  GCL_LAUNCH_STEP(products, launch_products)
  GCL_LAUNCH_STEP(softmax, launch_softmax)
  GCL_LAUNCH_STEP(mean_count, launch_mean_count)

  template <class T>
  bool expansion_weights(const ExpansionParams<T>& p) const {
    launch_expansion_weights(p, stream());
    return true;
  }

  template <class T>
  bool mean(const MeanParams<T>& p) const {
    launch_mean(p, stream());
    return true;
  }
};

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(gcl_fast, CUDA, m) { register_jaccard<JaccardCuda>(m); }

}  // namespace gcl
