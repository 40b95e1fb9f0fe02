// From tensors to the parameter structs of the Jaccard ops: checks, contiguous inputs, outputs. Shared by the two backends.
#pragma once

#include "neighbors/jaccard.h"
#include "neighbors/neighbors_tensors.h"

namespace gcl {

struct ReciprocalTensors {
  Tensor rank, near, num_near, close, num_close;
  ReciprocalParams p{};
};

inline ReciprocalTensors reciprocal_tensors(const Tensor& rank, int64_t half_width) {
  const char* op = "reciprocal_sets";
  check_shape(op, "rank", rank, {kAnySize, kAnySize});
  check_int32(op, {{"rank", rank}});
  const int64_t rows = rank.size(0), width = rank.size(1);
  STD_TORCH_CHECK(rows <= kMaxRows, op, ": fewer than 2^31 rows");
  STD_TORCH_CHECK(half_width >= 0 && half_width <= width, op, ": half_width must be in [0, ", width, "]");
  ReciprocalTensors t{.rank = contiguous(rank),
                      .near = new_empty(rank, {rows, width}, ScalarType::Int),
                      .num_near = new_empty(rank, {rows}, ScalarType::Int),
                      .close = new_empty(rank, {rows, half_width}, ScalarType::Int),
                      .num_close = new_empty(rank, {rows}, ScalarType::Int)};
  if (!rank.is_cuda()) check_range<int32_t>(op, "rank", t.rank, 0, rows);
  t.p = {.rank = t.rank.const_data_ptr<int32_t>(),
         .rows = rows,
         .width = width,
         .half_width = half_width,
         .near = t.near.mutable_data_ptr<int32_t>(),
         .num_near = t.num_near.mutable_data_ptr<int32_t>(),
         .close = t.close.mutable_data_ptr<int32_t>(),
         .num_close = t.num_close.mutable_data_ptr<int32_t>()};
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
    const NamedTensors sets = {{"near", near_}, {"num_near", num_near_}, {"close", close_}, {"num_close", num_close_}};
    check_int32(op, sets);
    check_same_device(op, near_, sets);
    near = contiguous(near_), num_near = contiguous(num_near_), close = contiguous(close_), num_close = contiguous(num_close_);
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
    check_type(op, ScalarType::Byte, "uint8", {{"accepted", accepted_}});
    check_shape(op, "rank", rank_, {t.rows, t.width});
    check_int32(op, {{"rank", rank_}});
    if (similarity_.numel() != 0) check_shape(op, "similarity", similarity_, {t.rows, t.width});
    if (features_.numel() != 0) check_shape(op, "features", features_, {t.rows, kAnySize});
    check_real(op, "similarity", similarity_);
    check_same_type(op, "similarity", similarity_, {{"features", features_}});
    STD_TORCH_CHECK(total >= 0, op, ": total must be at least 0");
    check_same_device(op, t.near,
                      {{"accepted", accepted_}, {"rank", rank_}, {"similarity", similarity_}, {"features", features_}});
    accepted = contiguous(accepted_), rank = contiguous(rank_);
    similarity = contiguous(similarity_), features = contiguous(features_);
    start = row_starts(op, "start", start_, t.near, t.rows, total);
    if (!start.is_cuda()) check_range<int32_t>(op, "rank", rank, 0, t.rows);
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

// Rows and pairs of them.
struct ProductTensors {
  Tensor left, right, row, column;

  ProductTensors(const char* op, const Tensor& left_, const Tensor& right_, const Tensor& row_, const Tensor& column_) {
    check_shape(op, "left", left_, {kAnySize, kAnySize});
    check_shape(op, "right", right_, {kAnySize, left_.size(1)});
    check_shape(op, "row", row_, {kAnySize});
    check_shape(op, "column", column_, {row_.size(0)});
    check_real(op, "left", left_);
    check_same_type(op, "left", left_, {{"right", right_}});
    check_int64(op, {{"row", row_}, {"column", column_}});
    check_same_device(op, left_, {{"right", right_}, {"row", row_}, {"column", column_}});
    left = contiguous(left_), right = contiguous(right_), row = contiguous(row_), column = contiguous(column_);
    if (!left.is_cuda()) {
      check_range<int64_t>(op, "row", row, 0, left.size(0));
      check_range<int64_t>(op, "column", column, 0, right.size(0));
    }
  }

  template <class T>
  ProductParams<T> params() const {
    ProductParams<T> p{};
    p.left = left.const_data_ptr<T>(), p.right = right.const_data_ptr<T>();
    p.dim = left.size(1);
    p.row = row.const_data_ptr<int64_t>(), p.column = column.const_data_ptr<int64_t>();
    p.pairs = row.size(0);
    return p;
  }
};

// Inputs of both passes over the averaged rows.
struct MeanTensors {
  RowsTensors matrix;
  Tensor rank;
  int64_t group;

  MeanTensors(const char* op, const Tensor& start, const Tensor& columns, const Tensor& values, const Tensor& rank_,
              int64_t group_)
      : matrix(op, start, columns, values), rank(contiguous(rank_)), group(group_) {
    check_shape(op, "rank", rank, {kAnySize, kAnySize});
    check_int32(op, {{"rank", rank}});
    check_same_device(op, matrix.start, {{"rank", rank}});
    STD_TORCH_CHECK(group >= 1 && group <= rank.size(1), op, ": group must be in [1, ", rank.size(1), "]");
    if (!rank.is_cuda()) check_range<int32_t>(op, "rank", rank, 0, matrix.rows);
  }

  template <class T>
  MeanParams<T> params() const {
    MeanParams<T> p{};
    p.start = matrix.start.const_data_ptr<int64_t>();
    p.columns = matrix.columns.const_data_ptr<int32_t>();
    p.values = matrix.values.const_data_ptr<T>();
    p.rank = rank.const_data_ptr<int32_t>();
    p.rows = rank.size(0), p.width = rank.size(1), p.group = group;
    return p;
  }
};

}  // namespace gcl
