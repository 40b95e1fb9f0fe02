// Parameters of the k-reciprocal Jaccard distance. T is float or double; every array is contiguous. Sparse matrices are
// compressed rows: row i holds entries start[i] to start[i + 1], columns ascending. Rows are below 2^31.
//
// Sizes that depend on the data are found by a pass that counts; its caller sums the counts up, allocates, and calls the pass
// that fills.
#pragma once

#include <cstdint>

namespace gcl {

struct ReciprocalParams {
  const int32_t* rank;  // [N, K]  neighbours, nearest first, itself in column 0
  int64_t rows;         // N
  int64_t width;        // K
  int64_t half_width;   // H <= K  columns that the smaller sets look at
  int32_t* near;        // [N, K]  R(i, k1) ascending, then -1
  int32_t* num_near;    // [N]
  int32_t* close;       // [N, H]  R(i, k1 / 2) ascending, then -1
  int32_t* num_close;   // [N]
};

template <class T>
struct ExpansionParams {
  const int32_t* near;       // [N, K]
  const int32_t* num_near;   // [N]
  const int32_t* close;      // [N, H]
  const int32_t* num_close;  // [N]
  int64_t rows;
  int64_t width;
  int64_t half_width;
  uint8_t* accepted;  // [N, K]  1 where R(near[i][t], k1 / 2) joins R*(i)
  int32_t* at;        // [N, K]  workspace: where the union stands in each list
  int64_t* count;     // [N]     |R*(i)|
  // The pass that fills:
  const int32_t* rank;     // [N, K]
  const T* similarity;     // [N, K]  x_i . x_rank, or null
  const T* features;       // [N, D]  x, or null: then a finished pair without a similarity weighs as one with 0
  int64_t dim;             // D
  const int64_t* start;    // [N + 1]
  int64_t total;           // start[N]
  int32_t* columns;        // [total]
  bool finished;  // whether values become softmax(2 x_i . x_j) along the row; else NaN stands where x_i . x_j is not known
  T* values;  // [total]
};

// x_i . y_j of pairs.
template <class T>
struct ProductParams {
  const T* left;  // [n, D]
  const T* right;  // [m, D]
  int64_t dim;  // D
  const int64_t* row;  // [pairs]  of left
  const int64_t* column;  // [pairs]  of right
  int64_t pairs;
  T* product;  // [pairs]
};

template <class T>
struct SoftmaxParams {
  const int64_t* start;  // [N + 1]
  int64_t rows;  // N
  T* values;  // [start[N]]  x becomes softmax(2 x) along the row
};

template <class T>
struct MeanParams {
  const int64_t* start;  // [N + 1]
  const int32_t* columns;  // [nnz]
  const T* values;  // [nnz]
  const int32_t* rank;  // [R, K]
  int64_t rows;  // R  of the result
  int64_t width;
  int64_t group;  // rows averaged: the first `group` of rank
  int64_t* at;  // [R, group]  workspace: where the merge stands in each row
  int64_t* count;  // [R]
  const int64_t* out_start;  // [R + 1]
  int32_t* out_columns;  // [total]
  T* out_values;  // [total]
};

}  // namespace gcl
