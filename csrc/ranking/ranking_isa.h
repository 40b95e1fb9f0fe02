// The hot loop of the CPU backend, for each instruction set.
#pragma once

#include "common/isa.h"
#include "ranking/ranking.h"

namespace gcl {

// Scores of query q. row [G], rank [matches of the largest person] are scratch; junk [num_junk]: rows of pid -1.
#define GCL_DECLARE(isa)                                                                                             \
  namespace isa {                                                                                                    \
  void rank_query_f32(const RankingParams<float>& p, int64_t q, const int64_t* junk, int64_t num_junk, float* row,   \
                      int64_t* rank);                                                                                \
  void rank_query_f64(const RankingParams<double>& p, int64_t q, const int64_t* junk, int64_t num_junk, double* row, \
                      int64_t* rank);                                                                                \
  }
GCL_EACH_ISA(GCL_DECLARE)
#undef GCL_DECLARE

}  // namespace gcl
