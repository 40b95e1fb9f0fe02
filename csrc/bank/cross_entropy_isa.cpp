#include <cmath>

#include "bank/bank_vector.h"
#include "bank/cross_entropy.h"

namespace gcl {
namespace GCL_ISA {
namespace {

constexpr float kNothing = -__builtin_inff();  // a logit that weighs nothing

// f(from, register) for each register of a row of logits, read and written: sixteen lanes together, whatever a register has, so
// that sums are the same everywhere. Lanes past the end read `rest`.
template <class F>
inline void for_each_register(float* logits, int64_t count, float rest, F&& f) {
  int64_t n = 0;
  for (; n + kLanes <= count; n += kLanes) {
    for (int v = 0; v < kRegs; ++v) store_reg(logits + n + v * kWidth, f(load_reg(logits + n + v * kWidth), v));
  }
  if (n == count) return;
  float tail[kLanes];
  for (int l = 0; l < kLanes; ++l) tail[l] = n + l < count ? logits[n + l] : rest;
  for (int v = 0; v < kRegs; ++v) store_reg(tail + v * kWidth, f(load_reg(tail + v * kWidth), v));
  for (int l = 0; n + l < count; ++l) logits[n + l] = tail[l];
}

}  // namespace

float cross_entropy_row(const CrossEntropyRow<float>& p) {
  const Reg temperature = splat_reg(p.temperature);
  Reg top[kRegs], total[kRegs];
  for (int v = 0; v < kRegs; ++v) top[v] = splat_reg(kNothing), total[v] = splat_reg(0.0f);
  for_each_register(p.logits, p.count, kNothing, [&](Reg x, int v) {
    const Reg logit = x / temperature;
    top[v] = max_reg(logit, top[v]);  // NaN is passed over: the sum has it
    return logit;
  });
  float lanes[kLanes];
  for (int v = 0; v < kRegs; ++v) store_reg(lanes + v * kWidth, top[v]);
  float largest = kNothing;
  for (const float lane : lanes) largest = lane > largest ? lane : largest;
  const float target = p.logits[p.target] - largest;
  const Reg shift = splat_reg(largest);
  for_each_register(p.logits, p.count, kNothing, [&](Reg x, int v) {
    const Reg below = x - shift, weight = below < splat_reg(-87.0f) ? splat_reg(0.0f) : exp_not_positive(below);
    total[v] += weight;
    return weight;
  });
  const float sum_of_all = sum(total);
  if (p.with_grad) {
    const Reg scale = splat_reg(p.scale / sum_of_all);
    for_each_register(p.logits, p.count, 0.0f, [&](Reg x, int) { return x * scale; });
    p.logits[p.target] -= p.scale;
  }
  return static_cast<float>(::log(static_cast<double>(sum_of_all))) - target;
}

}  // namespace GCL_ISA
}  // namespace gcl
