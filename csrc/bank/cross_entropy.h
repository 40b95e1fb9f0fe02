// Rows of logits -> their cross-entropies, and in place of the logits the gradient to them.
#pragma once

#include <cstdint>

#include "common/isa.h"

namespace gcl {

template <class T>
struct CrossEntropyRow {
  T* logits;  // [C], before the division by `temperature`; afterwards scale * (softmax - one-hot of the target)
  int64_t count;  // C
  int64_t target;
  T temperature, scale;
  bool with_grad;  // else the logits hold nothing of use afterwards
};

// The cross-entropy of one row.
#define GCL_DECLARE_CROSS_ENTROPY(isa)                      \
  namespace isa {                                           \
  float cross_entropy_row(const CrossEntropyRow<float>& p); \
  }
GCL_EACH_ISA(GCL_DECLARE_CROSS_ENTROPY)
#undef GCL_DECLARE_CROSS_ENTROPY

}  // namespace gcl
