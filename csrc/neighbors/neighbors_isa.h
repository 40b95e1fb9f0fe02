// Loops over long contiguous runs, compiled for each instruction set (common/isa.h).
#pragma once

#include <cstdint>

#include "common/halves.h"
#include "common/isa.h"

#define GCL_DECLARE_NEAR(B, T, suffix)                                                                                     \
  /* numbers n below size with not(value[n] - penalty[n] < threshold), ascending; penalty may be null; returns how many */ \
  int64_t near_in_row_##suffix(const B* value, const T* penalty, T threshold, int64_t size, int32_t* near);                \
  /* the same with a threshold for each */                                                                                 \
  int64_t near_in_column_##suffix(const B* value, T penalty, const T* threshold, int64_t size, int32_t* near);

#define GCL_DECLARE_NEIGHBORS(isa)                                                    \
  namespace isa {                                                                     \
  /* a . b, in the same order of additions on every processor (fma may round once) */ \
  float dot_f32(const float* a, const float* b, int64_t size);                        \
  double dot_f64(const double* a, const double* b, int64_t size);                     \
  GCL_DECLARE_NEAR(float, float, f32)                                                 \
  GCL_DECLARE_NEAR(double, double, f64)                                               \
  GCL_DECLARE_NEAR(BFloat16, float, bf16)                                             \
  }

namespace gcl {
GCL_EACH_ISA(GCL_DECLARE_NEIGHBORS)

#if !defined(GCL_ISA)  // not in what is compiled for one processor
// By type, for the processor that runs.
inline float dot(const float* a, const float* b, int64_t size) { return GCL_PICK(dot_f32)(a, b, size); }
inline double dot(const double* a, const double* b, int64_t size) { return GCL_PICK(dot_f64)(a, b, size); }
#define GCL_BY_TYPE(B, T, suffix)                                                                             \
  inline int64_t near_in_row(const B* value, const T* penalty, T threshold, int64_t size, int32_t* near) {    \
    return GCL_PICK(near_in_row_##suffix)(value, penalty, threshold, size, near);                             \
  }                                                                                                           \
  inline int64_t near_in_column(const B* value, T penalty, const T* threshold, int64_t size, int32_t* near) { \
    return GCL_PICK(near_in_column_##suffix)(value, penalty, threshold, size, near);                          \
  }
GCL_BY_TYPE(float, float, f32)
GCL_BY_TYPE(double, double, f64)
GCL_BY_TYPE(BFloat16, float, bf16)
#undef GCL_BY_TYPE
#endif

}  // namespace gcl
