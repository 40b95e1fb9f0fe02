// CPU backend of cross_entropy_rows_. On CUDA torch's own operations serve.
#include <cmath>
#include <vector>

#include "bank/bank_tensors.h"
#include "bank/cross_entropy.h"
#include "common/cpu_backend.h"

namespace gcl {
namespace {

constexpr int64_t kGrain = 1 << 15;  // logits of a thread at least

float loss_of_row(const CrossEntropyRow<float>& p) { return GCL_PICK(cross_entropy_row)(p); }

double loss_of_row(const CrossEntropyRow<double>& p) {
  double top = -INFINITY, sum = 0;
  for (int64_t n = 0; n < p.count; ++n) {
    p.logits[n] /= p.temperature;
    top = p.logits[n] > top ? p.logits[n] : top;
  }
  const double target = p.logits[p.target] - top;
  for (int64_t n = 0; n < p.count; ++n) sum += p.logits[n] = std::exp(p.logits[n] - top);
  if (p.with_grad) {
    for (int64_t n = 0; n < p.count; ++n) p.logits[n] *= p.scale / sum;
    p.logits[p.target] -= p.scale;
  }
  return std::log(sum) - target;
}

// The mean cross-entropy; the logits become its gradient to (logits / temperature), over the temperature.
Tensor cross_entropy_rows(Tensor logits, Tensor targets, double temperature, bool with_grad) {
  const char* op = "cross_entropy_rows_";
  STD_TORCH_CHECK(logits.dim() == 2 && logits.is_contiguous(), op, ": logits must be [B, C], contiguous");
  STD_TORCH_CHECK(is_float(logits) || is_double(logits), op, ": logits must be float32 or float64");
  const int64_t batch = logits.size(0), count = logits.size(1);
  STD_TORCH_CHECK(targets.dim() == 1 && targets.size(0) == batch && is_int64(targets), op, ": targets must be int64 [B=", batch,
                  "], as logits have rows");
  const Tensor rows = torch::stable::contiguous(targets);
  const int64_t* target = rows.const_data_ptr<int64_t>();
  check_rows(op, "targets", rows, count);
  Tensor loss = new_empty(logits, {});
  dispatch_real(logits, [&](auto real) {
    using T = decltype(real);
    T* from = logits.mutable_data_ptr<T>();
    std::vector<T> each(batch);
    in_parallel(batch, (kGrain + count - 1) / (count > 0 ? count : 1), [&](int64_t b) {
      each[b] = loss_of_row(CrossEntropyRow<T>{.logits = from + b * count,
                                               .count = count,
                                               .target = target[b],
                                               .temperature = static_cast<T>(temperature),
                                               .scale = static_cast<T>(1 / (temperature * static_cast<double>(batch))),
                                               .with_grad = with_grad});
    });
    double total = 0;
    for (const T one : each) total += one;
    *loss.mutable_data_ptr<T>() = static_cast<T>(total / static_cast<double>(batch));
  });
  return loss;
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(gcl_fast, CPU, m) { m.impl("cross_entropy_rows_", TORCH_BOX(&cross_entropy_rows)); }

}  // namespace gcl
