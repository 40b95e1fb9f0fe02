// The entry points of the looks and of packing, once for both backends. A backend has neighbors(params), graph(params),
// pack(params).
#pragma once

#include <tuple>

#include "neighbors/faults.h"
#include "neighbors/neighbors_tensors.h"

namespace gcl {

template <class Backend>
Tensor neighbor_faults(Tensor index, Tensor features) {
  const char* op = "neighbor_faults";
  const Backend backend{index};
  check_shape(op, "index", index, {kAnySize, kAnySize});
  check_index_type(op, "index", index);
  check_real(op, "features", features);
  check_same_device(op, index, {{"features", features}});
  const Tensor names = contiguous(index), rows = contiguous(features);
  Tensor faults = new_zeros(index, {1}, ScalarType::Int);
  dispatch_real_index(op, rows, names, [&](auto real, auto whole) {
    using T = decltype(real);
    using Index = decltype(whole);
    backend.neighbors(NeighborFaultParams<Index, T>{.index = names.template const_data_ptr<Index>(),
                                                    .rows = names.size(0),
                                                    .width = names.size(1),
                                                    .features = rows.template const_data_ptr<T>(),
                                                    .numbers = rows.numel(),
                                                    .faults = static_cast<uint32_t*>(faults.mutable_data_ptr())});
  });
  backend.finish(op);
  return faults;
}

template <class Backend>
Tensor graph_faults(Tensor indptr, Tensor indices, Tensor values) {
  const char* op = "graph_faults";
  const Backend backend{indptr};
  check_shape(op, "indptr", indptr, {kAnySize});
  check_shape(op, "indices", indices, {kAnySize});
  check_shape(op, "values", values, {indices.size(0)});
  STD_TORCH_CHECK(indptr.size(0) >= 1, op, ": indptr must have at least one entry");
  check_int64(op, {{"indptr", indptr}});
  check_index_type(op, "indices", indices);
  check_real(op, "values", values);
  check_same_device(op, indptr, {{"indices", indices}, {"values", values}});
  const Tensor starts = contiguous(indptr), columns = contiguous(indices), distances = contiguous(values);
  Tensor faults = new_zeros(indptr, {1}, ScalarType::Int);
  dispatch_real_index(op, distances, columns, [&](auto real, auto whole) {
    using T = decltype(real);
    using Index = decltype(whole);
    backend.graph(GraphFaultParams<Index, T>{.indptr = starts.template const_data_ptr<int64_t>(),
                                             .indices = columns.template const_data_ptr<Index>(),
                                             .values = distances.template const_data_ptr<T>(),
                                             .rows = starts.size(0) - 1,
                                             .entries = columns.size(0),
                                             .faults = static_cast<uint32_t*>(faults.mutable_data_ptr())});
  });
  backend.finish(op);
  return faults;
}

template <class Backend>
std::tuple<Tensor, Tensor> pack_rows(Tensor starts, Tensor indptr, Tensor indices, Tensor values, int64_t total) {
  const char* op = "pack_rows";
  const Backend backend{starts};
  check_shape(op, "starts", starts, {kAnySize});
  STD_TORCH_CHECK(starts.size(0) >= 1 && total >= 0, op, ": starts must have an entry, total be at least 0");
  const int64_t rows = starts.size(0) - 1;
  check_shape(op, "indices", indices, {kAnySize});
  check_int32(op, {{"indices", indices}});
  check_shape(op, "values", values, {indices.size(0)});
  check_real(op, "values", values);
  check_same_device(op, starts, {{"indices", indices}, {"values", values}});
  const Tensor from = row_starts(op, "starts", starts, starts, rows, indices.size(0));
  const Tensor to = row_starts(op, "indptr", indptr, starts, rows, total);
  if (!starts.is_cuda()) {
    const int64_t *a = from.const_data_ptr<int64_t>(), *b = to.const_data_ptr<int64_t>();
    for (int64_t r = 0; r < rows; ++r) {
      STD_TORCH_CHECK(b[r + 1] - b[r] <= a[r + 1] - a[r], op, ": indptr has longer rows than starts");
    }
  }
  const Tensor columns = contiguous(indices), numbers = contiguous(values);
  Tensor out_indices = new_empty(indices, {total}), out_values = new_empty(values, {total});
  dispatch_real(numbers, [&](auto real) {
    using T = decltype(real);
    backend.pack(PackParams<T>{.starts = from.const_data_ptr<int64_t>(),
                               .indptr = to.const_data_ptr<int64_t>(),
                               .indices = columns.const_data_ptr<int32_t>(),
                               .values = numbers.template const_data_ptr<T>(),
                               .rows = rows,
                               .out_indices = out_indices.mutable_data_ptr<int32_t>(),
                               .out_values = out_values.template mutable_data_ptr<T>()});
  });
  backend.finish(op);
  return {out_indices, out_values};
}

template <class Backend, class Library>
void register_faults(Library& m) {
  m.impl("neighbor_faults", TORCH_BOX(&neighbor_faults<Backend>));
  m.impl("graph_faults", TORCH_BOX(&graph_faults<Backend>));
  m.impl("pack_rows", TORCH_BOX(&pack_rows<Backend>));
}

}  // namespace gcl
