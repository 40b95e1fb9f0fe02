// Parameters of reflect_pad and its backward. Memory is seen as [outer, rows, columns, inner]: channels last has outer = B and
// inner = C, channels first outer = B * C and inner = 1. T is an element, or what a copy moves at once.
#pragma once

#include <cstdint>

namespace gcl {

template <class T>
struct ReflectPadParams {
  const T*
      from;  // forward: the map [outer, H, W, inner]; backward: the gradient of the padded one, [outer, H + 2p, W + 2p, inner]
  T* to;          // the other of the two
  int64_t outer;
  int64_t height;  // of the map, larger than pad; so is width
  int64_t width;
  int64_t inner;
  int64_t pad;
};

}  // namespace gcl
