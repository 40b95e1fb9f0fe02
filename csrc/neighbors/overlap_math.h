// What two rows share, and how little it may be, for host and device.
#pragma once

#include "common/device.h"
#include "neighbors/overlap.h"

namespace gcl {

// d = 1 - m / (2 - m)
template <class T>
GCL_HD T jaccard_of(T shared) {
  return maximum(T(1) - shared / (T(2) - shared), T(0));
}

// No pair with a computed distance of at most max_distance shares less, exactly or as a sum of `terms` rounded additions; 0
// where there is no such bound. d <= e means m >= 2 (1 - e) / (2 - e), and m changes at most twice as fast as d; a sum of n terms
// that is at most about 1 is off by n half epsilons, d by a few.
template <class T>
GCL_HD double least_shared(double max_distance, int64_t terms) {
  constexpr double kEpsilon = sizeof(T) == 4 ? 1.1920928955078125e-7 : 2.220446049250313e-16;
  if (!(max_distance < 1)) return 0;
  const double least = 2 * (1 - max_distance) / (2 - max_distance) - 2 * kEpsilon * static_cast<double>(terms + 16);
  return maximum(least, 0.0);
}

// Row i shares m(i, j) with row j. All its m together are at most sum_n V[i, n] * holders(n), so few of them can be large.
template <class T>
GCL_HD int64_t room_of_row(const RoomParams<T>& p, int64_t i) {
  int64_t terms = 0;
  double together = 0;
  for (int64_t e = p.start[i]; e < p.start[i + 1]; ++e) {
    const int64_t n = p.columns[e], holders = p.holder_start[n + 1] - p.holder_start[n];
    terms += holders;
    together += static_cast<double>(p.values[e]) * static_cast<double>(holders);
  }
  const int64_t sharing = minimum(terms, p.rows);
  const double least = least_shared<T>(p.max_distance, p.start[i + 1] - p.start[i]);
  if (!(least > 0)) return sharing;
  const double near = together / least * (1 + 1e-9) + 2;  // and itself
  return near >= 0 && near < static_cast<double>(sharing) ? static_cast<int64_t>(near) : sharing;
}

}  // namespace gcl
