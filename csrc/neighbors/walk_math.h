// Products of the walk and what they say, for host and device.
#pragma once

#include "neighbors/knn_math.h"
#include "neighbors/walk.h"

namespace gcl {

constexpr int kWalkPart = 32;  // numbers of a row whose products are added by themselves

// Whether a neighbour has row q among its nearest: `before` others are nearer, and the neighbour itself.
GCL_HD bool is_held(int64_t before, int64_t reach) { return before + 1 < reach; }

// Whether `row` names one of those that there are.
template <class T>
GCL_HD bool names_one(const WalkParams<T>& p, int64_t row) {
  return row >= 0 && row < p.total;
}

}  // namespace gcl
