// CPU backend of the looks at what was given and of packing. In parallel.
#include <algorithm>
#include <atomic>
#include <vector>

#include "common/cpu_backend.h"
#include "neighbors/faults_math.h"
#include "neighbors/faults_ops.h"

namespace gcl {
namespace {

constexpr int64_t kGrain = 64;        // rows
constexpr int64_t kNumbers = 1 << 15;  // of a thread at least

struct FaultsCpu : CpuBackend {
  // Calls look(begin, end) for parts of `count` items, and puts together what they find.
  template <class F>
  static uint32_t all_of(int64_t count, int64_t grain, F&& look) {
    std::atomic<uint32_t> faults{0};
    torch::stable::parallel_for(0, count, grain, [&](int64_t begin, int64_t end) { faults.fetch_or(look(begin, end)); });
    return faults.load();
  }

  template <class Index, class T>
  void neighbors(const NeighborFaultParams<Index, T>& p) const {
    *p.faults = all_of(p.numbers, kNumbers, [&](int64_t begin, int64_t end) {
      uint32_t others = 0;
      for (int64_t n = begin; n < end; ++n) others |= !is_finite(p.features[n]);
      return others == 0 ? 0u : kNotFinite;
    });
    *p.faults |= all_of(p.rows, kGrain, [&](int64_t begin, int64_t end) {
      uint32_t faults = 0;
      std::vector<Index> sorted(p.width);
      for (int64_t i = begin; i < end; ++i) {
        for (int64_t c = 0; c < p.width; ++c) faults |= neighbor_faults(p, i, c);
        std::copy_n(p.index + i * p.width, p.width, sorted.begin());
        std::sort(sorted.begin(), sorted.end());
        if (std::adjacent_find(sorted.begin(), sorted.end()) != sorted.end()) faults |= kNamedTwice;
      }
      return faults;
    });
  }

  template <class Index, class T>
  void graph(const GraphFaultParams<Index, T>& p) const {
    *p.faults = all_of(p.entries, kNumbers, [&](int64_t begin, int64_t end) {
      uint32_t faults = 0;
      for (int64_t e = begin; e < end; ++e) faults |= entry_faults(p, e);
      return faults;
    });
    *p.faults |= all_of(p.rows + 1, kNumbers, [&](int64_t begin, int64_t end) {
      uint32_t faults = 0;
      for (int64_t i = begin; i < end; ++i) faults |= start_faults(p, i);
      return faults;
    });
  }

  template <class T>
  void pack(const PackParams<T>& p) const {
    in_parallel(p.rows, kGrain, [&](int64_t r) {
      const int64_t size = p.indptr[r + 1] - p.indptr[r];
      std::copy_n(p.indices + p.starts[r], size, p.out_indices + p.indptr[r]);
      std::copy_n(p.values + p.starts[r], size, p.out_values + p.indptr[r]);
    });
  }
};

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(gcl_fast, CPU, m) { register_faults<FaultsCpu>(m); }

}  // namespace gcl
