// The CPU side of an op whose entry points are templates on the backend (<op>_ops.h); common/cuda_backend.h has the other.
#pragma once

#include "common/tensor.h"

namespace gcl {

struct CpuBackend {
  static constexpr bool kOnGpu = false;
  CpuBackend(const Tensor&) {}
  void finish(const char*) const {}
};

// f(i) for each i below count, in any order, on torch's threads; at least `grain` of them on one.
template <class F>
void in_parallel(int64_t count, int64_t grain, F&& f) {
  torch::stable::parallel_for(0, count, grain, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) f(i);
  });
}

}  // namespace gcl
