// From tensors to KnnParams: checks. Shared by the two backends.
#pragma once

#include "neighbors/knn.h"
#include "neighbors/neighbors_tensors.h"

namespace gcl {

struct KnnTensors {
  Tensor block, rows, penalty, original, copy_start, copies;

  KnnTensors(const Tensor& block_, const Tensor& rows_, const Tensor& penalty_, const Tensor& original_,
             const Tensor& copy_start_, const Tensor& copies_, const Tensor& value, const Tensor& index) {
    const char* op = "knn_update_";
    check_shape(op, "block", block_, {kAnySize, kAnySize});
    STD_TORCH_CHECK(is_float(block_) || is_double(block_) || (is_bfloat16(block_) && !block_.is_cuda()), op,
                    ": block must be float32 or float64, or bfloat16 on the CPU");
    const int64_t height = block_.size(0);
    if (rows_.numel() != 0) check_shape(op, "rows", rows_, {height});
    if (penalty_.numel() != 0) check_shape(op, "penalty", penalty_, {block_.size(1)});
    check_shape(op, "value", value, {height, kAnySize});
    STD_TORCH_CHECK(value.size(1) >= 1, op, ": value must have at least one column");
    check_shape(op, "index", index, {height, value.size(1)});
    check_type(op, is_double(block_) ? ScalarType::Double : ScalarType::Float, is_double(block_) ? "float64" : "float32",
               {{"penalty", penalty_}, {"value", value}});
    if (original_.numel() != 0) check_shape(op, "copy_start", copy_start_, {original_.size(0) + 1});
    const NamedTensors numbers = {
        {"index", index}, {"rows", rows_}, {"original", original_}, {"copy_start", copy_start_}, {"copies", copies_}};
    check_int64(op, numbers);
    check_same_device(op, block_, numbers);
    check_same_device(op, block_, {{"penalty", penalty_}, {"value", value}});
    STD_TORCH_CHECK(value.is_contiguous() && index.is_contiguous(), op, ": value and index must be contiguous");
    const bool transposed = block_.stride(0) == 1 && block_.stride(1) >= height;
    const bool straight = block_.stride(1) == 1 && block_.stride(0) >= block_.size(1);
    block = transposed || straight ? block_ : contiguous(block_);
    rows = contiguous(rows_), penalty = contiguous(penalty_), original = contiguous(original_);
    copy_start = contiguous(copy_start_), copies = contiguous(copies_);
  }

  template <class T, class B = T>
  KnnParams<T, B> params(int64_t first_row, int64_t first_column, Tensor& value, Tensor& index) const {
    constexpr int64_t most = int64_t{1} << 62;  // far from where a row's or a column's number would overflow
    STD_TORCH_CHECK(first_row >= 0 && first_row < most && first_column >= 0 && first_column < most,
                    "knn_update_: first_row and first_column must be from 0 to 2^62 - 1, got ", first_row, " and ", first_column);
    KnnParams<T, B> p{};
    p.block = static_cast<const B*>(block.const_data_ptr());
    p.row_stride = block.stride(0), p.column_stride = block.stride(1);
    p.height = block.size(0), p.width = block.size(1);
    p.rows = pointer_or_null<int64_t>(rows);
    p.first_row = first_row, p.first_column = first_column;
    p.penalty = pointer_or_null<T>(penalty);
    p.original = pointer_or_null<int64_t>(original);
    p.copy_start = pointer_or_null<int64_t>(copy_start);
    p.copies = pointer_or_null<int64_t>(copies);
    p.k = value.size(1);
    p.value = value.mutable_data_ptr<T>();
    p.index = index.mutable_data_ptr<int64_t>();
    return p;
  }
};

}  // namespace gcl
