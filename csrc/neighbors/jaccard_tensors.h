// From tensors to the parameter structs of the Jaccard ops: checks, contiguous inputs, outputs. Shared by the two backends.
#pragma once

#include <tuple>

#include "neighbors/jaccard.h"
#include "neighbors/neighbors_tensors.h"

namespace gcl {

inline Tensor empty_like_device(const Tensor& like, std::initializer_list<int64_t> shape, ScalarType type) {
  return torch::stable::new_empty(like, shape, type);
}

struct ReciprocalTensors {
  Tensor rank, near, num_near, close, num_close;
  ReciprocalParams p{};
};

inline ReciprocalTensors reciprocal_tensors(const Tensor& rank, int64_t half_width) {
  const char* op = "reciprocal_sets";
  check_shape(op, "rank", rank, {kAnySize, kAnySize});
  check_int32(op, "rank", rank);
  const int64_t rows = rank.size(0), width = rank.size(1);
  STD_TORCH_CHECK(rows <= kMaxRows, op, ": fewer than 2^31 rows");
  STD_TORCH_CHECK(half_width >= 0 && half_width <= width, op, ": half_width must be in [0, ", width, "]");
  ReciprocalTensors t{torch::stable::contiguous(rank), empty_like_device(rank, {rows, width}, ScalarType::Int),
                      empty_like_device(rank, {rows}, ScalarType::Int),
                      empty_like_device(rank, {rows, half_width}, ScalarType::Int),
                      empty_like_device(rank, {rows}, ScalarType::Int)};
  t.p = {t.rank.const_data_ptr<int32_t>(),
         rows,
         width,
         half_width,
         t.near.mutable_data_ptr<int32_t>(),
         t.num_near.mutable_data_ptr<int32_t>(),
         t.close.mutable_data_ptr<int32_t>(),
         t.num_close.mutable_data_ptr<int32_t>()};
  return t;
}

// Inputs of both passes over the expanded sets.
struct ExpansionTensors {
  Tensor near, num_near, close, num_close;
  int64_t rows, width, half_width;

  ExpansionTensors(const char* op, const Tensor& near_, const Tensor& num_near_, const Tensor& close_, const Tensor& num_close_) {
    check_shape(op, "near", near_, {kAnySize, kAnySize});
    rows = near_.size(0), width = near_.size(1);
    check_shape(op, "num_near", num_near_, {rows});
    check_shape(op, "close", close_, {rows, kAnySize});
    check_shape(op, "num_close", num_close_, {rows});
    half_width = close_.size(1);
    const std::pair<const char*, const Tensor*> all[] = {
        {"near", &near_}, {"num_near", &num_near_}, {"close", &close_}, {"num_close", &num_close_}};
    for (const auto& [name, tensor] : all) {
      check_int32(op, name, *tensor);
      check_same_device(op, name, *tensor, near_);
    }
    near = torch::stable::contiguous(near_), num_near = torch::stable::contiguous(num_near_);
    close = torch::stable::contiguous(close_), num_close = torch::stable::contiguous(num_close_);
    if (!near_.is_cuda()) {
      check_range<int32_t>(op, "near", near, -1, rows);
      check_range<int32_t>(op, "close", close, -1, rows);
      check_range<int32_t>(op, "num_near", num_near, 0, width + 1);
      check_range<int32_t>(op, "num_close", num_close, 0, half_width + 1);
      check_counts(op, "near", near, num_near);
      check_counts(op, "close", close, num_close);
    }
  }

  // No -1 among the members that are counted.
  static void check_counts(const char* op, const char* name, const Tensor& lists, const Tensor& counts) {
    const int32_t* list = lists.const_data_ptr<int32_t>();
    const int32_t* count = counts.const_data_ptr<int32_t>();
    const int64_t width = lists.size(1);
    bool fits = true;
    for (int64_t i = 0; i < counts.numel(); ++i) {
      for (int64_t t = 0; t < count[i]; ++t) fits = fits && list[i * width + t] >= 0;
    }
    STD_TORCH_CHECK(fits, op, ": ", name, " must hold as many rows as it counts");
  }

  template <class T>
  ExpansionParams<T> params() const {
    ExpansionParams<T> p{};
    p.near = near.const_data_ptr<int32_t>();
    p.num_near = num_near.const_data_ptr<int32_t>();
    p.close = close.const_data_ptr<int32_t>();
    p.num_close = num_close.const_data_ptr<int32_t>();
    p.rows = rows, p.width = width, p.half_width = half_width;
    return p;
  }
};

// Inputs of the pass that fills.
struct WeightTensors {
  Tensor accepted, rank, similarity, features, start;

