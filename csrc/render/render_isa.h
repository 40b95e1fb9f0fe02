// The CPU's loops over vertices, faces and pixels of render_mesh, once for each instruction set. P is RenderParams of any types.
#pragma once

#include "common/isa.h"
#include "render/render.h"

namespace gcl {

// What one worker draws with: of the body it is at, and of the view.
template <class T>
struct Easel {
  T* split;          // [3, V]  the body's x, y, z
  T* facing;         // [4, F]  the faces' x, y, z, reach
  T* pixels;         // [V, 3]  the view's vertices, as rasterize takes them
  T* grey;           // [1 + F] background, then the faces
  int32_t* face_id;  // [H, W]  the view's raster
  T* depth;          // [H, W]
  T middle[2];
};

#define GCL_DECLARE_RENDER(isa)                                                                                                \
  namespace isa {                                                                                                              \
  template <class P>                                                                                                           \
  void take_body(const P& p, int64_t body, Easel<typename P::Real>* easel);                                                    \
  template <class P>                                                                                                           \
  void project_view(const P& p, int64_t body, int64_t view, const Easel<typename P::Real>& easel);                             \
  template <class P>                                                                                                           \
  void paint_view(const P& p, int64_t body, int64_t view, int64_t row, int64_t row_end, const Easel<typename P::Real>& easel); \
  }
GCL_EACH_ISA(GCL_DECLARE_RENDER)
#undef GCL_DECLARE_RENDER

}  // namespace gcl
