// CPU backend of the overlaps: rows in parallel, each summed in one order, so the result knows nothing of the number of threads.
#include <algorithm>
#include <bit>
#include <vector>

#include "common/cpu_backend.h"
#include "neighbors/overlap_math.h"
#include "neighbors/overlap_ops.h"

namespace gcl {
namespace {

constexpr int64_t kGrain = 64;  // rows

// Numbers that come out in ascending order. Few of them are sorted, many set a bit each.
class Ascending {
 public:
  explicit Ascending(int64_t below) : words_((below + 63) / 64, 0) {}

  // Calls emit(number) for each.
  template <class Emit>
  void visit(std::vector<int32_t>& numbers, Emit&& emit) {
    if (numbers.size() * kSorting < words_.size()) {
      std::sort(numbers.begin(), numbers.end());
      for (const int32_t number : numbers) emit(number);
      return;
    }
    for (const int32_t number : numbers) words_[number >> 6] |= uint64_t{1} << (number & 63);
    for (size_t w = 0; w < words_.size(); ++w) {
      for (uint64_t word = words_[w]; word != 0; word &= word - 1) emit(static_cast<int32_t>(w * 64 + std::countr_zero(word)));
      words_[w] = 0;
    }
  }

 private:
  static constexpr size_t kSorting = 16;  // looking at so many words takes about as long as sorting one number more
  std::vector<uint64_t> words_;
};

// Sums of the row at work, by column; a column that another row left is as good as empty.
template <class T>
struct Overlap {
  T sum;
  int32_t row;  // whose sum it is
};

// One thread's workspace.
template <class T>
class Summing {
 public:
  explicit Summing(const OverlapParams<T>& p)
      : p_(p), overlap_(p.rows, Overlap<T>{T(0), -1}), sharing_(p.rows + 1), ascending_(p.rows) {}

  // Writes row i into [at, end); returns how many entries it has.
  int64_t write(int64_t i, int64_t at, int64_t end) {
    const int64_t num_sharing = add_up(i);
    const T least = static_cast<T>(least_shared<T>(p_.max_distance, p_.start[i + 1] - p_.start[i]));
    near_.clear();
    for (int64_t s = 0; s < num_sharing; ++s) {
      if (!(overlap_[sharing_[s]].sum < least) || sharing_[s] == i) near_.push_back(sharing_[s]);
    }
    const T farthest = static_cast<T>(p_.max_distance);
    int64_t e = at;
    ascending_.visit(near_, [&](int32_t j) {
      const T distance = j == i ? T(0) : jaccard_of(overlap_[j].sum);
      if (!(distance <= farthest)) return;
      if (e < end) {
        p_.indices[e] = j;
        p_.distance[e] = distance;
      }
      ++e;
    });
    return e - at;
  }

 private:
  // Sums what row i shares with others, column after column; returns with how many, their numbers in sharing_.
  int64_t add_up(int64_t i) {
    int64_t num_sharing = 0;
    for (int64_t e = p_.start[i]; e < p_.start[i + 1]; ++e) {
      const int64_t n = p_.columns[e];
      const T value = p_.values[e];
      const int64_t end = p_.holder_start[n + 1];
      for (int64_t h = p_.upper ? from(i, p_.holder_start[n], end) : p_.holder_start[n]; h < end; ++h) {
        const int32_t j = p_.holder_rows[h];
        const bool first = overlap_[j].row != i;
        overlap_[j] = {(first ? T(0) : overlap_[j].sum) + minimum(value, p_.holder_values[h]), static_cast<int32_t>(i)};
        sharing_[num_sharing] = j;  // a row met again is written behind the last and forgotten
        num_sharing += first;
      }
    }
    return num_sharing;
  }

  // The first of the holders begin to end, ascending, that is at least i.
  int64_t from(int64_t i, int64_t begin, int64_t end) const {
    return std::lower_bound(p_.holder_rows + begin, p_.holder_rows + end, static_cast<int32_t>(i)) - p_.holder_rows;
  }

  const OverlapParams<T>& p_;
  std::vector<Overlap<T>> overlap_;
  std::vector<int32_t> sharing_, near_;
  Ascending ascending_;
};

struct OverlapCpu : CpuBackend {
  template <class T>
  void room(const RoomParams<T>& p) const {
    in_parallel(p.results, kGrain, [&](int64_t r) { p.room[r] = room_of_row(p, p.first + r * p.step); });
  }

  template <class T>
  bool overlaps(const OverlapParams<T>& p) const {
    torch::stable::parallel_for(0, p.results, kGrain, [&](int64_t begin, int64_t end) {
      Summing<T> summing(p);
      for (int64_t n = begin; n < end; ++n) {
        // of upper rows the first have most to do and the last least: one of each in turn
        const int64_t r = !p.upper ? n : n % 2 == 0 ? n / 2 : p.results - 1 - n / 2;
        p.count[r] = summing.write(p.first + r * p.step, p.room[r], p.room[r + 1]);
      }
    });
    for (int64_t r = 0; r < p.results; ++r) {
      if (p.count[r] > p.room[r + 1] - p.room[r]) return false;
    }
    return true;
  }
};

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(gcl_fast, CPU, m) {
  register_overlap<OverlapCpu>(m);
  m.impl("overlap_upper_rows", TORCH_BOX((&overlap_rows<OverlapCpu, true>)));
}

}  // namespace gcl
