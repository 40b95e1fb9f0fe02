// CPU backend of the candidates. Rows in parallel.
#include <algorithm>
#include <numeric>
#include <vector>

#include "common/cpu_backend.h"
#include "neighbors/candidates_math.h"
#include "neighbors/candidates_ops.h"
#include "neighbors/neighbors_isa.h"

namespace gcl {
namespace {

constexpr int64_t kGrain = 16;  // rows

struct CandidatesCpu : CpuBackend {
  template <class B>
  void halve(const HalvesParams<B>& p) const {
    torch::stable::parallel_for(0, p.rows, kGrain, [&](int64_t begin, int64_t end) {
      std::vector<float> centred(p.dim), off(p.dim);
      for (int64_t i = begin; i < end; ++i) {
        const float* x = p.x + i * p.dim;
        B* half = p.half + i * p.dim;
        for (int64_t d = 0; d < p.dim; ++d) {
          centred[d] = x[d] - p.mean[d];
          narrow_on(centred[d], half + d);
          off[d] = centred[d] - widen(half[d]);
        }
        p.common[i] = dot(x, p.mean, p.dim);
        p.length[i] = std::sqrt(dot(centred.data(), centred.data(), p.dim));
        p.lost[i] = std::sqrt(dot(off.data(), off.data(), p.dim));
      }
    });
  }

  void products(const CandidateParams& p) const {
    in_parallel(p.count, kGrain, [&](int64_t r) {
      const float* x = p.x + (p.rows == nullptr ? r : p.rows[r]) * p.dim;
      const float least = least_score(p, r);
      for (int64_t c = 0; c < p.width; ++c) {
        const int64_t n = r * p.width + c;
        p.product[n] = is_kept(p, r, c, least) ? dot(x, p.x + p.index[n] * p.dim, p.dim) : kPassedOver;
      }
    });
  }

  void best(const BestParams& p) const {
    torch::stable::parallel_for(0, p.count, kGrain, [&](int64_t begin, int64_t end) {
      std::vector<int64_t> order(p.width);
      std::vector<float> product(p.width);
      for (int64_t r = begin; r < end; ++r) {
        for (int64_t c = 0; c < p.width; ++c) product[c] = product_of(p, r, c);
        const int64_t* index = p.index + r * p.width;
        std::iota(order.begin(), order.end(), int64_t{0});
        std::sort(order.begin() + 1, order.end(),
                  [&](int64_t a, int64_t b) { return comes_before(product[a], index[a], product[b], index[b]); });
        for (int64_t n = 0; n < p.k; ++n) {
          p.value[r * p.k + n] = product[order[n]];
          p.neighbour[r * p.k + n] = index[order[n]];
        }
        bool unsure = may_lack(p, r, product[order[p.k - 1]]);
        for (int64_t c = 0; c < p.width; ++c) unsure = unsure || is_beyond(p, r, c);
        p.unsure[r] = unsure;
      }
    });
  }
};

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(gcl_fast, CPU, m) { register_candidates<CandidatesCpu>(m); }

}  // namespace gcl
