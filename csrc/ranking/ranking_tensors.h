// From tensors to the parameter struct: checks, contiguous inputs, outputs. Shared by the two backends.
#pragma once

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
  check_real(op, "distances", distances);
  const int64_t num_query = distances.size(0), num_gallery = distances.size(1);
  STD_TORCH_CHECK(num_gallery < (int64_t{1} << 31), op, ": fewer than 2^31 gallery images");
  check_shape(op, "query_pids", query_pids, {num_query});
  check_shape(op, "gallery_pids", gallery_pids, {num_gallery});
  check_shape(op, "query_camids", query_camids, {num_query});
  check_shape(op, "gallery_camids", gallery_camids, {num_gallery});
  check_shape(op, "order", order, {num_gallery});
  check_shape(op, "begin", begin, {num_query});
  check_shape(op, "end", end, {num_query});
  const NamedTensors numbers = {{"query_pids", query_pids},
                                {"gallery_pids", gallery_pids},
                                {"query_camids", query_camids},
                                {"gallery_camids", gallery_camids},
                                {"order", order},
                                {"begin", begin},
                                {"end", end}};
  check_same_device(op, distances, numbers);
  check_int64(op, numbers);
  return {.distances = contiguous(distances),
          .query_pids = contiguous(query_pids),
          .gallery_pids = contiguous(gallery_pids),
          .query_camids = contiguous(query_camids),
          .gallery_camids = contiguous(gallery_camids),
          .order = contiguous(order),
          .begin = contiguous(begin),
          .end = contiguous(end),
          .precision = new_empty(distances, {num_query}, ScalarType::Double),
          .places = new_empty(distances, {num_query, 3}, ScalarType::Long)};
}

template <class T>
RankingParams<T> ranking_params(RankingTensors& t) {
  return {.distances = t.distances.template const_data_ptr<T>(),
          .query_pids = t.query_pids.const_data_ptr<int64_t>(),
          .gallery_pids = t.gallery_pids.const_data_ptr<int64_t>(),
          .query_camids = t.query_camids.const_data_ptr<int64_t>(),
          .gallery_camids = t.gallery_camids.const_data_ptr<int64_t>(),
          .order = t.order.const_data_ptr<int64_t>(),
          .begin = t.begin.const_data_ptr<int64_t>(),
          .end = t.end.const_data_ptr<int64_t>(),
          .num_query = t.distances.size(0),
          .num_gallery = t.distances.size(1),
          .precision = t.precision.mutable_data_ptr<double>(),
          .places = t.places.mutable_data_ptr<int64_t>()};
}

}  // namespace gcl
