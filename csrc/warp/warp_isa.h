// The CPU's loops, once for each instruction set. P is FlowParams, WarpParams or WarpBackwardParams of any types; rows are
// those of the batch's B * H, the backward pass takes channels of an image.
#pragma once

#include "common/isa.h"
#include "warp/warp.h"

namespace gcl {

#define GCL_DECLARE_WARP_ROWS(isa)                                           \
  namespace isa {                                                            \
  template <class P>                                                         \
  void flow_limits(const P& p, int64_t image);                               \
  template <class P>                                                         \
  void flow_rows(const P& p, int64_t begin, int64_t end);                    \
  template <class P>                                                         \
  void warp_rows(const P& p, int64_t begin, int64_t end);                    \
  template <class P>                                                         \
  void warp_backward(const P& p, int64_t image, int64_t begin, int64_t end); \
  }
GCL_EACH_ISA(GCL_DECLARE_WARP_ROWS)

}  // namespace gcl
