// CPU backend of render_mesh: views of bodies, or strips of them, in parallel. A worker keeps what a body's next view needs too;
// a view is projected, swept as rasterize does it, and painted with the greys of its faces. No result depends on the number of
// threads.
#include "common/cpu_backend.h"
#include "rasterize/rasterize_plain.h"
#include "rasterize/sweep.h"
#include "render/render_isa.h"
#include "render/render_ops.h"

namespace gcl {
namespace {

// The workspace of every worker.
template <class T>
class Easels {
 public:
  Easels(const Tensor& like, int64_t workers, int64_t num_verts, int64_t num_faces, int64_t pixels)
      : verts_(num_verts),
        faces_(num_faces),
        pixels_(pixels),
        reals_(6 * num_verts + 5 * num_faces + 1 + pixels),
        real_(new_empty(like, {workers, reals_})),
        face_id_(new_empty(like, {workers, pixels}, ScalarType::Int)),
        real(real_.mutable_data_ptr<T>()),
        face_id(face_id_.mutable_data_ptr<int32_t>()) {}

  Easel<T> of(int64_t worker) const {
    Easel<T> e{};
    e.split = real + worker * reals_;
    e.facing = e.split + 3 * verts_;
    e.pixels = e.facing + 4 * faces_;
    e.grey = e.pixels + 3 * verts_;
    e.depth = e.grey + 1 + faces_;
    e.face_id = face_id + worker * pixels_;
    return e;
  }

 private:
  int64_t verts_, faces_, pixels_, reals_;
  Tensor real_, face_id_;
  T* real;
  int32_t* face_id;
};

template <class Index>
void draw(const RenderParams<float, Index>& p, const Easel<float>& e, int64_t row, int64_t row_end, SweepParams<Index> s) {
  s.verts = e.pixels;
  s.faces = p.faces;
  s.num_verts = p.num_verts;
  s.num_faces = p.num_faces;
  s.height = static_cast<int32_t>(p.height);
  s.width = static_cast<int32_t>(p.width);
  s.row_begin = static_cast<int32_t>(row);
  s.row_end = static_cast<int32_t>(row_end);
  s.face_id = e.face_id;
  s.depth = e.depth;
  sweep(s);
}

// A whole view, face by face.
template <class T, class Index>
void draw(const RenderParams<T, Index>& p, const Easel<T>& e) {
  RasterizeParams<T, Index> r = raster_of(p, e.pixels, 1, e.face_id);
  r.depth = e.depth;
  rasterize_image(r, 0);
}

struct RenderCpu : CpuBackend {
  template <class T, class Index>
  void render(const RenderParams<T, Index>& p, Method method, const RenderTensors& t) const {
    check_face_range("render_mesh", p.faces, 3 * p.num_faces, p.num_verts);
    using P = RenderParams<T, Index>;
    const int64_t images = p.batch * p.views, pixels = p.height * p.width;
    if (images * pixels == 0) return;
    const bool sweeps = sizeof(T) == 4 && method != Method::plain && can_sweep(p.height, p.width, p.num_verts);
    const Shares shares(images, sweeps ? p.height : 0);  // without rows to share, whole images
    const Easels<T> easels(t.verts, shares.workers, p.num_verts, p.num_faces, pixels);
    const SweepWorkspace sweeping(t.verts, sweeps ? shares.workers : 0, p.num_verts, p.num_faces, p.height, p.width);
    in_parallel(shares.workers, 1, [&](int64_t worker) {
      Easel<T> easel = easels.of(worker);
      SweepParams<Index> sweep_params{};
      if (sweeps) sweeping.give(worker, &sweep_params);
      int64_t body = -1, image = -1;
      for (int64_t piece = shares.begin(worker); piece < shares.begin(worker + 1); ++piece) {
        const int64_t b = shares.image(piece) / p.views, r = shares.image(piece) % p.views;
        if (b != body) GCL_PICK(take_body<P>)(p, b, &easel);
        if (image != shares.image(piece)) GCL_PICK(project_view<P>)(p, b, r, easel);
        body = b;
        image = shares.image(piece);
        int64_t row = 0, row_end = p.height;
        if constexpr (sizeof(T) == 4) {
          if (sweeps) {
            row = shares.row(piece, p.height);
            row_end = shares.row_end(piece, p.height);
            draw(p, easel, row, row_end, sweep_params);
          }
        }
        if (!sweeps) draw(p, easel);
        GCL_PICK(paint_view<P>)(p, b, r, row, row_end, easel);
      }
    });
  }
};

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(gcl_fast, CPU, m) { register_render<RenderCpu>(m); }

}  // namespace gcl
