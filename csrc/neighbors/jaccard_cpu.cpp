// CPU backend of the Jaccard distance: rows in parallel, each summed in one order, so the result knows nothing of the number
// of threads.
#include <algorithm>
#include <bit>
#include <vector>

#include "neighbors/jaccard_math.h"
#include "neighbors/jaccard_tensors.h"
#include "neighbors/neighbors_isa.h"

namespace gcl {
namespace {

constexpr int64_t kGrain = 64;  // rows

// R*(i) by looking members up instead of merging lists: what a row has met carries the row's number.
template <class T>
class Expander {
 public:
  explicit Expander(const ExpansionParams<T>& p) : p_(p), met_(p.rows, -1) {}
  // The members of R*(i), ascending; valid until the next call. `decide` writes p.accepted first.
  const std::vector<int32_t>& expand(int64_t i, bool decide) {
    const int32_t row = static_cast<int32_t>(i);
    const int32_t* near = p_.near + i * p_.width;
    uint8_t* accepted = p_.accepted + i * p_.width;
    members_.assign(near, near + p_.num_near[i]);
    for (const int32_t j : members_) met_[j] = row;
    for (int64_t t = 0; decide && t < p_.width; ++t) accepted[t] = t < p_.num_near[i] && joins(near[t], row);
    for (int64_t t = 0; t < p_.num_near[i]; ++t) {
      if (!accepted[t]) continue;
      const int32_t* list = p_.close + near[t] * p_.half_width;
      for (int64_t e = 0; e < p_.num_close[near[t]]; ++e) {
        if (met_[list[e]] == row) continue;
        met_[list[e]] = row;
        members_.push_back(list[e]);
      }
    }
    const auto added = members_.begin() + p_.num_near[i];
    std::sort(added, members_.end());
    std::inplace_merge(members_.begin(), added, members_.end());
    return members_;
  }

 private:
  bool joins(int64_t c, int32_t row) const {  // more than two thirds of R(c, k1 / 2) in R(i, k1)
    const int32_t* list = p_.close + c * p_.half_width;
    const int64_t size = p_.num_close[c];
    int64_t common = 0;
    for (int64_t e = 0; e < size; ++e) common += met_[list[e]] == row;
    return 3 * common > 2 * size;
  }

  const ExpansionParams<T>& p_;
  std::vector<int32_t> met_, members_;
};

std::tuple<Tensor, Tensor, Tensor, Tensor> reciprocal_sets_cpu(Tensor rank, int64_t half_width) {
  ReciprocalTensors t = reciprocal_tensors(rank, half_width);
  check_range<int32_t>("reciprocal_sets", "rank", t.rank, 0, t.p.rows);
  torch::stable::parallel_for(0, t.p.rows, kGrain, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) reciprocal_row(t.p, i);
  });
  return {t.near, t.num_near, t.close, t.num_close};
}

std::tuple<Tensor, Tensor> expansion_count_cpu(Tensor near, Tensor num_near, Tensor close, Tensor num_close) {
  const ExpansionTensors t("expansion_count", near, num_near, close, num_close);
  Tensor accepted = empty_like_device(near, {t.rows, t.width}, ScalarType::Byte);
  Tensor count = empty_like_device(near, {t.rows}, ScalarType::Long);
  auto p = t.params<float>();
  p.accepted = accepted.mutable_data_ptr<uint8_t>();
  p.count = count.mutable_data_ptr<int64_t>();
  torch::stable::parallel_for(0, p.rows, kGrain, [&](int64_t begin, int64_t end) {
    Expander<float> sets(p);
    for (int64_t i = begin; i < end; ++i) p.count[i] = static_cast<int64_t>(sets.expand(i, true).size());
  });
  return {accepted, count};
}

