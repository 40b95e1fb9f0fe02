// The entry points of the bank ops, once for both backends. A backend has
//   options(op, query, bank, ...)    how the work is cut
//   contrast(op, tensors, options)   bank_nce
//   gcl(gcl tensors, tensors, options)
//   draw(labels, num_rows, index, batch, seed, out)
#pragma once

#include <tuple>

#include "bank/bank_tensors.h"

namespace gcl {

template <class Backend>
std::tuple<Tensor, Tensor, Tensor, Tensor> bank_nce(Tensor query, Tensor bank, Tensor labels, Tensor positive,
                                                    std::optional<Tensor> positive_query, double temperature,
                                                    int64_t num_negatives, Tensor seed, bool with_grad) {
  const char* op = "bank_nce";
  const Backend backend{query};
  const NceOptions options = backend.options(op, query, bank, temperature, num_negatives, with_grad);
  NceTensors t = nce_tensors(op, query, bank, labels, positive, positive_query, seed, options);
  check_rows(op, "positive", t.positive, bank.size(0));
  if (query.size(0) > 0) backend.contrast(op, t, options);
  backend.finish(op);
  return {t.loss, t.mean, t.weight, t.rows};
}

template <class Backend>
std::tuple<Tensor, Tensor, Tensor> gcl_memory_loss(Tensor f, Tensor f_nv, Tensor bank, Tensor labels, Tensor index,
                                                   double temperature, int64_t num_negatives, Tensor seed, bool with_grad) {
  const char* op = "gcl_memory_loss";
  const Backend backend{f};
  GclTensors g = gcl_tensors(f, f_nv, index, with_grad);
  check_rows(op, "index", g.index, bank.size(0));
  NceOptions options = backend.options(op, f, bank, temperature, num_negatives, with_grad);
  options.rows = false;
  NceTensors t = nce_tensors(op, g.unit_view, bank, labels, g.positive, {}, seed, options);
  if (f.size(0) > 0) backend.gcl(g, t, options);
  backend.finish(op);
  return {t.loss, g.view_grad, g.photo_grad};
}

template <class Backend>
Tensor draw_positives(Tensor labels, Tensor index, Tensor seed) {
  const char* op = "draw_positives";
  const Backend backend{index};
  check_shape(op, "labels", labels, {kAnySize});
  check_shape(op, "index", index, {kAnySize});
  STD_TORCH_CHECK(seed.numel() == 1, op, ": seed must hold one number");
  check_row_numbers(op, index, {{"labels", labels}, {"index", index}, {"seed", seed}});
  const Tensor label = contiguous(labels), row = contiguous(index);
  check_rows(op, "index", row, labels.size(0));
  Tensor out = new_empty(index, {index.size(0), 2});
  if (index.size(0) > 0) {
    backend.draw(label.const_data_ptr<int64_t>(), label.size(0), row.const_data_ptr<int64_t>(), row.size(0),
                 seed.const_data_ptr<int64_t>(), out.mutable_data_ptr<int64_t>());
  }
  backend.finish(op);
  return out;
}

template <class Backend, class Library>
void register_bank(Library& m) {
  m.impl("bank_nce", TORCH_BOX(&bank_nce<Backend>));
  m.impl("gcl_memory_loss", TORCH_BOX(&gcl_memory_loss<Backend>));
  m.impl("bank_draw_positives", TORCH_BOX(&draw_positives<Backend>));
}

}  // namespace gcl
