// Loops over long contiguous runs, compiled for each instruction set (common/isa.h).
#pragma once

#include <cstdint>

#include "common/isa.h"

#define GCL_DECLARE_NEIGHBORS(isa)                                                                                         \
  namespace isa {                                                                                                          \
  /* a . b, in the same order of additions on every processor (fma may round once) */                                      \
  float dot_f32(const float* a, const float* b, int64_t size);                                                             \
  double dot_f64(const double* a, const double* b, int64_t size);                                                          \
  /* numbers n below size with not(value[n] - penalty[n] < threshold), ascending; penalty may be null; returns how many */ \
  int64_t near_in_row_f32(const float* value, const float* penalty, float threshold, int64_t size, int32_t* near);         \
  int64_t near_in_row_f64(const double* value, const double* penalty, double threshold, int64_t size, int32_t* near);      \
  /* the same with a threshold for each */                                                                                 \
  int64_t near_in_column_f32(const float* value, float penalty, const float* threshold, int64_t size, int32_t* near);      \
  int64_t near_in_column_f64(const double* value, double penalty, const double* threshold, int64_t size, int32_t* near);   \
  }

namespace gcl {
GCL_EACH_ISA(GCL_DECLARE_NEIGHBORS)

#if !defined(GCL_ISA)  // not in what is compiled for one processor
// By type, for the processor that runs.
#define GCL_BY_TYPE(T, suffix)                                                                                \
  inline T dot(const T* a, const T* b, int64_t size) { return GCL_PICK(dot_##suffix)(a, b, size); }           \
  inline int64_t near_in_row(const T* value, const T* penalty, T threshold, int64_t size, int32_t* near) {    \
    return GCL_PICK(near_in_row_##suffix)(value, penalty, threshold, size, near);                             \
  }                                                                                                           \
  inline int64_t near_in_column(const T* value, T penalty, const T* threshold, int64_t size, int32_t* near) { \
    return GCL_PICK(near_in_column_##suffix)(value, penalty, threshold, size, near);                          \
  }
GCL_BY_TYPE(float, f32)
GCL_BY_TYPE(double, f64)
#undef GCL_BY_TYPE
#endif

}  // namespace gcl
