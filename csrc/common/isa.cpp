#include "common/isa.h"

#include <cstdlib>
#include <cstring>

namespace gcl {
namespace {

constexpr const char* kNames[] = {"baseline", "avx2", "avx512"};

Isa best() {
#if defined(__x86_64__)
  __builtin_cpu_init();
  const auto has_all = [](auto... has) { return (has && ...); };
  if (!has_all(__builtin_cpu_supports("avx2"), __builtin_cpu_supports("fma"))) return Isa::baseline;
  if (!has_all(__builtin_cpu_supports("avx512f"), __builtin_cpu_supports("avx512bw"), __builtin_cpu_supports("avx512dq"),
               __builtin_cpu_supports("avx512vl"))) {
    return Isa::avx2;
  }
  return Isa::avx512;
#else
  return Isa::baseline;
#endif
}

Isa choose() {
  const Isa widest = best();
  const char* asked = std::getenv("GCL_ISA");
  for (int n = 0; asked != nullptr && n <= static_cast<int>(widest); ++n) {
    if (std::strcmp(asked, kNames[n]) == 0) return static_cast<Isa>(n);
  }
  return widest;
}

}  // namespace

Isa isa() {
  static const Isa chosen = choose();
  return chosen;
}

const char* isa_name() { return kNames[static_cast<int>(isa())]; }

}  // namespace gcl
