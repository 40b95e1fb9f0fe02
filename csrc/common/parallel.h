// A loop over torch's threads, of the CPU backends.
#pragma once

#include <torch/csrc/stable/ops.h>

#include <cstdint>

namespace gcl {

// f(i) for each i below count, in any order.
template <class F>
void in_parallel(int64_t count, F&& f) {
  torch::stable::parallel_for(0, count, 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) f(i);
  });
}

}  // namespace gcl
