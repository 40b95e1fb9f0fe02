// What a block of similarities holds as numbers: float, double, or bfloat16 by its bits.
#pragma once

#include <cstring>

#include "common/device.h"

namespace gcl {

GCL_HD float widened(float x) { return x; }
GCL_HD double widened(double x) { return x; }
GCL_HD float widened(uint16_t bfloat16) {
  const uint32_t bits = static_cast<uint32_t>(bfloat16) << 16;
  float x;
  memcpy(&x, &bits, sizeof x);
  return x;
}

}  // namespace gcl
