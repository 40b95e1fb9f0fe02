// Exact selection by sampling keys without keeping them: the K-th smallest is found digit by digit, one pass over the bank's
// labels for each.
#include "bank/bank_math.h"
#include "bank/bank_sweep.h"
#include "bank/bank_vector.h"

namespace gcl {
namespace GCL_ISA {
namespace {

constexpr uint32_t kOrder[16] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
constexpr int kDigits = 3;
constexpr int kBits[kDigits] = {11, 11, 10};
constexpr int kShift[kDigits] = {21, 10, 0};

// Counts the negatives whose key begins with `prefix`, by the next digit.
void count_digits(const SelectParams& p, int digit, uint32_t prefix, uint32_t* counts) {
  std::memset(counts, 0, sizeof(uint32_t) << kBits[digit]);
  const uint32_t mask = (1u << kBits[digit]) - 1;
  const int shift = kShift[digit], above = shift + kBits[digit];
  const UReg inner = UReg{} + p.inner, outer = UReg{} + p.outer, order = load<UReg>(kOrder);
  for (int64_t n = 0; n < p.num_rows; n += kWidth) {
    const UReg key = sampling_key<UReg>(inner, outer, order + static_cast<uint32_t>(n));
    if (digit > 0 && !any((IReg)((key >> above) == prefix))) continue;
    uint32_t keys[kWidth];
    store(keys, key);
    const int lanes = p.num_rows - n < kWidth ? static_cast<int>(p.num_rows - n) : kWidth;
    for (int l = 0; l < lanes; ++l) {
      const bool fits = digit == 0 || keys[l] >> above == prefix;
      counts[keys[l] >> shift & mask] += fits & is_negative(p.own_label, p.first, p.labels[n + l], n + l);
    }
  }
}

}  // namespace

uint32_t last_key(const SelectParams& p) {
  if (p.count >= p.num_rows) return kEveryKey;
  uint32_t counts[1 << 11];
  uint32_t prefix = 0;
  int64_t wanted = p.count;
  for (int digit = 0; digit < kDigits; ++digit) {
    count_digits(p, digit, prefix, counts);
    uint32_t value = 0;
    for (; value >> kBits[digit] == 0 && wanted > counts[value]; ++value) wanted -= counts[value];
    if (value >> kBits[digit] != 0) return kEveryKey;  // fewer than K
    prefix = prefix << kBits[digit] | value;
  }
  return prefix;
}

int64_t smallest_key(const SelectParams& p) {
  if (p.own_label < 0) return p.first;
  int64_t best = p.first;
  uint32_t least = sampling_key<uint32_t>(p.inner, p.outer, static_cast<uint32_t>(p.first));
  for (int64_t n = 0; n < p.num_rows; ++n) {
    if (p.labels[n] != p.own_label) continue;
    const uint32_t key = sampling_key<uint32_t>(p.inner, p.outer, static_cast<uint32_t>(n));
    if (key < least) {
      least = key;
      best = n;
    }
  }
  return best;
}

}  // namespace GCL_ISA
}  // namespace gcl
