// CUDA backend of the Jaccard distance: outputs and workspace, current stream, launches. It never waits for the GPU.
#include "common/cuda_stream.h"
#include "neighbors/jaccard_kernels.cuh"
#include "neighbors/jaccard_tensors.h"

namespace gcl {
namespace {

std::tuple<Tensor, Tensor, Tensor, Tensor> reciprocal_sets_cuda(Tensor rank, int64_t half_width) {
  const CudaScope scope(rank.get_device_index());
  ReciprocalTensors t = reciprocal_tensors(rank, half_width);
  launch_reciprocal(t.p, scope.stream());
  check_cuda(cudaGetLastError(), "reciprocal_sets");
  return {t.near, t.num_near, t.close, t.num_close};
}

std::tuple<Tensor, Tensor> expansion_count_cuda(Tensor near, Tensor num_near, Tensor close, Tensor num_close) {
  const CudaScope scope(near.get_device_index());
  const ExpansionTensors t("expansion_count", near, num_near, close, num_close);
  Tensor accepted = empty_like_device(near, {t.rows, t.width}, ScalarType::Byte);
  Tensor count = empty_like_device(near, {t.rows}, ScalarType::Long);
  Tensor at = empty_like_device(near, {t.rows, t.width}, ScalarType::Int);
  auto p = t.params<float>();
  p.accepted = accepted.mutable_data_ptr<uint8_t>();
  p.at = at.mutable_data_ptr<int32_t>();
  p.count = count.mutable_data_ptr<int64_t>();
  launch_expansion_count(p, scope.stream());
  check_cuda(cudaGetLastError(), "expansion_count");
  return {accepted, count};
}

std::tuple<Tensor, Tensor> expansion_weights_cuda(Tensor near, Tensor num_near, Tensor close, Tensor num_close, Tensor accepted,
                                                  Tensor rank, Tensor similarity, Tensor features, Tensor start, int64_t total) {
  const CudaScope scope(near.get_device_index());
  const ExpansionTensors t("expansion_weights", near, num_near, close, num_close);
  const WeightTensors w("expansion_weights", t, accepted, rank, similarity, features, start, total);
  Tensor columns = empty_like_device(near, {total}, ScalarType::Int);
  Tensor values = torch::stable::new_empty(similarity, {total});
  Tensor at = empty_like_device(near, {t.rows, t.width}, ScalarType::Int);
  dispatch_real(values, [&](auto real) {
    auto p = t.params<decltype(real)>();
    w.fill(p, columns, values, total);
    p.at = at.mutable_data_ptr<int32_t>();
    launch_expansion_weights(p, scope.stream());
  });
  check_cuda(cudaGetLastError(), "expansion_weights");
  return {columns, values};
}

Tensor mean_rows_count_cuda(Tensor start, Tensor columns, Tensor values, Tensor rank, int64_t group) {
  const CudaScope scope(start.get_device_index());
  const RowsTensors t("mean_rows_count", start, columns, values, -1);
  Tensor groups = torch::stable::contiguous(rank);
  check_groups("mean_rows_count", t, groups, group);
  Tensor count = empty_like_device(start, {t.rows}, ScalarType::Long);
  Tensor at = empty_like_device(start, {t.rows, group}, ScalarType::Long);
  dispatch_real(t.values, [&](auto real) {
    auto p = mean_params<decltype(real)>(t, groups, group);
    p.at = at.mutable_data_ptr<int64_t>();
    p.count = count.mutable_data_ptr<int64_t>();
    launch_mean_count(p, scope.stream());
  });
  check_cuda(cudaGetLastError(), "mean_rows_count");
  return count;
}

std::tuple<Tensor, Tensor> mean_rows_cuda(Tensor start, Tensor columns, Tensor values, Tensor rank, int64_t group,
                                          Tensor out_start, int64_t total) {
  const char* op = "mean_rows";
  const CudaScope scope(start.get_device_index());
  const RowsTensors t(op, start, columns, values, -1);
  Tensor groups = torch::stable::contiguous(rank), starts = torch::stable::contiguous(out_start);
  check_groups(op, t, groups, group);
  check_shape(op, "out_start", starts, {t.rows + 1});
  check_int64(op, "out_start", starts);
  check_same_device(op, "out_start", starts, start);
  Tensor out_columns = empty_like_device(start, {total}, ScalarType::Int);
  Tensor out_values = torch::stable::new_empty(values, {total});
  Tensor at = empty_like_device(start, {t.rows, group}, ScalarType::Long);
  dispatch_real(t.values, [&](auto real) {
    using T = decltype(real);
    auto p = mean_params<T>(t, groups, group);
    p.at = at.mutable_data_ptr<int64_t>();
    p.out_start = starts.const_data_ptr<int64_t>();
    p.out_columns = out_columns.mutable_data_ptr<int32_t>();
    p.out_values = out_values.mutable_data_ptr<T>();
    launch_mean(p, scope.stream());
  });
  check_cuda(cudaGetLastError(), op);
  return {out_columns, out_values};
}

Tensor overlap_count_cuda(Tensor start, Tensor columns, Tensor values, Tensor holder_start, Tensor holder_rows,
                          Tensor holder_values) {
  const char* op = "overlap_count";
  const CudaScope scope(start.get_device_index());
  const RowsTensors t(op, start, columns, values, -1), holders(op, holder_start, holder_rows, holder_values, -1);
  check_holders(op, t, holders);
  Tensor count = empty_like_device(start, {t.rows}, ScalarType::Long);
  dispatch_real(t.values, [&](auto real) {
    using T = decltype(real);
    auto p = overlap_params<T>(t, holders);
    p.tile = kOverlapTile;
    p.count = count.mutable_data_ptr<int64_t>();
    launch_overlap<T, false>(p, scope.stream());
  });
  check_cuda(cudaGetLastError(), op);
  return count;
}

std::tuple<Tensor, Tensor> overlap_distance_cuda(Tensor start, Tensor columns, Tensor values, Tensor holder_start,
                                                 Tensor holder_rows, Tensor holder_values, Tensor indptr, int64_t total) {
  const char* op = "overlap_distance";
  const CudaScope scope(start.get_device_index());
  const RowsTensors t(op, start, columns, values, -1), holders(op, holder_start, holder_rows, holder_values, -1);
  check_holders(op, t, holders);
  Tensor starts = torch::stable::contiguous(indptr);
  check_shape(op, "indptr", starts, {t.rows + 1});
  check_int64(op, "indptr", starts);
  check_same_device(op, "indptr", starts, start);
  Tensor indices = empty_like_device(start, {total}, ScalarType::Long);
  Tensor distance = torch::stable::new_empty(values, {total});
  dispatch_real(t.values, [&](auto real) {
    using T = decltype(real);
    auto p = overlap_params<T>(t, holders);
    p.tile = kOverlapTile;
    p.indptr = starts.const_data_ptr<int64_t>();
    p.indices = indices.mutable_data_ptr<int64_t>();
    p.distance = distance.mutable_data_ptr<T>();
    launch_overlap<T, true>(p, scope.stream());
  });
  check_cuda(cudaGetLastError(), op);
  return {indices, distance};
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(gcl_fast, CUDA, m) {
  m.impl("reciprocal_sets", TORCH_BOX(&reciprocal_sets_cuda));
  m.impl("expansion_count", TORCH_BOX(&expansion_count_cuda));
  m.impl("expansion_weights", TORCH_BOX(&expansion_weights_cuda));
  m.impl("mean_rows_count", TORCH_BOX(&mean_rows_count_cuda));
  m.impl("mean_rows", TORCH_BOX(&mean_rows_cuda));
  m.impl("overlap_count", TORCH_BOX(&overlap_count_cuda));
  m.impl("overlap_distance", TORCH_BOX(&overlap_distance_cuda));
}

}  // namespace gcl
