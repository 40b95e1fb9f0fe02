// CUDA backend of DBSCAN: outputs, current stream, launches. It never waits for the GPU.
#include "common/cuda_stream.h"
#include "neighbors/dbscan_kernels.cuh"
#include "neighbors/dbscan_tensors.h"

namespace gcl {
namespace {

Tensor dbscan_roots_cuda(Tensor indptr, Tensor indices, Tensor values, double eps, int64_t min_samples) {
  const CudaScope scope(indptr.get_device_index());
  const DbscanTensors t("dbscan_roots", indptr, indices, values);
  Tensor root = torch::stable::new_empty(indptr, {t.rows}, ScalarType::Int);
  dispatch_real(t.values, [&](auto real) {
    auto p = t.params<decltype(real)>(eps);
    p.min_samples = min_samples;
    p.root = root.mutable_data_ptr<int32_t>();
    launch_dbscan_roots(p, scope.stream());
  });
  check_cuda(cudaGetLastError(), "dbscan_roots");
  return root;
}

Tensor dbscan_labels_cuda(Tensor indptr, Tensor indices, Tensor values, double eps, Tensor core_label) {
  const CudaScope scope(indptr.get_device_index());
  const DbscanTensors t("dbscan_labels", indptr, indices, values);
  check_shape("dbscan_labels", "core_label", core_label, {t.rows});
  check_int64("dbscan_labels", "core_label", core_label);
  check_same_device("dbscan_labels", "core_label", core_label, indptr);
  Tensor numbers = torch::stable::contiguous(core_label);
  Tensor labels = torch::stable::new_empty(indptr, {t.rows}, ScalarType::Long);
  dispatch_real(t.values, [&](auto real) {
    auto p = t.params<decltype(real)>(eps);
    p.core_label = numbers.const_data_ptr<int64_t>();
    p.labels = labels.mutable_data_ptr<int64_t>();
    launch_dbscan_labels(p, scope.stream());
  });
  check_cuda(cudaGetLastError(), "dbscan_labels");
  return labels;
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(gcl_fast, CUDA, m) {
  m.impl("dbscan_roots", TORCH_BOX(&dbscan_roots_cuda));
  m.impl("dbscan_labels", TORCH_BOX(&dbscan_labels_cuda));
}

}  // namespace gcl
