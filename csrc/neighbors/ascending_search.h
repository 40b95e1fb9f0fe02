// Binary search, for host and device.
#pragma once

#include "common/device.h"

namespace gcl {

// The first entry from `low` on that is not below `wanted`; `high` where there is none. The list ascends.
GCL_HD int64_t first_at_least(const int32_t* list, int64_t low, int64_t high, int64_t wanted) {
  while (low < high) {
    const int64_t middle = low + (high - low) / 2;
    if (list[middle] < wanted) low = middle + 1;
    else high = middle;
  }
  return low;
}

}  // namespace gcl
