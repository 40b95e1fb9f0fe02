// As many lanes as a register has (common/simd.h), and the moves that the sweep needs of them:
// corners of several triangles side by side, lanes picked by number, lanes pressed together.
#pragma once

#include <cstdint>
#include <cstring>

#include "common/simd.h"
#include "rasterize/rasterize_math.h"

namespace gcl {
namespace GCL_ISA {

constexpr int kWide = kWidth, kWideBits = kWide == 16 ? 4 : kWide == 8 ? 3 : 2;
typedef float Floats __attribute__((vector_size(4 * kWide)));
typedef IReg Ints;
typedef float F32x4 __attribute__((vector_size(16)));
typedef uint8_t Bytes __attribute__((vector_size(kWide)));

constexpr uint32_t kEveryLane = (1u << kWide) - 1;
#if defined(__AVX512F__)
constexpr __mmask16 kAll = 0xffff;  // the unmasked forms make GCC 12 warn of what its own headers leave undefined
#endif

// Numbers of the bits that are set in each byte, lowest first, one a byte.
struct BitNumbers {
  alignas(64) uint8_t of[256][8];
  constexpr BitNumbers() : of{} {
    for (int byte = 0; byte < 256; ++byte) {
      for (int bit = 0, n = 0; bit < 8; ++bit) {
        if ((byte >> bit & 1) != 0) of[byte][n++] = static_cast<uint8_t>(bit);
      }
    }
  }
};
constexpr BitNumbers kBitNumbers;

inline Ints every(int32_t x) { return Ints{} + x; }

// Bit k: lane k is negative.
inline uint32_t negative_lanes(Ints v) {
#if defined(__AVX512F__)
  return _mm512_movepi32_mask((__m512i)v);
#elif defined(__AVX2__)
  return static_cast<uint32_t>(_mm256_movemask_ps((__m256)v));
#elif defined(__SSE2__)
  return static_cast<uint32_t>(__builtin_ia32_movmskps((F32x4)v));
#else
  uint32_t bits = 0;
  for (int k = 0; k < kWide; ++k) bits |= static_cast<uint32_t>(v[k] < 0) << k;
  return bits;
#endif
}

inline Ints widen(Bytes v) {
#if defined(__AVX512F__)
  return (Ints)_mm512_maskz_cvtepu8_epi32(kAll, (__m128i)v);
#elif defined(__AVX2__)
  return (Ints)_mm256_cvtepu8_epi32(_mm_cvtsi64_si128(load<int64_t>(&v)));
#else
  return __builtin_convertvector(v, Ints);
#endif
}

// Nearest integers, ties to even, of numbers that fit.
inline Ints round_to_ints(Floats v) {
#if defined(__AVX512F__)
  return (Ints)_mm512_maskz_cvtps_epi32(kAll, (__m512)v);
#elif defined(__AVX2__)
  return (Ints)_mm256_cvtps_epi32((__m256)v);
#elif defined(__SSE2__)
  return (Ints)__builtin_ia32_cvtps2dq(v);
#else
  Ints out;
  for (int k = 0; k < kWide; ++k) out[k] = static_cast<int32_t>(round_even(v[k]));
  return out;
#endif
}

// Lane number[k] of v, of which the bits above the lanes are ignored.
inline Floats pick(Floats v, Ints number) {
#if defined(__AVX512F__)
  return (Floats)_mm512_maskz_permutexvar_ps(kAll, (__m512i)number, (__m512)v);
#elif defined(__AVX2__)
  return (Floats)_mm256_permutevar8x32_ps((__m256)v, (__m256i)number);
#else
  Floats out;
  for (int k = 0; k < kWide; ++k) out[k] = v[number[k] & (kWide - 1)];
  return out;
#endif
}

// Which lanes to press together: made once, used for several vectors.
struct Press {
  uint32_t lanes;
  int count;
#if !defined(__AVX512F__)
  Ints number;
#endif
  explicit Press(uint32_t lanes_) : lanes(lanes_), count(__builtin_popcount(lanes_)) {
#if !defined(__AVX512F__)
    number = widen(load<Bytes>(kBitNumbers.of[lanes_]));
#endif
  }
  // Writes the lanes one after the other; what follows them, to the length of a vector, is spoilt.
  void write(float* to, Floats v) const {
#if defined(__AVX512F__)
    store(to, (Floats)_mm512_maskz_compress_ps(static_cast<__mmask16>(lanes), (__m512)v));
#elif defined(__AVX2__)
    store(to, pick(v, number));
#else
    for (int k = 0; k < kWide; ++k) to[k] = v[number[k]];
#endif
  }
  void write(int32_t* to, Ints v) const { write(reinterpret_cast<float*>(to), (Floats)v); }
};

// x, y, z of corner k of kWide faces, given where each face's vertex numbers stand. corners: [V, 4].
template <class Face>
void load_corners(const float* corners, int k, Face&& face, Floats* x, Floats* y, Floats* z) {
  const auto at = [&](int lane) { return corners + 4 * static_cast<int64_t>(face(lane)[k]); };
#if defined(__AVX512F__)
  // Register j: faces j, j + 4, j + 8, j + 12, a quarter each, so that the unpacks leave the faces in their order.
  __m512 v[4];
  for (int j = 0; j < 4; ++j) {
    v[j] = _mm512_zextps128_ps512(_mm_loadu_ps(at(j)));
    v[j] = _mm512_maskz_insertf32x4(kAll, v[j], _mm_loadu_ps(at(j + 4)), 1);
    v[j] = _mm512_maskz_insertf32x4(kAll, v[j], _mm_loadu_ps(at(j + 8)), 2);
    v[j] = _mm512_maskz_insertf32x4(kAll, v[j], _mm_loadu_ps(at(j + 12)), 3);
  }
  const __m512d xy0 = (__m512d)_mm512_maskz_unpacklo_ps(kAll, v[0], v[1]),
                xy1 = (__m512d)_mm512_maskz_unpacklo_ps(kAll, v[2], v[3]);
  const __m512d z0 = (__m512d)_mm512_maskz_unpackhi_ps(kAll, v[0], v[1]),
                z1 = (__m512d)_mm512_maskz_unpackhi_ps(kAll, v[2], v[3]);
  *x = (Floats)_mm512_maskz_unpacklo_pd(0xff, xy0, xy1);
  *y = (Floats)_mm512_maskz_unpackhi_pd(0xff, xy0, xy1);
  *z = (Floats)_mm512_maskz_unpacklo_pd(0xff, z0, z1);
#elif defined(__AVX2__)
  __m256 v[4];
  for (int j = 0; j < 4; ++j) {
    v[j] = _mm256_insertf128_ps(_mm256_castps128_ps256(_mm_loadu_ps(at(j))), _mm_loadu_ps(at(j + 4)), 1);
  }
  const __m256d xy0 = (__m256d)_mm256_unpacklo_ps(v[0], v[1]), xy1 = (__m256d)_mm256_unpacklo_ps(v[2], v[3]);
  const __m256d z0 = (__m256d)_mm256_unpackhi_ps(v[0], v[1]), z1 = (__m256d)_mm256_unpackhi_ps(v[2], v[3]);
  *x = (Floats)_mm256_unpacklo_pd(xy0, xy1);
  *y = (Floats)_mm256_unpackhi_pd(xy0, xy1);
  *z = (Floats)_mm256_unpacklo_pd(z0, z1);
#else
  *x = *y = *z = Floats{};
  for (int lane = 0; lane < kWide; ++lane) {
    const float* from = at(lane);
    (*x)[lane] = from[0];
    (*y)[lane] = from[1];
    (*z)[lane] = from[2];
  }
#endif
}

}  // namespace GCL_ISA
}  // namespace gcl
