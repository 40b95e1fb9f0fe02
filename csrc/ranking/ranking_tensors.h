// From tensors to the parameter struct: checks, contiguous inputs, outputs. Shared by the two backends.
#pragma once

#include <tuple>

#include "common/tensor.h"
#include "ranking/ranking.h"

namespace gcl {

struct RankingTensors {
  Tensor distances, query_pids, gallery_pids, query_camids, gallery_camids, order, begin, end;
  Tensor precision, places;
};

inline RankingTensors ranking_tensors(const Tensor& distances, const Tensor& query_pids, const Tensor& gallery_pids,
                                      const Tensor& query_camids, const Tensor& gallery_camids, const Tensor& order,
                                      const Tensor& begin, const Tensor& end) {
  const char* op = "ranking_scores";
  check_shape(op, "distances", distances, {kAnySize, kAnySize});
  STD_TORCH_CHECK(is_float(distances) || is_double(distances), op, ": distances must be float32 or float64");
  const int64_t num_query = distances.size(0), num_gallery = distances.size(1);
  STD_TORCH_CHECK(num_gallery < (int64_t{1} << 31), op, ": fewer than 2^31 gallery images");
  const struct {
    const char* name;
    const Tensor* tensor;
    int64_t size;
  } ids[] = {{"query_pids", &query_pids, num_query},
             {"gallery_pids", &gallery_pids, num_gallery},
             {"query_camids", &query_camids, num_query},
             {"gallery_camids", &gallery_camids, num_gallery},
             {"order", &order, num_gallery},
             {"begin", &begin, num_query},
             {"end", &end, num_query}};
  for (const auto& [name, tensor, size] : ids) {
    check_shape(op, name, *tensor, {size});
    check_same_device(op, name, *tensor, distances);
    STD_TORCH_CHECK(is_int64(*tensor), op, ": ", name, " must be int64");
  }
  using torch::stable::contiguous;
  return {contiguous(distances),
          contiguous(query_pids),
          contiguous(gallery_pids),
          contiguous(query_camids),
          contiguous(gallery_camids),
          contiguous(order),
          contiguous(begin),
          contiguous(end),
          torch::stable::new_empty(distances, {num_query}, ScalarType::Double),
          torch::stable::new_empty(distances, {num_query, 3}, ScalarType::Long)};
}

template <class T>
RankingParams<T> ranking_params(RankingTensors& t) {
  const auto ids = [](const Tensor& tensor) { return tensor.const_data_ptr<int64_t>(); };
  return {t.distances.template const_data_ptr<T>(),
          ids(t.query_pids),
          ids(t.gallery_pids),
          ids(t.query_camids),
          ids(t.gallery_camids),
          ids(t.order),
          ids(t.begin),
          ids(t.end),
          t.distances.size(0),
          t.distances.size(1),
          t.precision.template mutable_data_ptr<double>(),
          t.places.template mutable_data_ptr<int64_t>()};
}

}  // namespace gcl
