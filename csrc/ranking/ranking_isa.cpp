// Ranks of a query's matches without a sort: for each match, how many images come before it. The few matches make that one
// sweep over a row in cache for each.
#include "ranking/ranking_isa.h"

#include "ranking/ranking_math.h"

namespace gcl::GCL_ISA {
namespace {

// Images before row[at]; an ignored image is NaN there, which no comparison holds for.
template <class T>
int64_t images_before(const T* row, int64_t size, int64_t at) {
  const T distance = row[at];
  int32_t count = 0;  // sums of a register's width
  for (int64_t i = 0; i < at; ++i) count += row[i] <= distance;
  for (int64_t i = at + 1; i < size; ++i) count += row[i] < distance;
  return count;
}

template <class T>
void rank_one(const RankingParams<T>& p, int64_t q, const int64_t* junk, int64_t num_junk, T* row, int64_t* rank) {
  const T ignored = static_cast<T>(__builtin_nan(""));
  const int64_t begin = p.begin[q], end = p.end[q];
  const bool is_match_possible = p.query_pids[q] != kJunk;
  int64_t matches = 0;
  if (p.num_gallery > 0) std::memcpy(row, p.distances + q * p.num_gallery, sizeof(T) * p.num_gallery);
  for (int64_t i = 0; i < num_junk; ++i) row[junk[i]] = ignored;
  for (int64_t i = begin; i < end; ++i) {
    const int64_t g = p.order[i];
    if (p.gallery_camids[g] == p.query_camids[q]) row[g] = ignored;
  }
  for (int64_t i = begin; i < end && is_match_possible; ++i) {
    const int64_t g = p.order[i];
    if (row[g] == row[g]) rank[matches++] = 1 + images_before(row, p.num_gallery, g);
  }
  Score score;
  for (int64_t m = 0; m < matches; ++m) {
    int64_t matches_so_far = 1;
    for (int64_t other = 0; other < matches; ++other) matches_so_far += rank[other] < rank[m];
    add_match(&score, matches_so_far, rank[m]);
  }
  write_score(score, p.precision + q, p.places + 3 * q);
}

}  // namespace

void rank_query_f32(const RankingParams<float>& p, int64_t q, const int64_t* junk, int64_t num_junk, float* row, int64_t* rank) {
  rank_one(p, q, junk, num_junk, row, rank);
}

void rank_query_f64(const RankingParams<double>& p, int64_t q, const int64_t* junk, int64_t num_junk, double* row,
                    int64_t* rank) {
  rank_one(p, q, junk, num_junk, row, rank);
}

}  // namespace gcl::GCL_ISA
