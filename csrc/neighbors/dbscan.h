// Parameters of DBSCAN on a sparse graph. T is float or double; every array is contiguous.
#pragma once

#include <cstdint>

namespace gcl {

template <class T>
struct DbscanParams {
  const int64_t* indptr;   // [N + 1]
  const int32_t* indices;  // [nnz]
  const T* values;         // [nnz]  distances, symmetric
  int64_t rows;
  T eps;  // below 1: what is not stored is not near
  int64_t min_samples;
  int32_t* root;                // [N]  the first core point of a core point's cluster; -1 for the others
  const int64_t* core_label;    // [N]  number of a core point's cluster; -1 for the others
  int64_t* labels;              // [N]
};

}  // namespace gcl
