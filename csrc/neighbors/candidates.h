// Parameters of the float32 side of nearest neighbours by half precision: rows brought to it, products of the candidates that it
// chose, the best of those. Every array is contiguous. A row's candidates are sorted by score, but for itself in column 0.
#pragma once

#include <cstdint>

namespace gcl {

constexpr int64_t kMostCandidates = 512;  // of a row

template <class B>
struct HalvesParams {
  const float* x;     // [N, D]
  const float* mean;  // [D]
  int64_t rows;
  int64_t dim;
  B* half;        // [N, D]  x - mean, rounded
  float* common;  // [N]  mean . x
  float* length;  // [N]  of x - mean
  float* lost;    // [N]  and of what rounding took off it
};

struct CandidateParams {
  const float* x;        // [N, D]
  const int64_t* rows;   // [n]  whose candidates these are, or null: all N
  const int64_t* index;  // [n, m]
  const float* score;    // [n, m]
  const float* bound;    // [n]  how far a score may be from the product
  int64_t total;         // N
  int64_t dim;           // D
  int64_t count;         // n
  int64_t width;         // m
  int64_t k;             // neighbours wanted, itself included: from 2 to m
  float* product;        // [n, m]  x_row . x_index, -inf where it cannot be among the k largest
};

struct BestParams {
  const int64_t* index;  // [n, m]
  const float* product;  // [n, m]
  const float* score;    // [n, m]
  const float* offset;   // [n]  product and score + offset differ by at most
  const float* bound;    // [n]  this
  int64_t count;         // n
  int64_t width;         // m
  bool whole;            // whether every row there is is a candidate
  int64_t k;             // from 2 to m
  float* value;          // [n, k]  itself, then descending, ties by index
  int64_t* neighbour;    // [n, k]
  bool* unsure;          // [n]  whether others might be nearer
};

}  // namespace gcl