std::tuple<Tensor, Tensor> expansion_weights_cpu(Tensor near, Tensor num_near, Tensor close, Tensor num_close, Tensor accepted,
                                                 Tensor rank, Tensor similarity, Tensor features, Tensor start, int64_t total) {
  const char* op = "expansion_weights";
  const ExpansionTensors t(op, near, num_near, close, num_close);
  const WeightTensors w(op, t, accepted, rank, similarity, features, start, total);
  Tensor columns = empty_like_device(near, {total}, ScalarType::Int);
  Tensor values = torch::stable::new_empty(similarity, {total});
  bool fits = true;
  dispatch_real(values, [&](auto real) {
    using T = decltype(real);
    auto p = t.params<T>();
    w.fill(p, columns, values, total);
    std::vector<uint8_t> whole(p.rows, 1);
    torch::stable::parallel_for(0, p.rows, kGrain, [&](int64_t begin, int64_t end) {
      Expander<T> sets(p);
      for (int64_t i = begin; i < end; ++i) {
        int64_t e = p.start[i];
        const int64_t stop = p.start[i + 1];
        const std::vector<int32_t>& members = sets.expand(i, false);
        whole[i] = static_cast<int64_t>(members.size()) == stop - e;
        if (!whole[i]) continue;
        for (const int32_t j : members) {
          T value = 0;
          if (!known_similarity(p, i, j, &value) && p.features != nullptr) {
            value = dot(p.features + i * p.dim, p.features + j * p.dim, p.dim);
          }
          p.columns[e] = j;
          p.values[e++] = value;
        }
        softmax_row(p.values + p.start[i], stop - p.start[i]);
      }
    });
    for (const uint8_t ok : whole) fits = fits && ok != 0;
  });
  STD_TORCH_CHECK(fits, op, ": start does not fit the sets");
  return {columns, values};
}

Tensor mean_rows_count_cpu(Tensor start, Tensor columns, Tensor values, Tensor rank, int64_t group) {
  const RowsTensors t("mean_rows_count", start, columns, values, -1);
  Tensor groups = torch::stable::contiguous(rank);
  check_groups("mean_rows_count", t, groups, group);
  Tensor count = empty_like_device(start, {t.rows}, ScalarType::Long);
  dispatch_real(t.values, [&](auto real) {
    auto p = mean_params<decltype(real)>(t, groups, group);
    p.count = count.mutable_data_ptr<int64_t>();
    torch::stable::parallel_for(0, p.rows, kGrain, [&](int64_t begin, int64_t end) {
      std::vector<int64_t> at(p.group);
      for (int64_t i = begin; i < end; ++i) {
        int64_t count = 0;
        for_each_mean(p, i, at.data(), [&](int32_t, auto) { ++count; });
        p.count[i] = count;
      }
    });
  });
  return count;
}

std::tuple<Tensor, Tensor> mean_rows_cpu(Tensor start, Tensor columns, Tensor values, Tensor rank, int64_t group,
                                         Tensor out_start, int64_t total) {
  const char* op = "mean_rows";
  const RowsTensors t(op, start, columns, values, -1);
  Tensor groups = torch::stable::contiguous(rank), starts = torch::stable::contiguous(out_start);
  check_groups(op, t, groups, group);
  check_shape(op, "out_start", starts, {t.rows + 1});
  check_int64(op, "out_start", starts);
  check_same_device(op, "out_start", starts, start);
  check_starts(op, "out_start", starts, total);
  Tensor out_columns = empty_like_device(start, {total}, ScalarType::Int);
  Tensor out_values = torch::stable::new_empty(values, {total});
  std::vector<uint8_t> whole(t.rows, 1);
  dispatch_real(t.values, [&](auto real) {
    using T = decltype(real);
    auto p = mean_params<T>(t, groups, group);
    p.out_start = starts.const_data_ptr<int64_t>();
    p.out_columns = out_columns.mutable_data_ptr<int32_t>();
    p.out_values = out_values.mutable_data_ptr<T>();
    torch::stable::parallel_for(0, p.rows, kGrain, [&](int64_t begin, int64_t end) {
      std::vector<int64_t> at(p.group);
      for (int64_t i = begin; i < end; ++i) {
        int64_t e = p.out_start[i];
        for_each_mean(p, i, at.data(), [&](int32_t column, T value) {
          if (e < p.out_start[i + 1]) {
            p.out_columns[e] = column;
            p.out_values[e] = value;
          }
          ++e;
        });
        whole[i] = e == p.out_start[i + 1];
      }
    });
  });
  bool fits = true;
  for (const uint8_t ok : whole) fits = fits && ok != 0;
  STD_TORCH_CHECK(fits, op, ": out_start does not fit the rows");
  return {out_columns, out_values};
}

