// Registers of the instruction set at hand, for sources that are compiled for each (common/isa.h), and sixteen lanes in as many
// of them as it takes: so a loop has the same lanes, and sums in the same order, on every processor. (A vector type of the
// compiler that is wider than a register passes through memory at every step.) fma_reg() alone rounds once where the processor
// can and twice in the baseline. Bit k of not_less(a, b): not(a[k] < b[k]), as where one is NaN.
#pragma once

#include <cstdint>
#include <cstring>

#if defined(__AVX2__)
#include <immintrin.h>
#endif

namespace gcl {
namespace GCL_ISA {

constexpr int kLanes = 16;

template <class V, class T>
inline V load(const T* from) {
  V v;
  std::memcpy(&v, from, sizeof v);
  return v;
}

template <class V, class T>
inline void store(T* to, V v) {
  std::memcpy(to, &v, sizeof v);
}

#if defined(__AVX512F__)
constexpr int kWidth = 16;
typedef __m512 Reg;
inline Reg load_reg(const float* from) { return _mm512_loadu_ps(from); }
inline void store_reg(float* to, Reg x) { _mm512_storeu_ps(to, x); }
inline Reg splat_reg(float x) { return _mm512_set1_ps(x); }
inline Reg fma_reg(Reg a, Reg b, Reg c) { return _mm512_fmadd_ps(a, b, c); }
inline Reg widen_bfloat16(const uint16_t* from) {
  const __m512i wide = _mm512_maskz_cvtepu16_epi32(0xffff, _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from)));
  return (Reg)_mm512_maskz_slli_epi32(0xffff, wide, 16);
}
inline uint32_t not_less(Reg a, Reg b) { return _mm512_cmp_ps_mask(a, b, _CMP_NLT_UQ); }
#elif defined(__AVX2__) && defined(__FMA__)
constexpr int kWidth = 8;
typedef __m256 Reg;
inline Reg load_reg(const float* from) { return _mm256_loadu_ps(from); }
inline void store_reg(float* to, Reg x) { _mm256_storeu_ps(to, x); }
inline Reg splat_reg(float x) { return _mm256_set1_ps(x); }
inline Reg fma_reg(Reg a, Reg b, Reg c) { return _mm256_fmadd_ps(a, b, c); }
inline Reg widen_bfloat16(const uint16_t* from) {
  return (Reg)_mm256_slli_epi32(_mm256_cvtepu16_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from))), 16);
}
inline uint32_t not_less(Reg a, Reg b) { return static_cast<uint32_t>(_mm256_movemask_ps(_mm256_cmp_ps(a, b, _CMP_NLT_UQ))); }
#else
constexpr int kWidth = 4;
typedef float Reg __attribute__((vector_size(16)));
inline Reg load_reg(const float* from) { return load<Reg>(from); }
inline void store_reg(float* to, Reg x) { store(to, x); }
inline Reg splat_reg(float x) { return Reg{x, x, x, x}; }
inline Reg fma_reg(Reg a, Reg b, Reg c) { return a * b + c; }
inline Reg widen_bfloat16(const uint16_t* from) {
  typedef uint32_t Bits __attribute__((vector_size(4 * kWidth)));
  Bits bits;
  for (int k = 0; k < kWidth; ++k) bits[k] = static_cast<uint32_t>(from[k]) << 16;
  return (Reg)bits;
}
inline uint32_t not_less(Reg a, Reg b) {
  uint32_t bits = 0;
  for (int k = 0; k < kWidth; ++k) bits |= static_cast<uint32_t>(!(a[k] < b[k])) << k;
  return bits;
}
#endif
constexpr int kRegs = kLanes / kWidth;
typedef int32_t IReg __attribute__((vector_size(4 * kWidth)));
typedef uint32_t UReg __attribute__((vector_size(4 * kWidth)));

// Sum of sixteen lanes, always in the same order.
inline float sum(const Reg lanes[kRegs]) {
  float v[kLanes];
  for (int r = 0; r < kRegs; ++r) store_reg(v + r * kWidth, lanes[r]);
  for (int width = kLanes / 2; width > 0; width /= 2) {
    for (int i = 0; i < width; ++i) v[i] += v[i + width];
  }
  return v[0];
}

}  // namespace GCL_ISA
}  // namespace gcl
