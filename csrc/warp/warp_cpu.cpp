// CPU backend of mesh_flow and mesh_warp: rows of the batch in parallel, each pixel on its own; backward by image and channels.
// So no result depends on the number of threads.
#include "common/cpu_backend.h"
#include "warp/warp_isa.h"
#include "warp/warp_ops.h"

namespace gcl {
namespace {

constexpr int64_t kPixelsAtOnce = 4096;
constexpr int64_t kChannelsAtOnce = 4;  // of one image share the taps

struct WarpCpu : CpuBackend {
  template <class T>
  void flow(const FlowParams<T>& p) const {
    over_rows(p, [&](int64_t begin, int64_t end) { GCL_PICK(flow_rows<FlowParams<T>>)(p, begin, end); });
  }

  template <class T, class S>
  void warp(const WarpParams<T, S>& p) const {
    using P = WarpParams<T, S>;
    over_rows(p.flow, [&](int64_t begin, int64_t end) { GCL_PICK(warp_rows<P>)(p, begin, end); });
  }

  template <class T, class S>
  void backward(const WarpBackwardParams<T, S>& p) const {
    using P = WarpBackwardParams<T, S>;
    const int64_t groups = (p.channels + kChannelsAtOnce - 1) / kChannelsAtOnce;
    in_parallel(p.batch * groups, 1, [&](int64_t n) {
      const int64_t first = n % groups * kChannelsAtOnce, last = first + kChannelsAtOnce;
      GCL_PICK(warp_backward<P>)(p, n / groups, first, last < p.channels ? last : p.channels);
    });
  }

 private:
  // Finds the limits of each mesh, then calls f(begin, end) for ranges of the batch's rows.
  template <class T, class F>
  static void over_rows(const FlowParams<T>& p, F&& f) {
    in_parallel(p.batch, 1, [&](int64_t b) { GCL_PICK(flow_limits<FlowParams<T>>)(p, b); });
    const int64_t rows_at_once = p.width < kPixelsAtOnce ? kPixelsAtOnce / (p.width + 1) + 1 : 1;
    torch::stable::parallel_for(0, p.batch * p.height, rows_at_once, f);
  }
};

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(gcl_fast, CPU, m) { register_warp<WarpCpu>(m); }

}  // namespace gcl
