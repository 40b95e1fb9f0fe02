// CUDA backend of ranking_scores. It never waits for the GPU; rows of `order` that do not exist are passed over.
#include "common/cuda_backend.h"
#include "ranking/ranking_kernels.cuh"
#include "ranking/ranking_ops.h"

namespace gcl {
namespace {

struct RankingCuda : CudaBackend {
  GCL_LAUNCH_STEP(scores, launch_ranking)
};

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(gcl_fast, CUDA, m) { register_ranking<RankingCuda>(m); }

}  // namespace gcl
