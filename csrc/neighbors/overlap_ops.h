// The entry points of the overlaps, once for both backends (kUpper is the CPU's alone). A backend has room(params) and
// overlaps(params); the latter says whether the room was enough (the GPU is not asked and says yes: it never writes beyond).
#pragma once

#include <tuple>

#include "neighbors/overlap_tensors.h"

namespace gcl {

template <class Backend>
Tensor overlap_room(Tensor start, Tensor columns, Tensor values, Tensor holder_start, int64_t first, int64_t last, int64_t step,
                    double max_distance) {
  const char* op = "overlap_room";
  const Backend backend{start};
  const RowsTensors matrix(op, start, columns, values);
  const Tensor holders = row_starts(op, "holder_start", holder_start, start, matrix.rows, matrix.columns.size(0));
  const int64_t results = results_of(op, matrix.rows, first, last, step);
  Tensor room = new_empty(start, {results}, ScalarType::Long);
  dispatch_real(matrix.values, [&](auto real) {
    using T = decltype(real);
    backend.room(RoomParams<T>{.start = matrix.start.const_data_ptr<int64_t>(),
                               .columns = matrix.columns.const_data_ptr<int32_t>(),
                               .values = matrix.values.const_data_ptr<T>(),
                               .holder_start = holders.const_data_ptr<int64_t>(),
                               .rows = matrix.rows,
                               .first = first,
                               .step = step,
                               .results = results,
                               .max_distance = max_distance,
                               .room = room.mutable_data_ptr<int64_t>()});
  });
  backend.finish(op);
  return room;
}

template <class Backend, bool kUpper>
std::tuple<Tensor, Tensor, Tensor> overlap_rows(Tensor start, Tensor columns, Tensor values, Tensor holder_start,
                                                Tensor holder_rows, Tensor holder_values, int64_t first, int64_t last,
                                                int64_t step, double max_distance, Tensor room, int64_t total) {
  const char* op = kUpper ? "overlap_upper_rows" : "overlap_rows";
  const Backend backend{start};
  const OverlapTensors t(op, start, columns, values, holder_start, holder_rows, holder_values);
  const int64_t results = results_of(op, t.matrix.rows, first, last, step);
  const Tensor begins = row_starts(op, "room", room, start, results, total);
  Tensor count = new_empty(start, {results}, ScalarType::Long);
  Tensor indices = new_empty(start, {total}, ScalarType::Int);
  Tensor distance = new_empty(values, {total});
  dispatch_real(t.matrix.values, [&](auto real) {
    using T = decltype(real);
    auto p = t.params<T>();
    p.first = first, p.step = step, p.results = results;
    p.max_distance = max_distance;
    p.upper = kUpper;
    p.room = begins.const_data_ptr<int64_t>();
    p.count = count.mutable_data_ptr<int64_t>();
    p.indices = indices.mutable_data_ptr<int32_t>();
    p.distance = distance.mutable_data_ptr<T>();
    STD_TORCH_CHECK(backend.overlaps(p), op, ": room does not hold the rows");
  });
  backend.finish(op);
  return {count, indices, distance};
}

template <class Backend, class Library>
void register_overlap(Library& m) {
  m.impl("overlap_room", TORCH_BOX(&overlap_room<Backend>));
  m.impl("overlap_rows", TORCH_BOX((&overlap_rows<Backend, false>)));
}

}  // namespace gcl
