// Registers of the instruction set at hand, for the products of the sweep; common/simd.h has the sixteen lanes of the rest.
#pragma once

#include "common/simd.h"

namespace gcl {
namespace GCL_ISA {

#if defined(__AVX512F__)
constexpr int kWidth = 16;
typedef __m512 Reg;
inline Reg load_reg(const float* from) { return _mm512_loadu_ps(from); }
inline void store_reg(float* to, Reg x) { _mm512_storeu_ps(to, x); }
inline Reg splat_reg(float x) { return _mm512_set1_ps(x); }
inline Reg fma_reg(Reg a, Reg b, Reg c) { return _mm512_fmadd_ps(a, b, c); }
#elif defined(__AVX2__) && defined(__FMA__)
constexpr int kWidth = 8;
typedef __m256 Reg;
inline Reg load_reg(const float* from) { return _mm256_loadu_ps(from); }
inline void store_reg(float* to, Reg x) { _mm256_storeu_ps(to, x); }
inline Reg splat_reg(float x) { return _mm256_set1_ps(x); }
inline Reg fma_reg(Reg a, Reg b, Reg c) { return _mm256_fmadd_ps(a, b, c); }
#else
constexpr int kWidth = 4;
typedef float Reg __attribute__((vector_size(16)));
inline Reg load_reg(const float* from) { return load<Reg>(from); }
inline void store_reg(float* to, Reg x) { store(to, x); }
inline Reg splat_reg(float x) { return Reg{x, x, x, x}; }
inline Reg fma_reg(Reg a, Reg b, Reg c) { return a * b + c; }
#endif

typedef uint32_t U32x16 __attribute__((vector_size(64)));

inline U32x16 splat_bits(uint32_t x) { return U32x16{} + x; }

inline bool any(I32x16 mask) {
  int64_t word[8], bits = 0;
  std::memcpy(word, &mask, sizeof mask);
  for (int i = 0; i < 8; ++i) bits |= word[i];
  return bits != 0;
}

// e^x for x at most 0 (NaN stays NaN): 2^n times a polynomial (Taylor's, degree 7) on [-ln 2 / 2, ln 2 / 2], within 2 units
// in the last place; below -87 it is e^-87, which no sum that holds e^0 can feel.
inline F32x16 exp_not_positive(F32x16 x) {
  x = x < -87.0f ? splat(-87.0f) : x;
  const F32x16 magic = splat(12582912.0f);  // 1.5 * 2^23: adding it rounds to an integer in the low bits
  const F32x16 shifted = fma(x, splat(1.44269504f), magic);
  const F32x16 n = shifted - magic;
  F32x16 r = fma(n, splat(-0.693359375f), x);
  r = fma(n, splat(2.12194440e-4f), r);
  F32x16 y = splat(1.0f / 5040);
  y = fma(y, r, splat(1.0f / 720));
  y = fma(y, r, splat(1.0f / 120));
  y = fma(y, r, splat(1.0f / 24));
  y = fma(y, r, splat(1.0f / 6));
  y = fma(y, r, splat(0.5f));
  y = fma(y, r, splat(1.0f));
  y = fma(y, r, splat(1.0f));
  const I32x16 scale = ((I32x16)shifted - (I32x16)magic + 127) << 23;
  return y * (F32x16)scale;
}

}  // namespace GCL_ISA
}  // namespace gcl
