// Numbers as they are stored, 16 bits of them too: `Half` and `BFloat16` hold the bits, so that no compiler needs a type of its
// own.
#pragma once

#include "common/device.h"

namespace gcl {

struct Half {
  uint16_t bits;
};
struct BFloat16 {
  uint16_t bits;
};

GCL_HD float from_bits(uint32_t bits) {
  float x;
  memcpy(&x, &bits, sizeof x);
  return x;
}
GCL_HD uint32_t to_bits(float x) {
  uint32_t bits;
  memcpy(&bits, &x, sizeof x);
  return bits;
}

GCL_HD float widen(float x) { return x; }
GCL_HD double widen(double x) { return x; }
GCL_HD float widen(BFloat16 x) { return from_bits(static_cast<uint32_t>(x.bits) << 16); }
GCL_HD float widen(Half x) {
#if defined(__CUDA_ARCH__)
  float wide;
  asm("cvt.f32.f16 %0, %1;" : "=f"(wide) : "h"(x.bits));
  return wide;
#else
  const uint32_t magnitude = static_cast<uint32_t>(x.bits & 0x7fff) << 13, sign = static_cast<uint32_t>(x.bits & 0x8000) << 16;
  if ((x.bits & 0x7c00) == 0x7c00) return from_bits(magnitude | 0x7f800000u | sign);
  return from_bits(to_bits(from_bits(magnitude) * from_bits(0x77800000u)) | sign);  // times 2^112: the exponents' bias
#endif
}

// Rounds to nearest, ties to even.
GCL_HD void narrow(double x, double* to) { *to = x; }
GCL_HD void narrow(double x, float* to) { *to = static_cast<float>(x); }
GCL_HD void narrow(double wide, BFloat16* to) {
  const uint32_t bits = to_bits(static_cast<float>(wide));
  const bool nan = (bits & 0x7fffffffu) > 0x7f800000u;
  to->bits = static_cast<uint16_t>(nan ? 0x7fc0u : (bits + 0x7fffu + (bits >> 16 & 1u)) >> 16);
}
GCL_HD void narrow(double wide, Half* to) {
  const float x = static_cast<float>(wide);
  const uint32_t sign = to_bits(x) >> 16 & 0x8000u, bits = to_bits(x) & 0x7fffffffu;
  uint32_t half;
  if (bits > 0x7f800000u) half = 0x7e00u;
  else if (bits >= 0x477ff000u) half = 0x7c00u;  // from 65520 on: infinity
  else if (bits < 0x38800000u) half = static_cast<uint32_t>(round_even(from_bits(bits) * 16777216.0f));  // below 2^-14
  else half = (bits - 0x38000000u + 0xfffu + (bits >> 13 & 1u)) >> 13;
  to->bits = static_cast<uint16_t>(half | sign);
}

}  // namespace gcl
