// CUDA backend of the candidates: launches. It never waits for the GPU.
#include "common/cuda_backend.h"
#include "neighbors/candidates_kernels.cuh"
#include "neighbors/candidates_ops.h"

namespace gcl {
namespace {

struct CandidatesCuda : CudaBackend {
  GCL_LAUNCH_STEP(halve, launch_halve_rows)
  GCL_LAUNCH_STEP(products, launch_candidate_products)
  GCL_LAUNCH_STEP(best, launch_best_candidates)
};

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(gcl_fast, CUDA, m) { register_candidates<CandidatesCuda>(m); }

}  // namespace gcl
