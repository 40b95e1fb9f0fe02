// The host form of csrc/common/mma.cuh. A tensor core multiplies exactly, passes over the last 13 bits of its operands and cuts
// its sums (here: towards zero to float32, after each operation). An asynchronous copy happens as late as it may, when its group
// is waited for, so that what is read too early is not there yet.
#pragma once

#include <algorithm>
#include <cmath>
#include <deque>
#include <map>
#include <utility>
#include <vector>

#include "intrinsics.h"

namespace gcl {

inline float cut_to_float(double exact) {
  const float near = static_cast<float>(exact);
  return std::fabs(near) > std::fabs(exact) ? std::nextafterf(near, 0.0f) : near;
}

inline void mma_tf32(float (&sum)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1,
                     simt::Where where = simt::Where::current()) {
  const auto pair = [](uint32_t low, uint32_t high) { return static_cast<uint64_t>(high) << 32 | low; };
  uint64_t seen[3][simt::kWarp];
  const uint64_t given[3] = {pair(a[0], a[1]), pair(a[2], a[3]), pair(b0, b1)};
  for (int i = 0; i < 3; ++i) {
    const simt::Thread& t = simt::warp("mma_tf32", 0xffffffffu, given[i], where);
    for (unsigned lane = 0; lane < simt::kWarp; ++lane) seen[i][lane] = t.seen[lane];
  }
  const auto operand = [](uint64_t two, int which) {
    return static_cast<double>(std::bit_cast<float>(static_cast<uint32_t>(two >> (32 * which)) & 0xffffe000u));
  };
  const unsigned group = simt::lane() / 4, column = simt::lane() % 4 * 2;
  for (unsigned c = 0; c < 4; ++c) {
    double total = sum[c];
    for (unsigned k = 0; k < 8; ++k) {
      const double left = operand(seen[k / 4][group * 4 + k % 4], c / 2);
      total += left * operand(seen[2][(column + c % 2) * 4 + k % 4], k / 4);
    }
    sum[c] = cut_to_float(total);
  }
}

struct Copy {
  void* to;
  const void* from;
  bool there;
};
struct Copies {
  std::vector<Copy> open;
  std::deque<std::vector<Copy>> groups;
};
inline Copies& copies() {  // of this thread of this block; a kernel that ends has waited for all
  static std::map<std::pair<uint64_t, unsigned>, Copies> all;
  return all[{simt::block().linear, simt::here().linear}];
}

// While the emulation keeps its books, which are no business of the race detector.
struct Unwatched {
  Unwatched() { simt::hooks().threads_run(false); }
  ~Unwatched() { simt::hooks().threads_run(true); }
};

inline void copy_16(void* shared, const void* global, bool there) {
  const Unwatched books;
  const auto address = reinterpret_cast<uintptr_t>(shared) | (there ? reinterpret_cast<uintptr_t>(global) : 0);
  if (address % 16 != 0) simt::fail("an asynchronous copy between addresses that are no multiples of 16");
  copies().open.push_back({shared, global, there});
}
inline void end_copy_group() {
  const Unwatched books;
  copies().groups.push_back(std::move(copies().open));
  copies().open.clear();
}
// The oldest group but the last `left`, into `group` of the caller's stack; 0 without any.
inline size_t oldest_copies(size_t left, Copy (&group)[16]) {
  const Unwatched books;
  auto& groups = copies().groups;
  if (groups.size() <= left) return 0;
  const size_t count = groups.front().size();
  if (count > 16) simt::fail("a group of more asynchronous copies than the emulation keeps");
  std::copy_n(groups.front().begin(), count, group);
  groups.pop_front();
  return count;
}
template <int LEFT>
inline void wait_copy_groups() {
  Copy group[16];
  while (const size_t count = oldest_copies(LEFT, group)) {
    for (size_t i = 0; i < count; ++i) {
      for (int word = 0; word < 4; ++word) {
        static_cast<uint32_t*>(group[i].to)[word] = group[i].there ? static_cast<const uint32_t*>(group[i].from)[word] : 0u;
      }
    }
  }
}

}  // namespace gcl
