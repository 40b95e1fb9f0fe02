// CPU backend of the running selection: each row keeps its list sorted; nearly every similarity is below the last one kept, so
// the work is a vectorised comparison. Rows in parallel.
#include <cstring>
#include <vector>

#include "common/cpu_backend.h"
#include "neighbors/knn_math.h"
#include "neighbors/knn_ops.h"
#include "neighbors/neighbors_isa.h"

namespace gcl {
namespace {

constexpr int64_t kGrain = 16;  // rows
constexpr int64_t kRun = 128;   // columns of a row that are held against one threshold

// Whether the list of row r (columns 1 to k - 1) took it.
template <class T, class B>
bool insert(const KnnParams<T, B>& p, int64_t r, T value, int64_t index) {
  T* values = p.value + r * p.k;
  int64_t* indices = p.index + r * p.k;
  const int64_t last = p.k - 1;
  if (last < 1 || !comes_before(value, index, values[last], indices[last])) return false;
  int32_t better = 0;
  for (int64_t n = 1; n < last; ++n) better += values[n] > value;
  int64_t at = 1 + better;
  while (at < last && values[at] == value && indices[at] < index) ++at;
  std::memmove(values + at + 1, values + at, static_cast<size_t>(last - at) * sizeof(T));
  std::memmove(indices + at + 1, indices + at, static_cast<size_t>(last - at) * sizeof(int64_t));
  values[at] = value;
  indices[at] = index;
  return true;
}

template <class T, class B>
void place_itself(const KnnParams<T, B>& p, int64_t r) {
  const int64_t row = row_number(p, r);
  if (row < p.first_column || row >= p.first_column + p.width) return;  // a caller's row may be any number
  const int64_t c = row - p.first_column;
  p.value[r * p.k] = entry(p, r, c);
  p.index[r * p.k] = row;
}

template <class T, class B>
void update_row(const KnnParams<T, B>& p, int64_t r) {
  const B* values = p.block + r * p.row_stride;
  const T* last = p.value + r * p.k + p.k - 1;
  const int64_t row = row_number(p, r);
  int32_t near[kRun];
  for (int64_t first = 0; first < p.width; first += kRun) {
    const T* penalty = p.penalty == nullptr ? nullptr : p.penalty + first;
    const int64_t count = near_in_row(values + first, penalty, *last, minimum(kRun, p.width - first), near);
    for (int64_t n = 0; n < count; ++n) {
      const int64_t c = first + near[n];
      offer(p, row, p.first_column + c, entry(p, r, c), [&](T value, int64_t index) { return insert(p, r, value, index); });
    }
  }
}

// The block lies by columns: all rows of one column at a time.
template <class T, class B>
void update_rows_by_column(const KnnParams<T, B>& p, int64_t begin, int64_t end) {
  std::vector<T> last(end - begin);
  std::vector<int32_t> near(end - begin);
  for (int64_t r = begin; r < end; ++r) last[r - begin] = p.value[r * p.k + p.k - 1];
  for (int64_t c = 0; c < p.width; ++c) {
    const B* values = p.block + c * p.column_stride + begin;
    const T penalty = p.penalty == nullptr ? T(0) : p.penalty[c];
    const int64_t count = near_in_column(values, penalty, last.data(), end - begin, near.data());
    for (int64_t n = 0; n < count; ++n) {
      const int64_t r = begin + near[n];
      offer(p, row_number(p, r), p.first_column + c, entry(p, r, c),
            [&](T value, int64_t index) { return insert(p, r, value, index); });
      last[near[n]] = p.value[r * p.k + p.k - 1];
    }
  }
}

struct KnnCpu : CpuBackend {
  template <class T, class B>
  void update(const KnnParams<T, B>& p) const {
    torch::stable::parallel_for(0, p.height, kGrain, [&](int64_t begin, int64_t end) {
      for (int64_t r = begin; r < end; ++r) place_itself(p, r);
      if (p.k == 1) return;
      if (p.column_stride == 1) {
        for (int64_t r = begin; r < end; ++r) update_row(p, r);
      } else {
        update_rows_by_column(p, begin, end);
      }
    });
  }
};

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(gcl_fast, CPU, m) { register_knn<KnnCpu>(m); }

}  // namespace gcl
