// Parameters of MMCL's walk along a row's neighbours. T is float or double; every array is contiguous.
#pragma once

#include <cstdint>

namespace gcl {

template <class T>
struct WalkParams {
  const T* bank;         // [N, D]
  const int64_t* index;  // [B]  the rows that ask
  const int64_t* order;  // [B, N]  all rows from the nearest on; the row that asks is the first
  const int64_t* near;   // [B]  how many of them may count, itself counted
  const int64_t* reach;  // [B]  how many of a neighbour's own nearest, itself counted, must hold the row that asks
  int64_t batch;         // B
  int64_t total;         // N
  int64_t dim;           // D
  int64_t* steps;        // [B]  neighbours before the first that does not hold it, from 0 to near - 1
  bool* walking;         // [B]  CUDA: whether the walk goes on
  int32_t* before;       // [B, N]  CUDA: of each neighbour, how many rows it has nearer than the row that asks
};

}  // namespace gcl
