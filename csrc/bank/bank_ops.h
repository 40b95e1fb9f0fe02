// The entry points of the bank ops, once for both backends. A backend has
//   options(op, query, given, bank, ...)    how the work is cut; given: the queries are read where they lie
//   contrast(op, tensors, options)          bank_nce
//   gcl(op, tensors, options, momentum)     gcl_memory_loss, gcl_memory_step_
//   backward(params)
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
  const NceOptions options = backend.options(op, query, true, bank, temperature, num_negatives, with_grad);
  NceTensors t = nce_tensors(op, query, bank, labels, positive, positive_query, seed, options);
  check_rows(op, "positive", t.positive, bank.size(0));
  if (query.size(0) > 0) backend.contrast(op, t, options);
  backend.finish(op);
  return {t.loss, t.mean, t.weight, t.rows};
}

// The terms, and what their backward takes. With a momentum the rows of the bank that the index names move afterwards.
template <class Backend>
std::tuple<Tensor, Tensor, Tensor> memory_step(const char* op, Tensor f, Tensor f_nv, Tensor bank, Tensor labels, Tensor index,
                                               double temperature, int64_t num_negatives, std::optional<Tensor> seed,
                                               int64_t seed_value, bool with_grad, std::optional<double> momentum) {
  const Backend backend{f};
  NceOptions options = backend.options(op, f, false, bank, temperature, num_negatives, with_grad);
  options.seed_value = seed_value;
  GclTensors t = gcl_tensors(op, f, f_nv, bank, labels, index, seed, options);
  check_rows(op, "index", t.index, bank.size(0));
  if (momentum.has_value()) check_moved_bank(op, bank, *momentum);
  if (f.size(0) > 0) backend.gcl(op, t, options, momentum);
  backend.finish(op);
  return {t.terms, t.view_grad, t.photo_grad};
}

template <class Backend>
std::tuple<Tensor, Tensor, Tensor> gcl_memory_loss(Tensor f, Tensor f_nv, Tensor bank, Tensor labels, Tensor index,
                                                   double temperature, int64_t num_negatives, Tensor seed, bool with_grad) {
  return memory_step<Backend>("gcl_memory_loss", f, f_nv, bank, labels, index, temperature, num_negatives, seed, 0, with_grad,
                              {});
}

template <class Backend>
std::tuple<Tensor, Tensor, Tensor> gcl_memory_step(Tensor f, Tensor f_nv, Tensor bank, Tensor labels, Tensor index,
                                                   double temperature, int64_t num_negatives, std::optional<Tensor> seed,
                                                   int64_t seed_value, bool with_grad, std::optional<double> momentum) {
  return memory_step<Backend>("gcl_memory_step_", f, f_nv, bank, labels, index, temperature, num_negatives, seed, seed_value,
                              with_grad, momentum);
}

template <class Backend>
std::tuple<Tensor, Tensor> gcl_memory_backward(Tensor grad, Tensor view_grad, Tensor photo_grad) {
  const char* op = "gcl_memory_backward";
  const Backend backend{grad};
  check_real(op, "grad", grad);
  check_shape(op, "grad", grad, {3});
  check_shape(op, "photo_grad", photo_grad, {kAnySize, kAnySize});
  check_shape(op, "view_grad", view_grad, {photo_grad.size(0), 3, photo_grad.size(1)});
  check_same_device(op, grad, {{"view_grad", view_grad}, {"photo_grad", photo_grad}});
  check_same_type(op, "grad", grad, {{"view_grad", view_grad}, {"photo_grad", photo_grad}});
  const Tensor terms = dense(grad), of_view = dense(view_grad), of_photo = dense(photo_grad);
  Tensor photo = new_empty(of_photo, {of_photo.size(0), of_photo.size(1)}),
         view = new_empty(of_photo, {of_photo.size(0), of_photo.size(1)});
  dispatch_real(grad, [&](auto real) {
    using T = decltype(real);
    backend.backward(GclBackwardParams<T>{.grad = terms.const_data_ptr<T>(),
                                          .view_grad = of_view.const_data_ptr<T>(),
                                          .photo_grad = of_photo.const_data_ptr<T>(),
                                          .batch = of_photo.size(0),
                                          .dim = of_photo.size(1),
                                          .photo = photo.mutable_data_ptr<T>(),
                                          .view = view.mutable_data_ptr<T>()});
  });
  backend.finish(op);
  return {photo, view};
}

template <class Backend>
Tensor draw_positives(Tensor labels, Tensor index, Tensor seed) {
  const char* op = "draw_positives";
  const Backend backend{index};
  check_shape(op, "labels", labels, {kAnySize});
  check_shape(op, "index", index, {kAnySize});
  STD_TORCH_CHECK(seed.numel() == 1, op, ": seed must hold one number");
  check_row_numbers(op, index, {{"labels", labels}, {"index", index}, {"seed", seed}});
  const Tensor label = dense(labels), row = dense(index);
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
  m.impl("gcl_memory_step_", TORCH_BOX(&gcl_memory_step<Backend>));
  m.impl("gcl_memory_backward", TORCH_BOX(&gcl_memory_backward<Backend>));
  m.impl("bank_draw_positives", TORCH_BOX(&draw_positives<Backend>));
}

}  // namespace gcl
