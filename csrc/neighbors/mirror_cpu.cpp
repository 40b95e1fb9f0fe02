// A symmetric matrix of which each row holds the columns from the diagonal on, made whole. Rows one after the other: what lies
// left of the diagonal then comes in ascending order by itself.
#include <vector>

#include "common/cpu_backend.h"
#include "neighbors/neighbors_tensors.h"

namespace gcl {
namespace {

// Calls emit(row, column, entry) for every entry on and right of the diagonal, rows ascending.
template <class Emit>
void for_each_upper(const char* op, const RowsTensors& t, Emit&& emit) {
  const int64_t* start = t.start.const_data_ptr<int64_t>();
  const int32_t* column = t.columns.const_data_ptr<int32_t>();
  for (int64_t i = 0; i < t.rows; ++i) {
    for (int64_t e = start[i]; e < start[i + 1]; ++e) {
      STD_TORCH_CHECK(column[e] >= i, op, ": columns must be from the diagonal on, got ", column[e], " in row ", i);
      emit(i, static_cast<int64_t>(column[e]), e);
    }
  }
}

// How many entries each row of the whole has.
Tensor mirrored_count(Tensor start, Tensor columns, Tensor values) {
  const char* op = "mirrored_count";
  const RowsTensors t(op, start, columns, values);
  Tensor count = new_zeros(start, {t.rows});
  int64_t* counted = count.mutable_data_ptr<int64_t>();
  for_each_upper(op, t, [&](int64_t i, int64_t j, int64_t) {
    ++counted[i];
    if (j != i) ++counted[j];
  });
  return count;
}

std::tuple<Tensor, Tensor> mirrored_rows(Tensor start, Tensor columns, Tensor values, Tensor out_start, int64_t total) {
  const char* op = "mirrored_rows";
  const RowsTensors t(op, start, columns, values);
  const Tensor begins = row_starts(op, "out_start", out_start, start, t.rows, total);
  Tensor out_columns = new_empty(start, {total}, ScalarType::Int);
  Tensor out_values = new_empty(values, {total});
  const int64_t* begin = begins.const_data_ptr<int64_t>();
  dispatch_real(t.values, [&](auto real) {
    using T = decltype(real);
    std::vector<int64_t> next(begin, begin + t.rows);
    const T* value = t.values.const_data_ptr<T>();
    int32_t* to_columns = out_columns.mutable_data_ptr<int32_t>();
    T* to_values = out_values.mutable_data_ptr<T>();
    const auto write = [&](int64_t row, int64_t column, int64_t e) {
      STD_TORCH_CHECK(next[row] < begin[row + 1], op, ": out_start does not hold row ", row);
      to_columns[next[row]] = static_cast<int32_t>(column);
      to_values[next[row]++] = value[e];
    };
    for_each_upper(op, t, [&](int64_t i, int64_t j, int64_t e) {
      write(i, j, e);
      if (j != i) write(j, i, e);
    });
    for (int64_t i = 0; i < t.rows; ++i) {
      STD_TORCH_CHECK(next[i] == begin[i + 1], op, ": out_start has more room than row ", i, " needs");
    }
  });
  return {out_columns, out_values};
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(gcl_fast, CPU, m) {
  m.impl("mirrored_count", TORCH_BOX(&mirrored_count));
  m.impl("mirrored_rows", TORCH_BOX(&mirrored_rows));
}

}  // namespace gcl
