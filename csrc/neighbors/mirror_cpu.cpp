// A symmetric matrix of which each row holds the columns from the diagonal on, made whole. A thread has some rows of the whole,
// and looks through all rows of the half for what belongs there, one after the other: so columns come in ascending order.
#include <algorithm>
#include <vector>

#include "common/cpu_backend.h"
#include "neighbors/neighbors_tensors.h"

namespace gcl {
namespace {

constexpr int64_t kGrain = 1024;  // rows

// The half, checked.
struct UpperRows : RowsTensors {
  const int64_t* begin;
  const int32_t* column;

  UpperRows(const char* op, const Tensor& start, const Tensor& columns, const Tensor& values)
      : RowsTensors(op, start, columns, values),
        begin(this->start.const_data_ptr<int64_t>()),
        column(this->columns.const_data_ptr<int32_t>()) {
    std::vector<uint8_t> fits(rows, 1);
    in_parallel(rows, kGrain, [&](int64_t i) {
      for (int64_t e = begin[i]; e < begin[i + 1]; ++e) fits[i] = fits[i] && column[e] >= i;
    });
    const auto bad = std::find(fits.begin(), fits.end(), 0);
    STD_TORCH_CHECK(bad == fits.end(), op, ": columns must be from the diagonal on, row ", bad - fits.begin(), " has others");
  }

  // Calls emit(row, column, entry) for the entries of the whole in rows first to last, columns of a row ascending.
  template <class Emit>
  void for_each(int64_t first, int64_t last, Emit&& emit) const {
    for (int64_t i = 0; i < last; ++i) {
      const int32_t* const end = column + begin[i + 1];
      const int32_t* c = column + begin[i];
      if (i < first) {
        c = std::lower_bound(c, end, static_cast<int32_t>(first));
      } else {
        for (const int32_t* own = c; own != end; ++own) emit(i, *own, own - column);
        c = c != end && *c == i ? c + 1 : c;
      }
      for (; c != end && *c < last; ++c) emit(*c, i, c - column);
    }
  }
};

// How many entries each row of the whole has.
Tensor mirrored_count(Tensor start, Tensor columns, Tensor values) {
  const UpperRows t("mirrored_count", start, columns, values);
  Tensor count = new_zeros(start, {t.rows});
  int64_t* counted = count.mutable_data_ptr<int64_t>();
  torch::stable::parallel_for(0, t.rows, kGrain, [&](int64_t first, int64_t last) {
    t.for_each(first, last, [&](int64_t row, int64_t, int64_t) { ++counted[row]; });
  });
  return count;
}

std::tuple<Tensor, Tensor> mirrored_rows(Tensor start, Tensor columns, Tensor values, Tensor out_start, int64_t total) {
  const char* op = "mirrored_rows";
  const UpperRows t(op, start, columns, values);
  const Tensor begins = row_starts(op, "out_start", out_start, start, t.rows, total);
  Tensor out_columns = new_empty(start, {total}, ScalarType::Int);
  Tensor out_values = new_empty(values, {total});
  const int64_t* room = begins.const_data_ptr<int64_t>();
  std::vector<int64_t> next(room, room + t.rows);
  dispatch_real(t.values, [&](auto real) {
    using T = decltype(real);
    const T* value = t.values.const_data_ptr<T>();
    int32_t* to_columns = out_columns.mutable_data_ptr<int32_t>();
    T* to_values = out_values.mutable_data_ptr<T>();
    torch::stable::parallel_for(0, t.rows, kGrain, [&](int64_t first, int64_t last) {
      t.for_each(first, last, [&](int64_t row, int64_t column, int64_t e) {
        const int64_t at = next[row]++;
        if (at >= room[row + 1]) return;
        to_columns[at] = static_cast<int32_t>(column);
        to_values[at] = value[e];
      });
    });
  });
  for (int64_t i = 0; i < t.rows; ++i) {
    STD_TORCH_CHECK(next[i] == room[i + 1], op, ": out_start has room for ", room[i + 1] - room[i], " entries in row ", i,
                    ", which has ", next[i] - room[i]);
  }
  return {out_columns, out_values};
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(gcl_fast, CPU, m) {
  m.impl("mirrored_count", TORCH_BOX(&mirrored_count));
  m.impl("mirrored_rows", TORCH_BOX(&mirrored_rows));
}

}  // namespace gcl
