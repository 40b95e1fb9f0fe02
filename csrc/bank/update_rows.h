// Rows of a bank moved on the CPU: bank rows in parallel, the features of one row in batch order.
#pragma once

#include <cmath>

#include "bank/bank_tensors.h"
#include "common/cpu_backend.h"

namespace gcl {

// Similarities of hard: of each feature to its row as it was, in double.
template <class T, class S>
void compare(const UpdateParams<T>& p, int64_t b) {
  const T* feature = p.feature + b * p.dim;
  const S* row = static_cast<const S*>(p.bank) + p.index[b] * p.stride;
  double sum = 0, square = 0;
  for (int64_t d = 0; d < p.dim; ++d) {
    sum += static_cast<double>(feature[d]) * widen(row[d]);
    square += static_cast<double>(feature[d]) * feature[d];
  }
  p.similarity[b] = static_cast<T>(p.unit && square > 0 ? sum / std::sqrt(square) : sum);
}

template <class T>
bool is_hardest(const UpdateParams<T>& p, int64_t b) {
  for (int64_t o = 0; o < p.batch; ++o) {
    if (p.index[o] != p.index[b] || o == b) continue;
    if (p.similarity[o] < p.similarity[b] || (p.similarity[o] == p.similarity[b] && o < b)) return false;
  }
  return true;
}

// One step of one row: row = normalise(momentum * row + (1 - momentum) * feature), a zero sum stays zero.
template <class T, class S>
void move_row(const UpdateParams<T>& p, int64_t b, T* sum) {
  S* row = static_cast<S*>(p.bank) + p.index[b] * p.stride;
  const T* feature = p.feature + b * p.dim;
  const T kept = static_cast<T>(p.momentum);
  double length = 0;
  for (int64_t d = 0; p.unit && d < p.dim; ++d) length += static_cast<double>(feature[d]) * feature[d];
  const T fresh = static_cast<T>(1 - p.momentum), divide = length > 0 ? static_cast<T>(std::sqrt(length)) : T(1);
  double square = 0;
  for (int64_t d = 0; d < p.dim; ++d) {
    sum[d] = kept * static_cast<T>(widen(row[d])) + fresh * (feature[d] / divide);
    square += static_cast<double>(sum[d]) * sum[d];
  }
  const T norm = square > 0 ? static_cast<T>(std::sqrt(square)) : T(1);
  for (int64_t d = 0; d < p.dim; ++d) narrow(sum[d] / norm, row + d);
}

// `like` says what workspace is made as.
template <class T, class S>
void move_rows_of(const UpdateParams<T>& p, const Tensor& like) {
  // A row belongs to the first batch position that names it.
  const auto first = [&](int64_t b) {
    for (int64_t o = 0; o < b; ++o) {
      if (p.index[o] == p.index[b]) return false;
    }
    return true;
  };
  const int64_t threads = torch::stable::get_num_threads(), workers = threads < p.batch ? threads : p.batch;
  Tensor scratch = new_empty(like, {workers, p.dim});
  in_parallel(workers, 1, [&](int64_t w) {
    T* sum = scratch.mutable_data_ptr<T>() + w * p.dim;
    for (int64_t b = w; b < p.batch; b += workers) {
      if (!first(b)) continue;
      for (int64_t o = b; p.hard && o < p.batch; ++o) {
        if (p.index[o] == p.index[b]) compare<T, S>(p, o);
      }
      for (int64_t o = b; o < p.batch; ++o) {
        if (p.index[o] == p.index[b] && (!p.hard || is_hardest(p, o))) move_row<T, S>(p, o, sum);
      }
    }
  });
}

template <class T>
void move_rows(const UpdateParams<T>& p, const Tensor& like) {
  with_storage(p.storage, [&](auto* none) {
    using S = std::remove_pointer_t<decltype(none)>;
    if constexpr (sizeof(S) <= sizeof(T)) move_rows_of<T, S>(p, like);  // a float64 bank has float64 features
  });
}

}  // namespace gcl
