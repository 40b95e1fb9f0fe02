// CUDA backend of ranking_scores. It never waits for the GPU; rows of `order` that do not exist are passed over.
#include "common/cuda_stream.h"
#include "common/tensor.h"
#include "ranking/ranking_kernels.cuh"
#include "ranking/ranking_tensors.h"

namespace gcl {
namespace {

std::tuple<Tensor, Tensor> ranking_scores_cuda(Tensor distances, Tensor query_pids, Tensor gallery_pids, Tensor query_camids,
                                               Tensor gallery_camids, Tensor order, Tensor begin, Tensor end) {
  const CudaScope scope(distances.get_device_index());
  RankingTensors t = ranking_tensors(distances, query_pids, gallery_pids, query_camids, gallery_camids, order, begin, end);
  is_float(t.distances) ? launch_ranking(ranking_params<float>(t), scope.stream())
                        : launch_ranking(ranking_params<double>(t), scope.stream());
  check_cuda(cudaGetLastError(), "ranking_scores");
  return {t.precision, t.places};
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(gcl_fast, CUDA, m) { m.impl("ranking_scores", TORCH_BOX(&ranking_scores_cuda)); }

}  // namespace gcl
