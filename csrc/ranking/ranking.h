// Parameters of ranking_scores. T is float or double; every array is contiguous.
#pragma once

#include <cstdint>

namespace gcl {

template <class T>
struct RankingParams {
  const T* distances;            // [Q, G]  smaller ranks first, no NaN
  const int64_t* query_pids;     // [Q]
  const int64_t* gallery_pids;   // [G]     -1: junk
  const int64_t* query_camids;   // [Q]
  const int64_t* gallery_camids;  // [G]
  // Gallery rows sorted by person, ties by row; query q's person has order[begin[q]] and on, before order[end[q]].
  const int64_t* order;  // [G]
  const int64_t* begin;  // [Q]
  const int64_t* end;    // [Q]
  int64_t num_query;
  int64_t num_gallery;  // below 2^31
  double* precision;    // [Q]     average precision, 0 without a match
  int64_t* places;      // [Q, 3]  number of matches, rank of the first and of the last (0 without), from 1
};

}  // namespace gcl
