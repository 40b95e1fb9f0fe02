// The entry point of the walk, once for both backends. A backend has walk(params, like).
#pragma once

#include "neighbors/neighbors_tensors.h"
#include "neighbors/walk.h"

namespace gcl {

template <class Backend>
Tensor mutual_walk(Tensor bank, Tensor index, Tensor order, Tensor near, Tensor reach) {
  const char* op = "mutual_walk";
  const Backend backend{bank};
  check_shape(op, "bank", bank, {kAnySize, kAnySize});
  check_real(op, "bank", bank);
  const int64_t total = bank.size(0);
  STD_TORCH_CHECK(total <= kMaxRows, op, ": bank must have at most 2^31 - 2 rows");
  check_shape(op, "index", index, {kAnySize});
  const int64_t batch = index.size(0);
  check_shape(op, "order", order, {batch, total});
  check_shape(op, "near", near, {batch});
  check_shape(op, "reach", reach, {batch});
  check_int64(op, {{"index", index}, {"order", order}, {"near", near}, {"reach", reach}});
  check_same_device(op, bank, {{"index", index}, {"order", order}, {"near", near}, {"reach", reach}});
  const Tensor rows = contiguous(bank), asking = contiguous(index), places = contiguous(order);
  const Tensor counted = contiguous(near), held = contiguous(reach);
  if (!bank.is_cuda()) {
    check_range<int64_t>(op, "index", asking, 0, total);
    check_range<int64_t>(op, "order", places, 0, total);
    check_range<int64_t>(op, "near", counted, 0, total + 1);
    check_range<int64_t>(op, "reach", held, 0, total + 2);
  }
  Tensor steps = new_empty(index, {batch});
  dispatch_real(bank, [&](auto real) {
    using T = decltype(real);
    WalkParams<T> p{};
    p.bank = rows.const_data_ptr<T>();
    p.index = asking.const_data_ptr<int64_t>();
    p.order = places.const_data_ptr<int64_t>();
    p.near = counted.const_data_ptr<int64_t>();
    p.reach = held.const_data_ptr<int64_t>();
    p.batch = batch, p.total = total, p.dim = bank.size(1);
    p.steps = steps.mutable_data_ptr<int64_t>();
    backend.walk(p, steps);
  });
  backend.finish(op);
  return steps;
}

template <class Backend, class Library>
void register_walk(Library& m) {
  m.impl("mutual_walk", TORCH_BOX(&mutual_walk<Backend>));
}

}  // namespace gcl
