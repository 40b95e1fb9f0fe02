// CPU backend of ranking_scores: queries in parallel, each with its row of distances in a scratch of its thread.
#include <algorithm>
#include <vector>

#include "common/cpu_backend.h"
#include "ranking/ranking_isa.h"
#include "ranking/ranking_math.h"
#include "ranking/ranking_ops.h"

namespace gcl {
namespace {

// No crash on a wrong table: say so before any thread starts. Returns the longest run.
template <class T>
int64_t check_order(const RankingParams<T>& p) {
  int64_t longest = 0;
  bool fits = true;
  for (int64_t g = 0; g < p.num_gallery; ++g) fits = fits && p.order[g] >= 0 && p.order[g] < p.num_gallery;
  for (int64_t q = 0; q < p.num_query; ++q) {
    fits = fits && p.begin[q] >= 0 && p.end[q] <= p.num_gallery;
    longest = std::max(longest, p.end[q] - p.begin[q]);
  }
  STD_TORCH_CHECK(fits, "ranking_scores: order, begin or end out of range");
  return longest;
}

template <class T, class RankQuery>
void rank_all(const RankingParams<T>& p, RankQuery rank_query) {
  const int64_t longest = check_order(p);
  std::vector<int64_t> junk;
  for (int64_t g = 0; g < p.num_gallery; ++g) {
    if (p.gallery_pids[g] == kJunk) junk.push_back(g);
  }
  torch::stable::parallel_for(0, p.num_query, 16, [&](int64_t begin, int64_t end) {
    std::vector<T> row(p.num_gallery);
    std::vector<int64_t> rank(longest);
    for (int64_t q = begin; q < end; ++q) {
      rank_query(p, q, junk.data(), static_cast<int64_t>(junk.size()), row.data(), rank.data());
    }
  });
}

struct RankingCpu : CpuBackend {
  void scores(const RankingParams<float>& p) const { rank_all(p, GCL_PICK(rank_query_f32)); }
  void scores(const RankingParams<double>& p) const { rank_all(p, GCL_PICK(rank_query_f64)); }
};

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(gcl_fast, CPU, m) { register_ranking<RankingCpu>(m); }

}  // namespace gcl
