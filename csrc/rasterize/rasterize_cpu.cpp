// CPU backend of rasterize: images or strips of them in parallel, each pixel by one thread, so the result knows nothing of the
// number of threads. float32 is swept (rasterize_isa.cpp), unless plain drawing is asked for; float64 and images beyond
// kMaxSweepSize go face by face.
#include "common/cpu_backend.h"
#include "rasterize/rasterize_ops.h"
#include "rasterize/rasterize_plain.h"
#include "rasterize/sweep.h"

namespace gcl {
namespace {

template <class T, class Index>
void backward_image(const RasterizeBackwardParams<T, Index>& p, int64_t b) {
  const T* verts = p.verts + 3 * b * p.num_verts;
  T* grad_corner = p.grad_corner + 9 * b * p.num_faces;
  for (int64_t row = 0; row < p.height; ++row) {
    for (int64_t col = 0; col < p.width; ++col) {
      const int64_t i = (b * p.height + row) * p.width + col;
      const int64_t f = p.face_id[i];
      if (f < 0 || f >= p.num_faces) continue;
      Triangle<T> t;
      int64_t edge[3];
      if (!load_triangle(verts, p.faces + 3 * f, p.num_verts, p.height, p.width, false, &t)) continue;
      covers(t, col, row, edge);
      weigh_backward(t, weigh(t, col, row, edge), p.grad_bary + 3 * i, p.grad_depth[i], grad_corner + 9 * f);
    }
  }
  for (int64_t v = 0; v < p.num_verts; ++v) {
    T sum[3] = {};
    for (int64_t c = p.corner_begin[v]; c < p.corner_begin[v + 1]; ++c) {
      for (int k = 0; k < 3; ++k) sum[k] += grad_corner[3 * p.corner_order[c] + k];
    }
    for (int k = 0; k < 3; ++k) p.grad_verts[3 * (b * p.num_verts + v) + k] = sum[k];
  }
}

template <class Index>
void sweep_images(const RasterizeParams<float, Index>& p, const Tensor& like) {
  const Shares shares(p.batch, p.height);
  const SweepWorkspace workspace(like, shares.workers, p.num_verts, p.num_faces, p.height, p.width);
  const int64_t pixels = p.height * p.width;
  shares.each([&](int64_t worker, int64_t piece) {
    const int64_t b = shares.image(piece);
    SweepParams<Index> s{};
    s.verts = p.verts + 3 * b * p.num_verts;
    s.faces = p.faces;
    s.num_verts = p.num_verts;
    s.num_faces = p.num_faces;
    s.height = static_cast<int32_t>(p.height);
    s.width = static_cast<int32_t>(p.width);
    s.row_begin = static_cast<int32_t>(shares.row(piece, p.height));
    s.row_end = static_cast<int32_t>(shares.row_end(piece, p.height));
    s.cull_backfaces = p.cull_backfaces;
    s.face_id = p.face_id + b * pixels;
    s.depth = p.depth + b * pixels;
    s.bary = p.bary + 3 * b * pixels;
    workspace.give(worker, &s);
    sweep(s);
  });
}

struct RasterizeCpu : CpuBackend {
  template <class T, class Index>
  void forward(const RasterizeParams<T, Index>& p, Method method, const Tensor& like) const {
    check_face_range("rasterize", p.faces, 3 * p.num_faces, p.num_verts);
    if constexpr (sizeof(T) == 4) {
      if (method != Method::plain && can_sweep(p.height, p.width, p.num_verts)) return sweep_images(p, like);
    }
    in_parallel(p.batch, 1, [&](int64_t b) { rasterize_image(p, b); });
  }

  template <class T, class Index>
  void backward(const RasterizeBackwardParams<T, Index>& p) const {
    in_parallel(p.batch, 1, [&](int64_t b) { backward_image(p, b); });
  }
};

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(gcl_fast, CPU, m) { register_rasterize<RasterizeCpu>(m); }

}  // namespace gcl
