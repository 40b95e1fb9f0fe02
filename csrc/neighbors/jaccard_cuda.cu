// CUDA backend of the Jaccard distance: launches. It never waits for the GPU.
#include "common/cuda_backend.h"
#include "neighbors/jaccard_kernels.cuh"
#include "neighbors/jaccard_ops.h"

namespace gcl {
namespace {

struct JaccardCuda : CudaBackend {
  using CudaBackend::CudaBackend;

  void reciprocal(const ReciprocalParams& p) const { launch_reciprocal(p, stream()); }

  void expansion_count(const ExpansionParams<float>& p) const { launch_expansion_count(p, stream()); }

  template <class T>
  bool expansion_weights(const ExpansionParams<T>& p) const {
    launch_expansion_weights(p, stream());
    return true;
  }

  template <class T>
  void mean_count(const MeanParams<T>& p) const {
    launch_mean_count(p, stream());
  }

  template <class T>
  bool mean(const MeanParams<T>& p) const {
    launch_mean(p, stream());
    return true;
  }

  template <class T>
  void overlap_count(OverlapParams<T> p) const {
    p.tile = kOverlapTile;
    launch_overlap<T, false>(p, stream());
  }

  template <class T>
  bool overlap_distance(OverlapParams<T> p) const {
    p.tile = kOverlapTile;
    launch_overlap<T, true>(p, stream());
    return true;
  }
};

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(gcl_fast, CUDA, m) { register_jaccard<JaccardCuda>(m); }

}  // namespace gcl
