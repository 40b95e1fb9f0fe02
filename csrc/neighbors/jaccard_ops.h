// The entry points of the Jaccard ops, once for both backends. A backend has
//   reciprocal(params)                                            fills the sets
//   products(params)          softmax(params)       products of given pairs, softmax of given rows
//   expansion_count(params)   mean_count(params)    count what each row will hold
//   expansion_weights(params) mean(params)          fill the rows
// The last two say whether the starts given fit what they found; the GPU is not asked and says yes.
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
                                             Tensor rank, Tensor similarity, Tensor features, Tensor start, int64_t total,
                                             bool finished) {
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
    p.finished = finished;
    p.at = at.mutable_data_ptr<int32_t>();
    STD_TORCH_CHECK(backend.expansion_weights(p), op, ": start does not fit the sets");
  });
  backend.finish(op);
  return {columns, values};
}

template <class Backend>
Tensor row_products(Tensor left, Tensor right, Tensor row, Tensor column) {
  const char* op = "row_products";
  const Backend backend{left};
  const ProductTensors t(op, left, right, row, column);
  Tensor product = new_empty(left, {t.row.size(0)});
  dispatch_real(t.left, [&](auto real) {
    auto p = t.params<decltype(real)>();
    p.product = product.mutable_data_ptr<decltype(real)>();
    backend.products(p);
  });
  backend.finish(op);
  return product;
}

template <class Backend>
void softmax_rows(Tensor start, Tensor values) {
  const char* op = "softmax_rows_";
  const Backend backend{values};
  check_shape(op, "start", start, {kAnySize});
  check_shape(op, "values", values, {kAnySize});
  check_real(op, "values", values);
  STD_TORCH_CHECK(start.size(0) >= 1 && values.is_contiguous(), op, ": start must not be empty, values be contiguous");
  const Tensor starts = row_starts(op, "start", start, values, start.size(0) - 1, values.size(0));
  dispatch_real(values, [&](auto real) {
    using T = decltype(real);
    backend.softmax(SoftmaxParams<T>{
        .start = starts.const_data_ptr<int64_t>(), .rows = starts.size(0) - 1, .values = values.mutable_data_ptr<T>()});
  });
  backend.finish(op);
}

template <class Backend>
Tensor mean_rows_count(Tensor start, Tensor columns, Tensor values, Tensor rank, int64_t group) {
  const char* op = "mean_rows_count";
  const Backend backend{start};
  const MeanTensors t(op, start, columns, values, rank, group);
  Tensor count = new_empty(start, {t.rank.size(0)}, ScalarType::Long);
  Tensor at = merge_workspace<Backend>(start, t.rank.size(0), group, ScalarType::Long);
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
  const Tensor starts = row_starts(op, "out_start", out_start, start, t.rank.size(0), total);
  Tensor out_columns = new_empty(start, {total}, ScalarType::Int);
  Tensor out_values = new_empty(values, {total});
  Tensor at = merge_workspace<Backend>(start, t.rank.size(0), group, ScalarType::Long);
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

template <class Backend, class Library>
void register_jaccard(Library& m) {
  m.impl("reciprocal_sets", TORCH_BOX(&reciprocal_sets<Backend>));
  m.impl("expansion_count", TORCH_BOX(&expansion_count<Backend>));
  m.impl("expansion_weights", TORCH_BOX(&expansion_weights<Backend>));
  m.impl("row_products", TORCH_BOX(&row_products<Backend>));
  m.impl("softmax_rows_", TORCH_BOX(&softmax_rows<Backend>));
  m.impl("mean_rows_count", TORCH_BOX(&mean_rows_count<Backend>));
  m.impl("mean_rows", TORCH_BOX(&mean_rows<Backend>));
}

}  // namespace gcl
