// The entry points of DBSCAN, once for both backends. A backend has roots(params) and labels(params).
#pragma once

#include "neighbors/dbscan_tensors.h"

namespace gcl {

template <class Backend>
Tensor dbscan_roots(Tensor indptr, Tensor indices, Tensor values, double eps, int64_t min_samples) {
  const char* op = "dbscan_roots";
  const Backend backend{indptr};
  const DbscanTensors t(op, indptr, indices, values);
  Tensor root = new_empty(indptr, {t.rows}, ScalarType::Int);
  dispatch_real(t.values, [&](auto real) {
    auto p = t.params<decltype(real)>(eps);
    p.min_samples = min_samples;
    p.root = root.mutable_data_ptr<int32_t>();
    backend.roots(p);
  });
  backend.finish(op);
  return root;
}

template <class Backend>
Tensor dbscan_labels(Tensor indptr, Tensor indices, Tensor values, double eps, Tensor core_label) {
  const char* op = "dbscan_labels";
  const Backend backend{indptr};
  const DbscanTensors t(op, indptr, indices, values);
  check_shape(op, "core_label", core_label, {t.rows});
  check_int64(op, {{"core_label", core_label}});
  check_same_device(op, indptr, {{"core_label", core_label}});
  Tensor clusters = contiguous(core_label);
  Tensor labels = new_empty(indptr, {t.rows}, ScalarType::Long);
  dispatch_real(t.values, [&](auto real) {
    auto p = t.params<decltype(real)>(eps);
    p.core_label = clusters.const_data_ptr<int64_t>();
    p.labels = labels.mutable_data_ptr<int64_t>();
    backend.labels(p);
  });
  backend.finish(op);
  return labels;
}

template <class Backend, class Library>
void register_dbscan(Library& m) {
  m.impl("dbscan_roots", TORCH_BOX(&dbscan_roots<Backend>));
  m.impl("dbscan_labels", TORCH_BOX(&dbscan_labels<Backend>));
}

}  // namespace gcl