std::tuple<Tensor, Tensor, Tensor> transpose_rows_cpu(Tensor start, Tensor columns, Tensor values) {
  const RowsTensors t("transpose_rows", start, columns, values, -1);
  const int64_t entries = t.columns.size(0);
  Tensor out_start = torch::stable::new_zeros(start, {t.rows + 1});
  Tensor out_rows = empty_like_device(start, {entries}, ScalarType::Int);
  Tensor out_values = torch::stable::new_empty(values, {entries});
  int64_t* begin = out_start.mutable_data_ptr<int64_t>();
  int32_t* rows = out_rows.mutable_data_ptr<int32_t>();
  const int64_t* from = t.start.const_data_ptr<int64_t>();
  const int32_t* column = t.columns.const_data_ptr<int32_t>();
  for (int64_t e = 0; e < entries; ++e) ++begin[column[e] + 1];
  for (int64_t n = 0; n < t.rows; ++n) begin[n + 1] += begin[n];
  dispatch_real(t.values, [&](auto real) {
    using T = decltype(real);
    std::vector<int64_t> next(begin, begin + t.rows);
    const T* value = t.values.const_data_ptr<T>();
    T* out = out_values.mutable_data_ptr<T>();
    for (int64_t i = 0; i < t.rows; ++i) {
      for (int64_t e = from[i]; e < from[i + 1]; ++e) {
        const int64_t to = next[column[e]]++;
        rows[to] = static_cast<int32_t>(i);
        out[to] = value[e];
      }
    }
  });
  return {out_start, out_rows, out_values};
}

// Rows that share a column with a given one: a bit for each, so that they come out in ascending order without sorting.
class RowSet {
 public:
  explicit RowSet(int64_t rows) : words_((rows + 63) / 64, 0) {}
  void add(int32_t row) { words_[row >> 6] |= uint64_t{1} << (row & 63); }
  // Calls emit(row) in ascending order and empties the set.
  template <class Emit>
  void drain(Emit&& emit) {
    for (size_t w = 0; w < words_.size(); ++w) {
      for (uint64_t word = words_[w]; word != 0; word &= word - 1) {
        emit(static_cast<int64_t>(w * 64 + std::countr_zero(word)));
      }
      words_[w] = 0;
    }
  }

 private:
  std::vector<uint64_t> words_;
};

Tensor overlap_count_cpu(Tensor start, Tensor columns, Tensor values, Tensor holder_start, Tensor holder_rows,
                         Tensor holder_values) {
  const char* op = "overlap_count";
  const RowsTensors t(op, start, columns, values, -1), holders(op, holder_start, holder_rows, holder_values, -1);
  check_holders(op, t, holders);
  Tensor count = empty_like_device(start, {t.rows}, ScalarType::Long);
  dispatch_real(t.values, [&](auto real) {
    auto p = overlap_params<decltype(real)>(t, holders);
    p.count = count.mutable_data_ptr<int64_t>();
    torch::stable::parallel_for(0, p.rows, kGrain, [&](int64_t begin, int64_t end) {
      std::vector<int32_t> met(p.rows, -1);  // the last row that shares a column with this one
      for (int64_t i = begin; i < end; ++i) {
        int64_t count = 0;
        for (int64_t e = p.start[i]; e < p.start[i + 1]; ++e) {
          const int64_t n = p.columns[e];
          for (int64_t h = p.holder_start[n]; h < p.holder_start[n + 1]; ++h) {
            int32_t& last = met[p.holder_rows[h]];
            count += last != i;
            last = static_cast<int32_t>(i);
          }
        }
        p.count[i] = count;
      }
    });
  });
  return count;
}

