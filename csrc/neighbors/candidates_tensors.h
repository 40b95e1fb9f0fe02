// From tensors to the parameter structs of the candidates: checks, contiguous inputs. Shared by the two backends.
#pragma once

#include "neighbors/candidates.h"
#include "neighbors/neighbors_tensors.h"

namespace gcl {

struct HalvesTensors {
  Tensor x, mean;

  HalvesTensors(const char* op, const Tensor& x_, const Tensor& mean_) {
    check_shape(op, "x", x_, {kAnySize, kAnySize});
    check_shape(op, "mean", mean_, {x_.size(1)});
    check_type(op, ScalarType::Float, "float32", {{"x", x_}, {"mean", mean_}});
    check_same_device(op, x_, {{"mean", mean_}});
    x = contiguous(x_), mean = contiguous(mean_);
  }

  template <class B>
  HalvesParams<B> params(Tensor& half, Tensor& common, Tensor& length, Tensor& lost) const {
    return {.x = x.const_data_ptr<float>(),
            .mean = mean.const_data_ptr<float>(),
            .rows = x.size(0),
            .dim = x.size(1),
            .half = static_cast<B*>(half.mutable_data_ptr()),
            .common = common.mutable_data_ptr<float>(),
            .length = length.mutable_data_ptr<float>(),
            .lost = lost.mutable_data_ptr<float>()};
  }
};

// Candidates of some rows, and how far their scores may be off.
struct ScoredTensors {
  Tensor index, score, bound;

  ScoredTensors(const char* op, const Tensor& index_, const Tensor& score_, const Tensor& bound_, int64_t k) {
    check_shape(op, "index", index_, {kAnySize, kAnySize});
    check_shape(op, "score", score_, {index_.size(0), index_.size(1)});
    check_shape(op, "bound", bound_, {index_.size(0)});
    STD_TORCH_CHECK(index_.size(1) <= kMostCandidates, op, ": index must have at most ", kMostCandidates, " columns");
    STD_TORCH_CHECK(k >= 2 && k <= index_.size(1), op, ": k must be from 2 to the columns of index");
    check_int64(op, {{"index", index_}});
    check_type(op, ScalarType::Float, "float32", {{"score", score_}, {"bound", bound_}});
    check_same_device(op, index_, {{"score", score_}, {"bound", bound_}});
    index = contiguous(index_), score = contiguous(score_), bound = contiguous(bound_);
  }
};

}  // namespace gcl
