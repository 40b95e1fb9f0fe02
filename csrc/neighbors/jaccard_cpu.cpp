// CPU backend of the Jaccard distance: rows in parallel, each summed in one order, so the result knows nothing of the number
// of threads.
#include <algorithm>
#include <vector>

#include "common/cpu_backend.h"
#include "neighbors/jaccard_math.h"
#include "neighbors/jaccard_ops.h"
#include "neighbors/neighbors_isa.h"

namespace gcl {
namespace {

constexpr int64_t kGrain = 64;  // rows

// R*(i) by looking members up instead of merging lists: a member is marked with the number of the row it was last seen in.
template <class T>
class Expander {
 public:
  explicit Expander(const ExpansionParams<T>& p) : p_(p), seen_in_(p.rows, -1) {}
  // The members of R*(i), ascending; valid until the next call. `decide` writes p.accepted first.
  const std::vector<int32_t>& expand(int64_t i, bool decide) {
    const int32_t row = static_cast<int32_t>(i);
    const int32_t* near = p_.near + i * p_.width;
    uint8_t* accepted = p_.accepted + i * p_.width;
    members_.assign(near, near + p_.num_near[i]);
    for (const int32_t j : members_) seen_in_[j] = row;
    for (int64_t t = 0; decide && t < p_.width; ++t) accepted[t] = t < p_.num_near[i] && joins(near[t], row);
    for (int64_t t = 0; t < p_.num_near[i]; ++t) {
      if (!accepted[t]) continue;
      const int32_t* list = p_.close + near[t] * p_.half_width;
      for (int64_t e = 0; e < p_.num_close[near[t]]; ++e) {
        if (seen_in_[list[e]] == row) continue;
        seen_in_[list[e]] = row;
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
    for (int64_t e = 0; e < size; ++e) common += seen_in_[list[e]] == row;
    return 3 * common > 2 * size;
  }

  const ExpansionParams<T>& p_;
  std::vector<int32_t> seen_in_, members_;
};

// Which rows came out as long as the caller had counted; each thread writes its own.
class RowFits {
 public:
  explicit RowFits(int64_t rows) : fits_(rows, 1) {}
  void set(int64_t row, bool fits) { fits_[row] = fits; }
  bool all() const {
    return std::all_of(fits_.begin(), fits_.end(), [](uint8_t fits) { return fits != 0; });
  }

 private:
  std::vector<uint8_t> fits_;
};

struct JaccardCpu : CpuBackend {
  // Calls f(begin, end) for ranges of rows, so that each thread makes its workspace once for many.
  template <class F>
  static void over_rows(int64_t rows, F&& f) {
    torch::stable::parallel_for(0, rows, kGrain, f);
  }

  void reciprocal(const ReciprocalParams& p) const {
    in_parallel(p.rows, kGrain, [&](int64_t i) { reciprocal_row(p, i); });
  }

  void expansion_count(const ExpansionParams<float>& p) const {
    over_rows(p.rows, [&](int64_t begin, int64_t end) {
      Expander<float> sets(p);
      for (int64_t i = begin; i < end; ++i) p.count[i] = static_cast<int64_t>(sets.expand(i, true).size());
    });
  }

  template <class T>
  bool expansion_weights(const ExpansionParams<T>& p) const {
    RowFits fits(p.rows);
    over_rows(p.rows, [&](int64_t begin, int64_t end) {
      Expander<T> sets(p);
      for (int64_t i = begin; i < end; ++i) {
        int64_t e = p.start[i];
        const int64_t stop = p.start[i + 1];
        const std::vector<int32_t>& members = sets.expand(i, false);
        const bool row_fits = static_cast<int64_t>(members.size()) == stop - e;
        fits.set(i, row_fits);
        if (!row_fits) continue;
        for (const int32_t j : members) {
          T value = 0;
          if (!known_similarity(p, i, j, &value)) {
            if (p.features != nullptr) value = dot(p.features + i * p.dim, p.features + j * p.dim, p.dim);
            else if (!p.finished) value = static_cast<T>(NAN);
          }
          p.columns[e] = j;
          p.values[e++] = value;
        }
        if (p.finished) softmax_row(p.values + p.start[i], stop - p.start[i]);
      }
    });
    return fits.all();
  }

  template <class T>
  void products(const ProductParams<T>& p) const {
    in_parallel(p.pairs, kGrain,
                [&](int64_t n) { p.product[n] = dot(p.left + p.row[n] * p.dim, p.right + p.column[n] * p.dim, p.dim); });
  }

  template <class T>
  void softmax(const SoftmaxParams<T>& p) const {
    in_parallel(p.rows, kGrain, [&](int64_t i) { softmax_row(p.values + p.start[i], p.start[i + 1] - p.start[i]); });
  }

  template <class T>
  void mean_count(const MeanParams<T>& p) const {
    over_rows(p.rows, [&](int64_t begin, int64_t end) {
      std::vector<int64_t> at(p.group);
      for (int64_t i = begin; i < end; ++i) {
        int64_t count = 0;
        for_each_mean(p, i, at.data(), [&](int32_t, auto) { ++count; });
        p.count[i] = count;
      }
    });
  }

  template <class T>
  bool mean(const MeanParams<T>& p) const {
    RowFits fits(p.rows);
    over_rows(p.rows, [&](int64_t begin, int64_t end) {
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
        fits.set(i, e == p.out_start[i + 1]);
      }
    });
    return fits.all();
  }
};

std::tuple<Tensor, Tensor, Tensor> transpose_rows_cpu(Tensor start, Tensor columns, Tensor values) {
  const RowsTensors t("transpose_rows", start, columns, values);
  const int64_t entries = t.columns.size(0);
  Tensor out_start = new_zeros(start, {t.rows + 1});
  Tensor out_rows = new_empty(start, {entries}, ScalarType::Int);
  Tensor out_values = new_empty(values, {entries});
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

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(gcl_fast, CPU, m) {
  register_jaccard<JaccardCpu>(m);
  m.impl("transpose_rows", TORCH_BOX(&transpose_rows_cpu));
}

}  // namespace gcl
