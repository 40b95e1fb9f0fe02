// The entry points of the candidates, once for both backends. A backend has halve(params), products(params) and best(params).
#pragma once

#include <tuple>

#include "neighbors/candidates_tensors.h"

namespace gcl {

template <class Backend>
std::tuple<Tensor, Tensor, Tensor, Tensor> halve_rows(Tensor x, Tensor mean, bool bfloat16) {
  const char* op = "halve_rows";
  const Backend backend{x};
  const HalvesTensors t(op, x, mean);
  Tensor half = new_empty(x, {x.size(0), x.size(1)}, bfloat16 ? ScalarType::BFloat16 : ScalarType::Half);
  Tensor common = new_empty(x, {x.size(0)}), length = new_empty(x, {x.size(0)}), lost = new_empty(x, {x.size(0)});
  if (bfloat16) backend.halve(t.params<BFloat16>(half, common, length, lost));
  else backend.halve(t.params<Half>(half, common, length, lost));
  backend.finish(op);
  return {half, common, length, lost};
}

template <class Backend>
Tensor candidate_products(Tensor x, Tensor rows, Tensor index, Tensor score, Tensor bound, int64_t k) {
  const char* op = "candidate_products";
  const Backend backend{x};
  const ScoredTensors t(op, index, score, bound, k);
  check_shape(op, "x", x, {kAnySize, kAnySize});
  check_type(op, ScalarType::Float, "float32", {{"x", x}});
  check_shape(op, "rows", rows, {kAnySize});
  check_int64(op, {{"rows", rows}});
  check_same_device(op, x, {{"rows", rows}, {"index", index}});
  const bool all = rows.size(0) == 0;
  STD_TORCH_CHECK(t.index.size(0) == (all ? x.size(0) : rows.size(0)), op, ": index must have a row for each of rows");
  const Tensor features = contiguous(x), names = contiguous(rows);
  if (!x.is_cuda()) {
    check_range<int64_t>(op, "rows", names, 0, x.size(0));
    check_range<int64_t>(op, "index", t.index, 0, x.size(0));
  }
  Tensor product = new_empty(score, {t.index.size(0), t.index.size(1)});
  backend.products(CandidateParams{.x = features.const_data_ptr<float>(),
                                   .rows = pointer_or_null<int64_t>(names),
                                   .index = t.index.const_data_ptr<int64_t>(),
                                   .score = t.score.const_data_ptr<float>(),
                                   .bound = t.bound.const_data_ptr<float>(),
                                   .total = x.size(0),
                                   .dim = x.size(1),
                                   .count = t.index.size(0),
                                   .width = t.index.size(1),
                                   .k = k,
                                   .product = product.mutable_data_ptr<float>()});
  backend.finish(op);
  return product;
}

template <class Backend>
std::tuple<Tensor, Tensor, Tensor> best_candidates(Tensor index, Tensor product, Tensor score, Tensor offset, Tensor bound,
                                                   bool whole, int64_t k) {
  const char* op = "best_candidates";
  const Backend backend{index};
  const ScoredTensors t(op, index, score, bound, k);
  const int64_t count = t.index.size(0), width = t.index.size(1);
  check_shape(op, "product", product, {count, width});
  check_shape(op, "offset", offset, {count});
  check_type(op, ScalarType::Float, "float32", {{"product", product}, {"offset", offset}});
  check_same_device(op, index, {{"product", product}, {"offset", offset}});
  const Tensor products = contiguous(product), offsets = contiguous(offset);
  Tensor value = new_empty(score, {count, k}), neighbour = new_empty(index, {count, k});
  Tensor unsure = new_empty(index, {count}, ScalarType::Bool);
  backend.best(BestParams{.index = t.index.const_data_ptr<int64_t>(),
                          .product = products.const_data_ptr<float>(),
                          .score = t.score.const_data_ptr<float>(),
                          .offset = offsets.const_data_ptr<float>(),
                          .bound = t.bound.const_data_ptr<float>(),
                          .count = count,
                          .width = width,
                          .whole = whole,
                          .k = k,
                          .value = value.mutable_data_ptr<float>(),
                          .neighbour = neighbour.mutable_data_ptr<int64_t>(),
                          .unsure = static_cast<bool*>(unsure.mutable_data_ptr())});
  backend.finish(op);
  return {value, neighbour, unsure};
}

template <class Backend, class Library>
void register_candidates(Library& m) {
  m.impl("halve_rows", TORCH_BOX(&halve_rows<Backend>));
  m.impl("candidate_products", TORCH_BOX(&candidate_products<Backend>));
  m.impl("best_candidates", TORCH_BOX(&best_candidates<Backend>));
}

}  // namespace gcl
