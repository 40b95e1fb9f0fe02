#include "common/simd.h"
#include "neighbors/neighbors_isa.h"

namespace gcl {
namespace GCL_ISA {
namespace {

constexpr int64_t kRun = 64;  // values looked at before asking whether there was one

// The comparison is "not less", so that NaN is seen too.
template <class Below>
inline int64_t next(int64_t from, int64_t to, Below below) {
  int64_t n = from;
  for (; n + kRun <= to; n += kRun) {
    int32_t hits = 0;
    for (int64_t i = n; i < n + kRun; ++i) hits += !below(i);
    if (hits != 0) break;
  }
  while (n < to && below(n)) ++n;
  return n;
}

template <class T>
inline int64_t row(const T* value, const T* penalty, T threshold, int64_t from, int64_t to) {
  if (penalty == nullptr) return next(from, to, [=](int64_t i) { return value[i] < threshold; });
  return next(from, to, [=](int64_t i) { return value[i] - penalty[i] < threshold; });
}

template <class T>
inline int64_t column(const T* value, T penalty, const T* threshold, int64_t from, int64_t to) {
  if (penalty == T(0)) return next(from, to, [=](int64_t i) { return value[i] < threshold[i]; });
  return next(from, to, [=](int64_t i) { return value[i] - penalty < threshold[i]; });
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

int64_t next_in_row_f32(const float* value, const float* penalty, float threshold, int64_t from, int64_t to) {
  return row(value, penalty, threshold, from, to);
}
int64_t next_in_row_f64(const double* value, const double* penalty, double threshold, int64_t from, int64_t to) {
  return row(value, penalty, threshold, from, to);
}
int64_t next_in_column_f32(const float* value, float penalty, const float* threshold, int64_t from, int64_t to) {
  return column(value, penalty, threshold, from, to);
}
int64_t next_in_column_f64(const double* value, double penalty, const double* threshold, int64_t from, int64_t to) {
  return column(value, penalty, threshold, from, to);
}

}  // namespace GCL_ISA
}  // namespace gcl
