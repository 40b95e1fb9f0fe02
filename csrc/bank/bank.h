// Parameters of the bank ops. T is float or double, the type that everything is computed and returned in; the bank keeps its
// own storage. Every array but the bank is contiguous.
#pragma once

#include <cstdint>

#include "bank/bank_sweep.h"

namespace gcl {

// How a GPU sweeps a float32 bank: by fused multiply-adds, by tensor cores with the queries in shared memory, or, where that does
// not fit, with the queries read through the cache.
enum class Sweep : int32_t { fused, tensor_cores, tensor_cores_cached };

// Contrast of each query against one or more positive rows and the negatives of the first of them.
template <class T>
struct NceParams {
  const T* query;           // [B, D]
  const T* positive_query;  // [B, P, D]  or null: replaces the query in the positive terms
  const void* bank;         // [N, D]     of `storage`, rows `stride` elements apart
  Storage storage;
  int64_t stride;
  const int64_t* labels;    // [N]        below 0: no class
  const int64_t* positive;  // [B, P]     rows of the bank
  const int64_t* first;     // [B]        the first of them, `first_stride` apart
  int64_t first_stride;
  const int64_t* seed;      // [1]        where the tensors are: never read by the host on a GPU; or null: seed_value
  int64_t seed_value;
  int64_t batch, positives, num_rows, dim;
  int64_t count;            // K negatives a query, below 0: all
  T temperature;
  bool with_grad;           // false: mean, weight and rows are not written
  bool folded;              // one positive of the query itself: its row is subtracted from mean and not kept

  uint32_t* last;           // [B]        workspace: largest sampling key in the sample
  int64_t splits;           // blocks of the GPU that share a query's selection
  uint32_t* counts;         // [B, 3, 4096]  workspace of the GPU, where splits is above 1: counts of the keys' digits
  Sweep sweep;              // of the GPU
  int64_t chunks;           // C          parts of the bank, each with a sum of its own
  T* part_max;              // [C, B]     workspace: largest logit of a negative, -inf without any
  double* part_sum;         // [C, B]     workspace: sum of exp(logit - max)
  double* part_logit;       // [C, B]     workspace of the GPU: sum of exp(logit - max) * logit
  T* part_mean;             // [C, B, Dp]  workspace: sum of exp(logit - max) * bank row; Dp = padded_dim(D)

  T* loss;                  // [B, P]
  T* weight;                // [B, P]     derivative of the loss by lse = -(derivative by the positive logit)
  T* mean;                  // [B, D]     the average negative under its softmax, 0 without any; less the positive where folded
  T* rows;                  // [B, P, D]  the positive rows; [B, 0, D] where folded
};

// What gcl_memory_loss adds before and after: unit features, random positives, gradients through the normalisation.
template <class T>
struct GclParams {
  const T* photo;       // [B, D]  f
  const T* view;        // [B, D]  f_nv
  const int64_t* index;  // [B]
  T* unit_photo;        // [B, D]  workspace
  T* unit_view;         // [B, D]  workspace: the query
  T* photo_length;      // [B]     workspace: length, 1 for a zero row
  T* view_length;       // [B]
  int64_t* positive;    // [B, 3]  workspace: n(i), P, P'
  double* dot;          // [B, 3]  workspace: products of the positive rows, NaN for a row that is not there
  T* terms;             // [3]        means over the batch
  T* view_grad;         // [B, 3, D]  derivative of each term by f_nv; before, the positive rows
  T* photo_grad;        // [B, D]     derivative of the third term by f
};

// From the gradient of the terms to those of the features.
template <class T>
struct GclBackwardParams {
  const T* grad;        // [3]
  const T* view_grad;   // [B, 3, D]
  const T* photo_grad;  // [B, D]
  int64_t batch, dim;
  T* photo;             // [B, D]
  T* view;              // [B, D]
};

// Rows of a bank moved towards features, those that share a row in batch order.
template <class T>
struct UpdateParams {
  void* bank;            // [N, D]  of `storage`, rows `stride` elements apart
  Storage storage;
  int64_t stride;
  const int64_t* index;  // [B]
  const T* feature;      // [B, D]
  int64_t batch, num_rows, dim;
  double momentum;       // share of the old row
  bool unit;             // features are normalised first
  bool hard;             // only the feature least similar to its row as it was, the first of equals
  T* similarity;         // [B]     workspace of hard
};

}  // namespace gcl
