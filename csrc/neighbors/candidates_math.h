// What one candidate's score says, for host and device.
#pragma once

#include <limits>

#include "common/device.h"
#include "common/halves.h"
#include "neighbors/candidates.h"
#include "neighbors/knn_math.h"

namespace gcl {

constexpr float kPassedOver = -std::numeric_limits<float>::infinity();  // in place of a product

// The score below which a candidate of row r is not among its k best: so many have a product of at least the k-th's score less
// the bound, a candidate one of at most its own and the bound. 2.5 for 2: the difference rounds by less than half the bound.
GCL_HD float least_score(const CandidateParams& p, int64_t r) { return p.score[r * p.width + p.k - 1] - 2.5f * p.bound[r]; }

GCL_HD bool is_kept(const CandidateParams& p, int64_t r, int64_t c, float least) {
  return c < p.k || p.score[r * p.width + c] >= least;
}

GCL_HD float product_of(const BestParams& p, int64_t r, int64_t c) { return ordered(p.product[r * p.width + c]); }

// Whether row r needs another search, `last` being the product of its k-th neighbour.
GCL_HD bool is_beyond(const BestParams& p, int64_t r, int64_t c) {
  const float product = product_of(p, r, c), score = p.score[r * p.width + c] + p.offset[r];
  return product != kPassedOver && absolute(product - score) > p.bound[r];
}
GCL_HD bool may_lack(const BestParams& p, int64_t r, float last) {
  return !p.whole && !(last > p.score[r * p.width + p.width - 1] + p.offset[r] + p.bound[r]);
}

GCL_HD void narrow_on(float x, BFloat16* to) { narrow(x, to); }
GCL_HD void narrow_on(float x, Half* to) {
#if defined(__CUDA_ARCH__)
  asm("cvt.rn.f16.f32 %0, %1;" : "=h"(to->bits) : "f"(x));
#else
  narrow(x, to);
#endif
}

}  // namespace gcl