std::tuple<Tensor, Tensor> overlap_distance_cpu(Tensor start, Tensor columns, Tensor values, Tensor holder_start,
                                                Tensor holder_rows, Tensor holder_values, Tensor indptr, int64_t total) {
  const char* op = "overlap_distance";
  const RowsTensors t(op, start, columns, values, -1), holders(op, holder_start, holder_rows, holder_values, -1);
  check_holders(op, t, holders);
  Tensor starts = torch::stable::contiguous(indptr);
  check_shape(op, "indptr", starts, {t.rows + 1});
  check_int64(op, "indptr", starts);
  check_same_device(op, "indptr", starts, start);
  check_starts(op, "indptr", starts, total);
  Tensor indices = empty_like_device(start, {total}, ScalarType::Long);
  Tensor distance = torch::stable::new_empty(values, {total});
  std::vector<uint8_t> whole(t.rows, 1);
  dispatch_real(t.values, [&](auto real) {
    using T = decltype(real);
    auto p = overlap_params<T>(t, holders);
    p.indptr = starts.const_data_ptr<int64_t>();
    p.indices = indices.mutable_data_ptr<int64_t>();
    p.distance = distance.mutable_data_ptr<T>();
    torch::stable::parallel_for(0, p.rows, kGrain, [&](int64_t begin, int64_t end) {
      RowSet met(p.rows);
      struct Shared {
        T sum;
        int32_t row;  // whose sum it is
      };
      std::vector<Shared> shared(p.rows, Shared{T(0), -1});
      std::vector<int32_t> found(p.rows + 1);  // one more: what is no find is written behind the last and forgotten
      for (int64_t i = begin; i < end; ++i) {
        int64_t finds = 0;
        for (int64_t e = p.start[i]; e < p.start[i + 1]; ++e) {
          const int64_t n = p.columns[e];
          const T value = p.values[e];
          for (int64_t h = p.holder_start[n]; h < p.holder_start[n + 1]; ++h) {
            const int32_t j = p.holder_rows[h];
            const bool first = shared[j].row != i;
            shared[j] = {(first ? T(0) : shared[j].sum) + minimum(value, p.holder_values[h]), static_cast<int32_t>(i)};
            found[finds] = j;
            finds += first;
          }
        }
        for (int64_t f = 0; f < finds; ++f) met.add(found[f]);
        int64_t e = p.indptr[i];
        met.drain([&](int64_t j) {
          if (e < p.indptr[i + 1]) {
            p.indices[e] = j;
            p.distance[e] = j == i ? T(0) : jaccard_of(shared[j].sum);
          }
          ++e;
        });
        whole[i] = e == p.indptr[i + 1];
      }
    });
  });
  bool fits = true;
  for (const uint8_t ok : whole) fits = fits && ok != 0;
  STD_TORCH_CHECK(fits, op, ": indptr does not fit the rows");
  return {indices, distance};
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(gcl_fast, CPU, m) {
  m.impl("reciprocal_sets", TORCH_BOX(&reciprocal_sets_cpu));
  m.impl("expansion_count", TORCH_BOX(&expansion_count_cpu));
  m.impl("expansion_weights", TORCH_BOX(&expansion_weights_cpu));
  m.impl("mean_rows_count", TORCH_BOX(&mean_rows_count_cpu));
  m.impl("mean_rows", TORCH_BOX(&mean_rows_cpu));
  m.impl("transpose_rows", TORCH_BOX(&transpose_rows_cpu));
  m.impl("overlap_count", TORCH_BOX(&overlap_count_cpu));
  m.impl("overlap_distance", TORCH_BOX(&overlap_distance_cpu));
}

}  // namespace gcl