  WeightTensors(const char* op, const ExpansionTensors& t, const Tensor& accepted_, const Tensor& rank_,
                const Tensor& similarity_, const Tensor& features_, const Tensor& start_, int64_t total) {
    check_shape(op, "accepted", accepted_, {t.rows, t.width});
    check_type(op, "accepted", accepted_, ScalarType::Byte, "uint8");
    check_shape(op, "rank", rank_, {t.rows, t.width});
    check_int32(op, "rank", rank_);
    if (similarity_.numel() != 0) check_shape(op, "similarity", similarity_, {t.rows, t.width});
    if (features_.numel() != 0) check_shape(op, "features", features_, {t.rows, kAnySize});
    check_real(op, "similarity", similarity_);
    STD_TORCH_CHECK(features_.scalar_type() == similarity_.scalar_type(), op, ": features must have the type of similarity");
    check_shape(op, "start", start_, {t.rows + 1});
    check_int64(op, "start", start_);
    STD_TORCH_CHECK(total >= 0, op, ": total must be at least 0");
    const std::pair<const char*, const Tensor*> all[] = {
        {"accepted", &accepted_}, {"rank", &rank_}, {"similarity", &similarity_}, {"features", &features_}, {"start", &start_}};
    for (const auto& [name, tensor] : all) check_same_device(op, name, *tensor, t.near);
    accepted = torch::stable::contiguous(accepted_), rank = torch::stable::contiguous(rank_);
    similarity = torch::stable::contiguous(similarity_), features = torch::stable::contiguous(features_);
    start = torch::stable::contiguous(start_);
    if (!start.is_cuda()) {
      check_starts(op, "start", start, total);
      check_range<int32_t>(op, "rank", rank, 0, t.rows);
    }
  }

  template <class T>
  void fill(ExpansionParams<T>& p, Tensor& columns, Tensor& values, int64_t total) const {
    p.accepted = const_cast<uint8_t*>(accepted.const_data_ptr<uint8_t>());
    p.rank = rank.const_data_ptr<int32_t>();
    p.similarity = pointer_or_null<T>(similarity);
    p.features = pointer_or_null<T>(features);
    p.dim = p.features == nullptr ? 0 : features.size(1);
    p.start = start.const_data_ptr<int64_t>();
    p.total = total;
    p.columns = columns.mutable_data_ptr<int32_t>();
    p.values = values.mutable_data_ptr<T>();
  }
};

// A sparse matrix in compressed rows.
struct RowsTensors {
  Tensor start, columns, values;
  int64_t rows;

  RowsTensors(const char* op, const Tensor& start_, const Tensor& columns_, const Tensor& values_, int64_t num_columns) {
    check_shape(op, "start", start_, {kAnySize});
    check_int64(op, "start", start_);
    STD_TORCH_CHECK(start_.size(0) >= 1, op, ": start must have at least one entry");
    rows = start_.size(0) - 1;
    check_shape(op, "columns", columns_, {kAnySize});
    check_int32(op, "columns", columns_);
    check_shape(op, "values", values_, {columns_.size(0)});
    check_real(op, "values", values_);
    check_same_device(op, "columns", columns_, start_);
    check_same_device(op, "values", values_, start_);
    start = torch::stable::contiguous(start_), columns = torch::stable::contiguous(columns_);
    values = torch::stable::contiguous(values_);
    if (!start.is_cuda()) {
      check_starts(op, "start", start, columns.size(0));
      check_range<int32_t>(op, "columns", columns, 0, num_columns < 0 ? rows : num_columns);
    }
  }
};

template <class T>
MeanParams<T> mean_params(const RowsTensors& t, const Tensor& rank, int64_t group) {
  MeanParams<T> p{};
  p.start = t.start.const_data_ptr<int64_t>();
  p.columns = t.columns.const_data_ptr<int32_t>();
  p.values = t.values.const_data_ptr<T>();
  p.rank = rank.const_data_ptr<int32_t>();
  p.rows = t.rows, p.width = rank.size(1), p.group = group;
  return p;
}

inline void check_groups(const char* op, const RowsTensors& t, const Tensor& rank, int64_t group) {
  check_shape(op, "rank", rank, {t.rows, kAnySize});
  check_int32(op, "rank", rank);
  check_same_device(op, "rank", rank, t.start);
  STD_TORCH_CHECK(group >= 1 && group <= rank.size(1), op, ": group must be in [1, ", rank.size(1), "]");
  if (!rank.is_cuda()) check_range<int32_t>(op, "rank", rank, 0, t.rows);
}

template <class T>
OverlapParams<T> overlap_params(const RowsTensors& t, const RowsTensors& holders) {
  OverlapParams<T> p{};
  p.start = t.start.const_data_ptr<int64_t>();
  p.columns = t.columns.const_data_ptr<int32_t>();
  p.values = t.values.const_data_ptr<T>();
  p.holder_start = holders.start.const_data_ptr<int64_t>();
  p.holder_rows = holders.columns.const_data_ptr<int32_t>();
  p.holder_values = holders.values.const_data_ptr<T>();
  p.rows = t.rows;
  return p;
}

inline void check_holders(const char* op, const RowsTensors& t, const RowsTensors& holders) {
  STD_TORCH_CHECK(holders.rows == t.rows, op, ": holder_start must have as many entries as start");
  check_same_device(op, "holder_start", holders.start, t.start);
  STD_TORCH_CHECK(holders.values.scalar_type() == t.values.scalar_type(), op, ": holder_values must have the type of values");
}

}  // namespace gcl
