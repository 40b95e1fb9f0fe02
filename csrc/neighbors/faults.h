// Parameters of the looks that an op takes at what it was given, one for all its questions. The answers are bits of one number,
// so that the host reads once.
#pragma once

#include <cstdint>

namespace gcl {

// Of neighbours and the features that they are given with,
constexpr uint32_t kNoRowThere = 1, kNotItselfFirst = 2, kNamedTwice = 4, kNotFinite = 8;
// and of pairs in compressed rows.
constexpr uint32_t kNoDistance = 1, kMalformed = 2;

template <class Index, class T>
struct NeighborFaultParams {
  const Index* index;  // [N, K]
  int64_t rows;        // N
  int64_t width;       // K
  const T* features;   // [numbers]
  int64_t numbers;
  uint32_t* faults;  // [1]  0 before
};

template <class Index, class T>
struct GraphFaultParams {
  const int64_t* indptr;  // [N + 1]
  const Index* indices;   // [nnz]
  const T* values;        // [nnz]
  int64_t rows;           // N
  int64_t entries;        // nnz
  uint32_t* faults;       // [1]  0 before
};

// The first count[r] entries from starts[r] on, row after row.
template <class T>
struct PackParams {
  const int64_t* starts;   // [n + 1]
  const int64_t* indptr;   // [n + 1]
  const int32_t* indices;  // [starts[n]]
  const T* values;
  int64_t rows;          // n
  int32_t* out_indices;  // [indptr[n]]
  T* out_values;
};

}  // namespace gcl
