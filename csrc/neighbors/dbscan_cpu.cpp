// CPU backend of DBSCAN: rows in parallel; roots are the smallest members, so the threads' order leaves no trace.
#include <atomic>
#include <vector>

#include "common/cpu_backend.h"
#include "neighbors/dbscan_math.h"
#include "neighbors/dbscan_ops.h"

namespace gcl {
namespace {

constexpr int64_t kGrain = 256;  // rows

struct DbscanCpu : CpuBackend {
  template <class T>
  void roots(const DbscanParams<T>& p) const {
    std::vector<uint8_t> core(p.rows);
    in_parallel(p.rows, kGrain, [&](int64_t i) {
      core[i] = is_core(p, i);
      p.root[i] = core[i] ? static_cast<int32_t>(i) : -1;
    });
    const auto load = [&](int32_t n) { return std::atomic_ref<int32_t>(p.root[n]).load(std::memory_order_relaxed); };
    const auto lower = [&](int32_t n, int32_t to) {
      std::atomic_ref<int32_t> root(p.root[n]);
      int32_t old = root.load(std::memory_order_relaxed);
      while (to < old && !root.compare_exchange_weak(old, to, std::memory_order_relaxed)) {
      }
      return old;
    };
    in_parallel(p.rows, kGrain, [&](int64_t i) {
      if (core[i]) unite_entries(p, i, p.indptr[i], 1, [&](int64_t j) { return core[j] != 0; }, load, lower);
    });
    for (int64_t i = 0; i < p.rows; ++i) {  // in ascending order a parent is already a root
      if (core[i]) p.root[i] = p.root[p.root[i]];
    }
  }

  template <class T>
  void labels(const DbscanParams<T>& p) const {
    in_parallel(p.rows, kGrain, [&](int64_t i) { p.labels[i] = label_of(p, i); });
  }
};

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(gcl_fast, CPU, m) { register_dbscan<DbscanCpu>(m); }

}  // namespace gcl
