#include "common/simd.h"
#include "neighbors/neighbors_isa.h"

namespace gcl {
namespace GCL_ISA {
namespace {

// One number in the place of many.
template <class T>
struct Same {
  T x;
  T operator[](int64_t) const { return x; }
};
inline Reg lanes(const float* x, int64_t n) { return load_reg(x + n); }
inline Reg lanes(const BFloat16* x, int64_t n) { return widen_bfloat16(&x[n].bits); }
inline Reg lanes(Same<float> same, int64_t) { return splat_reg(same.x); }

// Bit i: number n + i is near, of kTogether<B> numbers. The comparison is "not less", so that NaN is seen too.
template <class B>
constexpr int kTogether = kWidth;
template <>
constexpr int kTogether<double> = 8;
template <class B, class Taken, class Limit>
inline uint32_t near_lanes(const B* value, Taken taken, Limit limit, int64_t n) {
  return not_less(lanes(value, n) - lanes(taken, n), lanes(limit, n));
}
template <class Taken, class Limit>
inline uint32_t near_lanes(const double* value, Taken taken, Limit limit, int64_t n) {
  uint32_t bits = 0;
  for (int i = 0; i < kTogether<double>; ++i) {
    bits |= static_cast<uint32_t>(!(value[n + i] - taken[n + i] < limit[n + i])) << i;
  }
  return bits;
}

template <class B, class Taken, class Limit>
inline int64_t list_near(const B* value, Taken taken, Limit limit, int64_t size, int32_t* near) {
  constexpr int kWide = kTogether<B>;
  int32_t* to = near;
  int64_t n = 0;
  for (; n + 4 * kWide <= size; n += 4 * kWide) {
    uint32_t found[4];
    for (int r = 0; r < 4; ++r) found[r] = near_lanes(value, taken, limit, n + r * kWide);
    if (__builtin_expect((found[0] | found[1] | found[2] | found[3]) == 0, 1)) continue;
    for (int r = 0; r < 4; ++r) {
      for (uint32_t bits = found[r]; bits != 0; bits &= bits - 1) {
        *to++ = static_cast<int32_t>(n) + r * kWide + __builtin_ctz(bits);
      }
    }
  }
  for (; n < size; ++n) {
    if (!(widen(value[n]) - taken[n] < limit[n])) *to++ = static_cast<int32_t>(n);
  }
  return to - near;
}

template <class B, class T>
inline int64_t in_row(const B* value, const T* penalty, T threshold, int64_t size, int32_t* near) {
  if (penalty == nullptr) return list_near(value, Same<T>{0}, Same<T>{threshold}, size, near);
  return list_near(value, penalty, Same<T>{threshold}, size, near);
}

}  // namespace

float dot_f32(const float* a, const float* b, int64_t size) {
  Reg sums[2][kRegs];
  for (int h = 0; h < 2; ++h) {
    for (int r = 0; r < kRegs; ++r) sums[h][r] = splat_reg(0.0f);
  }
  int64_t n = 0;
  for (; n + 2 * kLanes <= size; n += 2 * kLanes) {
    for (int h = 0; h < 2; ++h) {
      for (int r = 0; r < kRegs; ++r) {
        const int64_t at = n + h * kLanes + r * kWidth;
        sums[h][r] = fma_reg(load_reg(a + at), load_reg(b + at), sums[h][r]);
      }
    }
  }
  float rest = 0;
  for (; n < size; ++n) rest += a[n] * b[n];
  for (int r = 0; r < kRegs; ++r) sums[0][r] += sums[1][r];
  return sum(sums[0]) + rest;
}

double dot_f64(const double* a, const double* b, int64_t size) {
  double sums[8] = {}, rest = 0;
  int64_t n = 0;
  for (; n + 8 <= size; n += 8) {
    for (int l = 0; l < 8; ++l) sums[l] += a[n + l] * b[n + l];
  }
  for (; n < size; ++n) rest += a[n] * b[n];
  return ((sums[0] + sums[4]) + (sums[1] + sums[5])) + ((sums[2] + sums[6]) + (sums[3] + sums[7])) + rest;
}

#define GCL_NEAR(B, T, suffix)                                                                                  \
  int64_t near_in_row_##suffix(const B* value, const T* penalty, T threshold, int64_t size, int32_t* near) {    \
    return in_row(value, penalty, threshold, size, near);                                                       \
  }                                                                                                             \
  int64_t near_in_column_##suffix(const B* value, T penalty, const T* threshold, int64_t size, int32_t* near) { \
    return list_near(value, Same<T>{penalty}, threshold, size, near);                                           \
  }
GCL_NEAR(float, float, f32)
GCL_NEAR(double, double, f64)
GCL_NEAR(BFloat16, float, bf16)
#undef GCL_NEAR

}  // namespace GCL_ISA
}  // namespace gcl
