// CPU backend of DBSCAN: rows in parallel; roots are the smallest members, so the threads' order leaves no trace.
#include <atomic>
#include <vector>

#include "neighbors/dbscan_math.h"
#include "neighbors/dbscan_tensors.h"

namespace gcl {
namespace {

constexpr int64_t kGrain = 256;  // rows

Tensor dbscan_roots_cpu(Tensor indptr, Tensor indices, Tensor values, double eps, int64_t min_samples) {
  const DbscanTensors t("dbscan_roots", indptr, indices, values);
  Tensor root = torch::stable::new_empty(indptr, {t.rows}, ScalarType::Int);
  dispatch_real(t.values, [&](auto real) {
    auto p = t.params<decltype(real)>(eps);
    p.min_samples = min_samples;
    p.root = root.mutable_data_ptr<int32_t>();
    std::vector<uint8_t> core(p.rows);
    torch::stable::parallel_for(0, p.rows, kGrain, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        core[i] = is_core(p, i);
        p.root[i] = core[i] ? static_cast<int32_t>(i) : -1;
      }
    });
    const auto load = [&](int32_t n) { return std::atomic_ref<int32_t>(p.root[n]).load(std::memory_order_relaxed); };
    const auto lower = [&](int32_t n, int32_t to) {
      std::atomic_ref<int32_t> at(p.root[n]);
      int32_t old = at.load(std::memory_order_relaxed);
      while (to < old && !at.compare_exchange_weak(old, to, std::memory_order_relaxed)) {
      }
      return old;
    };
    torch::stable::parallel_for(0, p.rows, kGrain, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        if (core[i]) unite_row(p, i, [&](int64_t j) { return core[j] != 0; }, load, lower);
      }
    });
    for (int64_t i = 0; i < p.rows; ++i) {  // in ascending order a parent is already a root
      if (core[i]) p.root[i] = p.root[p.root[i]];
    }
  });
  return root;
}

Tensor dbscan_labels_cpu(Tensor indptr, Tensor indices, Tensor values, double eps, Tensor core_label) {
  const DbscanTensors t("dbscan_labels", indptr, indices, values);
  check_shape("dbscan_labels", "core_label", core_label, {t.rows});
  check_int64("dbscan_labels", "core_label", core_label);
  check_same_device("dbscan_labels", "core_label", core_label, indptr);
  Tensor numbers = torch::stable::contiguous(core_label);
  Tensor labels = torch::stable::new_empty(indptr, {t.rows}, ScalarType::Long);
  dispatch_real(t.values, [&](auto real) {
    auto p = t.params<decltype(real)>(eps);
    p.core_label = numbers.const_data_ptr<int64_t>();
    p.labels = labels.mutable_data_ptr<int64_t>();
    torch::stable::parallel_for(0, p.rows, kGrain, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) p.labels[i] = label_of(p, i);
    });
  });
  return labels;
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(gcl_fast, CPU, m) {
  m.impl("dbscan_roots", TORCH_BOX(&dbscan_roots_cpu));
  m.impl("dbscan_labels", TORCH_BOX(&dbscan_labels_cpu));
}

}  // namespace gcl
