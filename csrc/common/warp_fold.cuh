// What a warp's lanes make of their values together.
#pragma once

#include "common/launch.cuh"

namespace gcl {

// Every lane gets the warp's values folded by a commutative f, in an order that never changes.
template <class V, class F>
__device__ V fold_warp_all(V value, F&& f) {
  for (int offset = kWarpLanes / 2; offset > 0; offset /= 2) value = f(value, __shfl_xor_sync(kAllLanes, value, offset));
  return value;
}

struct Sum {
  template <class V>
  __device__ V operator()(V a, V b) const {
    return a + b;
  }
};

struct Largest {
  template <class V>
  __device__ V operator()(V a, V b) const {
    return maximum(a, b);
  }
};

}  // namespace gcl
