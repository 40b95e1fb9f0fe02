// What the bank's loops compute with the registers of common/simd.h: masks, and e^x.
#pragma once

#include "common/simd.h"

namespace gcl {
namespace GCL_ISA {

// The larger of two, lane by lane; b where one is NaN.
inline Reg max_reg(Reg a, Reg b) { return a > b ? a : b; }

inline bool any(IReg mask) {
  int64_t word[kWidth / 2], bits = 0;
  std::memcpy(word, &mask, sizeof mask);
  for (int i = 0; i < kWidth / 2; ++i) bits |= word[i];
  return bits != 0;
}

// e^x for x at most 0 (NaN stays NaN): 2^n times a polynomial (Taylor's, degree 7) on [-ln 2 / 2, ln 2 / 2], within 2 units
// in the last place; below -87 it is e^-87, which no sum that holds e^0 can feel.
inline Reg exp_not_positive(Reg x) {
  x = max_reg(splat_reg(-87.0f), x);
  const Reg magic = splat_reg(12582912.0f);  // 1.5 * 2^23: adding it rounds to an integer in the low bits
  const Reg shifted = fma_reg(x, splat_reg(1.44269504f), magic);
  const Reg n = shifted - magic;
  Reg r = fma_reg(n, splat_reg(-0.693359375f), x);
  r = fma_reg(n, splat_reg(2.12194440e-4f), r);
  Reg y = splat_reg(1.0f / 5040);
  y = fma_reg(y, r, splat_reg(1.0f / 720));
  y = fma_reg(y, r, splat_reg(1.0f / 120));
  y = fma_reg(y, r, splat_reg(1.0f / 24));
  y = fma_reg(y, r, splat_reg(1.0f / 6));
  y = fma_reg(y, r, splat_reg(0.5f));
  y = fma_reg(y, r, splat_reg(1.0f));
  y = fma_reg(y, r, splat_reg(1.0f));
  const IReg scale = ((IReg)shifted - (IReg)magic + 127) << 23;
  return y * (Reg)scale;
}

}  // namespace GCL_ISA
}  // namespace gcl
