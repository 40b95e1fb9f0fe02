// Products of long rows by a warp. Rows come from far away: what counts is how many bytes are under way.
#pragma once

#include "common/warp_fold.cuh"

namespace gcl {

// Whether rows of `dim` numbers, one after the other from those addresses on, can be read four at a time.
template <class... T>
bool lie_by_fours(int64_t dim, const T*... from) {
  return dim % 4 == 0 && ((reinterpret_cast<uintptr_t>(from) % alignof(Four<T>) == 0) && ...);
}

// a . b[n] by all lanes of a warp, the sums in every lane; by_fours: all rows lie so. A pair's sum has the same order whatever
// others stand beside it.
template <int kRows, class T>
__device__ __forceinline__ void warp_products(const T* a, const T* const (&b)[kRows], int64_t dim, int lane, bool by_fours,
                                              T (&sums)[kRows]) {
  for (int n = 0; n < kRows; ++n) sums[n] = 0;
  if (by_fours) {
    constexpr int kAtOnce = 8 / kRows;  // of each row
    int64_t d = 4 * lane;
    for (; d + (kAtOnce - 1) * 4 * kWarpLanes < dim; d += kAtOnce * 4 * kWarpLanes) {
      Four<T> theirs[kRows][kAtOnce];
      for (int n = 0; n < kRows; ++n) {
        for (int u = 0; u < kAtOnce; ++u) theirs[n][u] = *reinterpret_cast<const Four<T>*>(b[n] + d + u * 4 * kWarpLanes);
      }
      for (int u = 0; u < kAtOnce; ++u) {
        const Four<T> mine = *reinterpret_cast<const Four<T>*>(a + d + u * 4 * kWarpLanes);
        for (int n = 0; n < kRows; ++n) {
          for (int v = 0; v < 4; ++v) sums[n] += mine.v[v] * theirs[n][u].v[v];
        }
      }
    }
    for (; d < dim; d += 4 * kWarpLanes) {
      const Four<T> mine = *reinterpret_cast<const Four<T>*>(a + d);
      for (int n = 0; n < kRows; ++n) {
        const Four<T> theirs = *reinterpret_cast<const Four<T>*>(b[n] + d);
        for (int v = 0; v < 4; ++v) sums[n] += mine.v[v] * theirs.v[v];
      }
    }
  } else {
    for (int64_t d = lane; d < dim; d += kWarpLanes) {
      for (int n = 0; n < kRows; ++n) sums[n] += a[d] * b[n][d];
    }
  }
  for (int n = 0; n < kRows; ++n) sums[n] = fold_warp_all(sums[n], Sum{});
}

}  // namespace gcl
