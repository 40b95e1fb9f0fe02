// The entry points of the Jaccard ops, once for both backends. A backend has
//   reciprocal(params)                                            fills the sets
//   expansion_count(params)   mean_count(params)   overlap_count(params)    count what each row will hold
//   expansion_weights(params) mean(params)         overlap_distance(params) fill the rows
// The last three say whether the starts given fit what they found; the GPU is not asked and says yes.
#pragma once

#include <tuple>

#include "neighbors/jaccard_tensors.h"

namespace gcl {

template <class Backend>
std::tuple<Tensor, Tensor, Tensor, Tensor> reciprocal_sets(Tensor rank, int64_t half_width) {
  const Backend backend{rank};
  ReciprocalTensors t = reciprocal_tensors(rank, half_width);
  backend.reciprocal(t.p);
  backend.finish("reciprocal_sets");
  return {t.near, t.num_near, t.close, t.num_close};
}

// The GPU merges lists and remembers where it is in each.
template <class Backend>
Tensor merge_workspace(const Tensor& like, int64_t rows, int64_t lists, ScalarType type) {
  return new_empty(like, {Backend::kOnGpu ? rows : 0, lists}, type);
}

template <class Backend>
std::tuple<Tensor, Tensor> expansion_count(Tensor near, Tensor num_near, Tensor close, Tensor num_close) {
  const char* op = "expansion_count";
  const Backend backend{near};
  const ExpansionTensors t(op, near, num_near, close, num_close);
  Tensor accepted = new_empty(near, {t.rows, t.width}, ScalarType::Byte);
  Tensor count = new_empty(near, {t.rows}, ScalarType::Long);
  Tensor at = merge_workspace<Backend>(near, t.rows, t.width, ScalarType::Int);
  auto p = t.params<float>();
  p.accepted = accepted.mutable_data_ptr<uint8_t>();
  p.at = at.mutable_data_ptr<int32_t>();
  p.count = count.mutable_data_ptr<int64_t>();
  backend.expansion_count(p);
  backend.finish(op);
  return {accepted, count};
}

template <class Backend>
std::tuple<Tensor, Tensor> expansion_weights(Tensor near, Tensor num_near, Tensor close, Tensor num_close, Tensor accepted,
                                             Tensor rank, Tensor similarity, Tensor features, Tensor start, int64_t total) {
  const char* op = "expansion_weights";
  const Backend backend{near};
  const ExpansionTensors t(op, near, num_near, close, num_close);
  const WeightTensors w(op, t, accepted, rank, similarity, features, start, total);
  Tensor columns = new_empty(near, {total}, ScalarType::Int);
  Tensor values = new_empty(similarity, {total});
  Tensor at = merge_workspace<Backend>(near, t.rows, t.width, ScalarType::Int);
  dispatch_real(values, [&](auto real) {
    auto p = t.params<decltype(real)>();
    w.fill(p, columns, values, total);
    p.at = at.mutable_data_ptr<int32_t>();
    STD_TORCH_CHECK(backend.expansion_weights(p), op, ": start does not fit the sets");
  });
  backend.finish(op);
  return {columns, values};
}

template <class Backend>
Tensor mean_rows_count(Tensor start, Tensor columns, Tensor values, Tensor rank, int64_t group) {
  const char* op = "mean_rows_count";
  const Backend backend{start};
  const MeanTensors t(op, start, columns, values, rank, group);
  Tensor count = new_empty(start, {t.matrix.rows}, ScalarType::Long);
  Tensor at = merge_workspace<Backend>(start, t.matrix.rows, group, ScalarType::Long);
  dispatch_real(t.matrix.values, [&](auto real) {
    auto p = t.params<decltype(real)>();
    p.at = at.mutable_data_ptr<int64_t>();
    p.count = count.mutable_data_ptr<int64_t>();
    backend.mean_count(p);
  });
  backend.finish(op);
  return count;
}

template <class Backend>
std::tuple<Tensor, Tensor> mean_rows(Tensor start, Tensor columns, Tensor values, Tensor rank, int64_t group, Tensor out_start,
                                     int64_t total) {
  const char* op = "mean_rows";
  const Backend backend{start};
  const MeanTensors t(op, start, columns, values, rank, group);
  const Tensor starts = row_starts(op, "out_start", out_start, start, t.matrix.rows, total);
  Tensor out_columns = new_empty(start, {total}, ScalarType::Int);
  Tensor out_values = new_empty(values, {total});
  Tensor at = merge_workspace<Backend>(start, t.matrix.rows, group, ScalarType::Long);
  dispatch_real(t.matrix.values, [&](auto real) {
    using T = decltype(real);
    auto p = t.params<T>();
    p.at = at.mutable_data_ptr<int64_t>();
    p.out_start = starts.const_data_ptr<int64_t>();
    p.out_columns = out_columns.mutable_data_ptr<int32_t>();
    p.out_values = out_values.mutable_data_ptr<T>();
    STD_TORCH_CHECK(backend.mean(p), op, ": out_start does not fit the rows");
  });
  backend.finish(op);
  return {out_columns, out_values};
}

template <class Backend>
Tensor overlap_count(Tensor start, Tensor columns, Tensor values, Tensor holder_start, Tensor holder_rows, Tensor holder_values) {
  const char* op = "overlap_count";
  const Backend backend{start};
  const OverlapTensors t(op, start, columns, values, holder_start, holder_rows, holder_values);
  Tensor count = new_empty(start, {t.matrix.rows}, ScalarType::Long);
  dispatch_real(t.matrix.values, [&](auto real) {
    auto p = t.params<decltype(real)>();
    p.count = count.mutable_data_ptr<int64_t>();
    backend.overlap_count(p);
  });
  backend.finish(op);
  return count;
}

template <class Backend>
std::tuple<Tensor, Tensor> overlap_distance(Tensor start, Tensor columns, Tensor values, Tensor holder_start, Tensor holder_rows,
                                            Tensor holder_values, Tensor indptr, int64_t total) {
  const char* op = "overlap_distance";
  const Backend backend{start};
  const OverlapTensors t(op, start, columns, values, holder_start, holder_rows, holder_values);
  const Tensor starts = row_starts(op, "indptr", indptr, start, t.matrix.rows, total);
  Tensor indices = new_empty(start, {total}, ScalarType::Long);
  Tensor distance = new_empty(values, {total});
  dispatch_real(t.matrix.values, [&](auto real) {
    using T = decltype(real);
    auto p = t.params<T>();
    p.indptr = starts.const_data_ptr<int64_t>();
    p.indices = indices.mutable_data_ptr<int64_t>();
    p.distance = distance.mutable_data_ptr<T>();
    STD_TORCH_CHECK(backend.overlap_distance(p), op, ": indptr does not fit the rows");
  });
  backend.finish(op);
  return {indices, distance};
}

template <class Backend, class Library>
void register_jaccard(Library& m) {
  m.impl("reciprocal_sets", TORCH_BOX(&reciprocal_sets<Backend>));
  m.impl("expansion_count", TORCH_BOX(&expansion_count<Backend>));
  m.impl("expansion_weights", TORCH_BOX(&expansion_weights<Backend>));
  m.impl("mean_rows_count", TORCH_BOX(&mean_rows_count<Backend>));
  m.impl("mean_rows", TORCH_BOX(&mean_rows<Backend>));
  m.impl("overlap_count", TORCH_BOX(&overlap_count<Backend>));
  m.impl("overlap_distance", TORCH_BOX(&overlap_distance<Backend>));
}

}  // namespace gcl
