// CPU backend of the walk: one neighbour after the other. Rows that ask in parallel.
#include "common/cpu_backend.h"
#include "neighbors/walk_math.h"
#include "neighbors/walk_ops.h"

namespace gcl {
namespace {

// a . b, with the CUDA kernel's order of sums.
template <class T>
T product(const T* a, const T* b, int64_t dim) {
  T sum = 0;
  for (int64_t d0 = 0; d0 < dim; d0 += kWalkPart) {
    T part = 0;
    for (int64_t d = d0; d < minimum(d0 + kWalkPart, dim); ++d) part += a[d] * b[d];
    sum += part;
  }
  return sum;
}

struct WalkCpu : CpuBackend {
  template <class T>
  void walk(const WalkParams<T>& p, const Tensor&) const {
    in_parallel(p.batch, 1, [&](int64_t b) {
      const int64_t q = p.index[b];
      int64_t place = 1;
      for (; place < minimum(p.near[b], p.total); ++place) {
        const int64_t c = p.order[b * p.total + place];
        const T* row = p.bank + c * p.dim;
        const T own = product(row, p.bank + q * p.dim, p.dim);
        int64_t before = 0;
        for (int64_t n = 0; n < p.total; ++n) {
          before += n != c && n != q && comes_before(product(row, p.bank + n * p.dim, p.dim), n, own, q);
        }
        if (!is_held(before, p.reach[b])) break;
      }
      p.steps[b] = place - 1;  // 0 also where near is 0
    });
  }
};

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(gcl_fast, CPU, m) { register_walk<WalkCpu>(m); }

}  // namespace gcl
