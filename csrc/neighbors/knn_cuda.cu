// CUDA backend of the running selection. A block that lies by columns is first turned, so that warps read whole lines.
#include "common/cuda_stream.h"
#include "neighbors/knn_kernels.cuh"
#include "neighbors/knn_tensors.h"

namespace gcl {
namespace {

void knn_update_cuda(Tensor block, Tensor rows, int64_t first_row, int64_t first_column, Tensor penalty, Tensor original,
                     Tensor copy_start, Tensor copies, Tensor value, Tensor index) {
  const CudaScope scope(block.get_device_index());
  const KnnTensors t(block, rows, penalty, original, copy_start, copies, value, index);
  dispatch_real(t.block, [&](auto real) {
    launch_knn_update(t.params<decltype(real)>(first_row, first_column, value, index), scope.stream());
  });
  check_cuda(cudaGetLastError(), "knn_update_");
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(gcl_fast, CUDA, m) { m.impl("knn_update_", TORCH_BOX(&knn_update_cuda)); }

}  // namespace gcl
