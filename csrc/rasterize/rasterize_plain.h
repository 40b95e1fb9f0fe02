// One image on the CPU, face by face: for float64, and for images that the float sweep does not take.
#pragma once

#include <limits>

#include "rasterize/rasterize.h"
#include "rasterize/rasterize_math.h"

namespace gcl {

// p.bary may be null: not wanted.
template <class T, class Index>
inline void rasterize_image(const RasterizeParams<T, Index>& p, int64_t b) {
  const int64_t pixels = p.height * p.width;
  const T* verts = p.verts + 3 * b * p.num_verts;
  int32_t* face_id = p.face_id + b * pixels;
  T* bary = p.bary == nullptr ? nullptr : p.bary + 3 * b * pixels;
  T* depth = p.depth + b * pixels;
  for (int64_t i = 0; i < pixels; ++i) {
    face_id[i] = -1;
    depth[i] = std::numeric_limits<T>::infinity();
    for (int k = 0; k < 3 && p.bary != nullptr; ++k) bary[3 * i + k] = T(0);
  }
  for (int64_t f = 0; f < p.num_faces; ++f) {
    Triangle<T> t;
    if (!load_triangle(verts, p.faces + 3 * f, p.num_verts, p.height, p.width, p.cull_backfaces, &t)) continue;
    for_each_owned(t, [&](int64_t row, int64_t col, const Weights<T>& w) {
      const int64_t i = row * p.width + col;
      if (!(w.depth < depth[i])) return;  // a tie stays with the lower face, which came first
      face_id[i] = static_cast<int32_t>(f);
      depth[i] = w.depth;
      for (int k = 0; k < 3 && p.bary != nullptr; ++k) bary[3 * i + k] = w.bary[k];
    });
  }
}

}  // namespace gcl
