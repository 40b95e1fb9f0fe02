// Parameters of render_mesh. T is float or double, Index is int32_t or int64_t; every array is contiguous.
#pragma once

#include <cstdint>

#include "common/device.h"
#include "rasterize/rasterize.h"

namespace gcl {

constexpr int64_t kViewsAtOnce = 32;  // whose angles travel to the GPU inside of the parameters

template <class T, class Index>
struct RenderParams {
  using Real = T;
  const T* verts;      // [B, V, 3]  body axes
  const Index* faces;  // [F, 3]
  const T* camera;     // [B, 3] weak perspective or [B, 6] perspective
  const T* turns;      // [R, 2]  cosine and sine of each yaw; null on the GPU where they are in `sent`
  int64_t batch;
  int64_t views;
  int64_t num_verts;
  int64_t num_faces;  // below 2^31
  int64_t height;     // at most kMaxImageSize
  int64_t width;
  bool perspective;
  T* image;  // [B, R, H, W]
  // GPU only: a launch draws views [first_view, first_view + views_now) of bodies [first_body, first_body + bodies_now), whose
  // pictures, P of them, stand in the workspace.
  int64_t first_view, views_now;
  int64_t first_body, bodies_now;
  T sent[2 * kViewsAtOnce];  // of those views
  bool fused;
  int64_t shared_bytes;    // of a fused block
  int64_t bodies_at_once;  // P is at most bodies_at_once * min(views, kViewsAtOnce)
  T* middle;               // [B, 2]     workspace: x and z of the axis of each body
  T* pixels;               // [P, V, 3]  workspace: vertices as rasterize takes them
  T* grey;                 // [P, F]     workspace: of each face
  uint64_t* zbuffer;       // [P, H, W]  workspace: the smallest key so far; null where fused
  int32_t* face_id;        // [P, H, W]  workspace of double; else null
};

// `count` pictures, whose vertices lie in `pixels`, as images of rasterize. The caller adds where depths or keys go.
template <class T, class Index>
GCL_HD RasterizeParams<T, Index> raster_of(const RenderParams<T, Index>& p, const T* pixels, int64_t count, int32_t* face_id) {
  RasterizeParams<T, Index> r{};
  r.verts = pixels;
  r.faces = p.faces;
  r.batch = count;
  r.num_verts = p.num_verts;
  r.num_faces = p.num_faces;
  r.height = p.height;
  r.width = p.width;
  r.face_id = face_id;
  return r;
}

}  // namespace gcl
