// What counts in a ranking, once for host and device.
#pragma once

#include "common/device.h"

namespace gcl {

constexpr int64_t kJunk = -1;  // person number of gallery images that are never ranked

GCL_HD bool is_ignored(int64_t pid, int64_t camid, int64_t query_pid, int64_t query_camid) {
  return pid == kJunk || (pid == query_pid && camid == query_camid);
}

// Whether gallery image `a` comes before image `b`: nearer, on a tie the lower row.
template <class T>
GCL_HD bool ranks_before(T distance_a, int64_t a, T distance_b, int64_t b) {
  return distance_a < distance_b || (distance_a == distance_b && a < b);
}

// Average precision is the mean over the matches, taken in the order of `order`, of the precision at each: matches up to
// and with this one, over its rank. Both sides add in that order, so they agree bit for bit.
struct Score {
  double sum = 0;
  int64_t matches = 0, first = 0, last = 0;
};

GCL_HD void add_match(Score* score, int64_t matches_so_far, int64_t rank) {
  score->sum += static_cast<double>(matches_so_far) / static_cast<double>(rank);
  score->matches += 1;
  score->first = score->first == 0 ? rank : minimum(score->first, rank);
  score->last = maximum(score->last, rank);
}

GCL_HD void write_score(const Score& score, double* precision, int64_t places[3]) {
  *precision = score.matches > 0 ? score.sum / static_cast<double>(score.matches) : 0.0;
  places[0] = score.matches;
  places[1] = score.first;
  places[2] = score.last;
}

}  // namespace gcl
