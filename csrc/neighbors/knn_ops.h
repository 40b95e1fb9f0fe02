// The entry point of the running selection, once for both backends. A backend has update(params).
#pragma once

#include "neighbors/knn_tensors.h"

namespace gcl {

template <class Backend>
void knn_update(Tensor block, Tensor rows, int64_t first_row, int64_t first_column, Tensor penalty, Tensor original,
                Tensor copy_start, Tensor copies, Tensor value, Tensor index) {
  const char* op = "knn_update_";
  const Backend backend{block};
  const KnnTensors t(block, rows, penalty, original, copy_start, copies, value, index);
  if (!block.is_cuda() && original.numel() != 0) {
    check_starts(op, "copy_start", t.copy_start, t.copies.numel());
    STD_TORCH_CHECK(first_column >= 0 && first_column <= t.original.size(0) - t.block.size(1), op,
                    ": block reaches beyond original");
  }
  if constexpr (!Backend::kOnGpu) {
    if (is_bfloat16(block)) {
      backend.update(t.params<float, BFloat16>(first_row, first_column, value, index));
      return backend.finish(op);
    }
  }
  dispatch_real(t.block, [&](auto real) { backend.update(t.params<decltype(real)>(first_row, first_column, value, index)); });
  backend.finish(op);
}

template <class Backend, class Library>
void register_knn(Library& m) {
  m.impl("knn_update_", TORCH_BOX(&knn_update<Backend>));
}

}  // namespace gcl
