// Which place reads which, along one side of a map and of the padded one; once for host and device.
#pragma once

#include "common/device.h"
#include "reflect_pad/reflect_pad.h"

namespace gcl {

// The place of the map that place n of the padded one reads. N may be unsigned.
template <class N>
GCL_HD N mirrored(N n, N size, N pad) {
  const N inside = n < pad ? pad - n : n - pad;
  return inside < size ? inside : 2 * (size - 1) - inside;
}

template <class N>
constexpr N kNobody = static_cast<N>(-1);
constexpr int kReaders = 3;

// Places of the padded map that read place n, in their order: k = 0 before the map, 1 inside, 2 behind it.
template <class N>
GCL_HD N reader(int k, N n, N size, N pad) {
  if (k == 1) return n + pad;
  if (k == 0) return n > 0 && n <= pad ? pad - n : kNobody<N>;
  return n + 1 < size && n + 1 + pad >= size ? pad + 2 * (size - 1) - n : kNobody<N>;
}

template <class T>
GCL_HD int64_t padded_numbers(const ReflectPadParams<T>& p) {
  return p.outer * (p.height + 2 * p.pad) * (p.width + 2 * p.pad) * p.inner;
}

}  // namespace gcl
