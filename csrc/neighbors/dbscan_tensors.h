// From tensors to DbscanParams: checks. Shared by the two backends.
#pragma once

#include "neighbors/dbscan.h"
#include "neighbors/neighbors_tensors.h"

namespace gcl {

struct DbscanTensors {
  Tensor indptr, indices, values;
  int64_t rows;

  DbscanTensors(const char* op, const Tensor& indptr_, const Tensor& indices_, const Tensor& values_) {
    check_shape(op, "indptr", indptr_, {kAnySize});
    check_shape(op, "indices", indices_, {kAnySize});
    check_shape(op, "values", values_, {indices_.size(0)});
    check_int64(op, {{"indptr", indptr_}});
    check_int32(op, {{"indices", indices_}});
    check_real(op, "values", values_);
    check_same_device(op, indptr_, {{"indices", indices_}, {"values", values_}});
    rows = indptr_.size(0) - 1;
    STD_TORCH_CHECK(rows >= 0 && rows <= kMaxRows, op, ": indptr must have 1 to 2^31 - 1 entries");
    indptr = contiguous(indptr_), indices = contiguous(indices_), values = contiguous(values_);
    if (!indptr.is_cuda()) {
      check_starts(op, "indptr", indptr, indices.size(0));
      check_range<int32_t>(op, "indices", indices, 0, rows);
    }
  }

  template <class T>
  DbscanParams<T> params(double eps) const {
    DbscanParams<T> p{};
    p.indptr = indptr.const_data_ptr<int64_t>();
    p.indices = indices.const_data_ptr<int32_t>();
    p.values = values.const_data_ptr<T>();
    p.rows = rows;
    p.eps = static_cast<T>(eps);
    return p;
  }
};

}  // namespace gcl
