// render_mesh on the CPU before and after the raster: what a body needs once for all of its views, the vertices of a view, and
// the greys of its faces and pixels. Loops over blocks that the compiler turns into vectors; compiled for each instruction set.
#include "render/render_isa.h"

#include "render/render_math.h"

namespace gcl {
namespace GCL_ISA {
namespace {

constexpr int kBlock = 64;

// Of at least one value.
template <class T>
T find_middle(const T* values, int64_t count) {
  T low[kBlock], high[kBlock];
  for (int l = 0; l < kBlock; ++l) low[l] = high[l] = values[0];
  int64_t v = 0;
  for (; v + kBlock <= count; v += kBlock) {
    for (int l = 0; l < kBlock; ++l) low[l] = low_or_nan(values[v + l], low[l]);
    for (int l = 0; l < kBlock; ++l) high[l] = high_or_nan(values[v + l], high[l]);
  }
  for (; v < count; ++v) {
    low[0] = low_or_nan(values[v], low[0]);
    high[0] = high_or_nan(values[v], high[0]);
  }
  for (int l = 1; l < kBlock; ++l) {
    low[0] = low_or_nan(low[l], low[0]);
    high[0] = high_or_nan(high[l], high[0]);
  }
  return middle_of(low[0], high[0]);
}

template <class T, class Index>
void split(const RenderParams<T, Index>& p, int64_t body, Easel<T>* e) {
  const T* verts = p.verts + 3 * body * p.num_verts;
  const int64_t count = p.num_verts;
  T *x = e->split, *y = x + count, *z = y + count;
  for (int64_t v = 0; v < count; ++v) {
    x[v] = verts[3 * v];
    y[v] = verts[3 * v + 1];
    z[v] = verts[3 * v + 2];
  }
  e->middle[0] = find_middle(x, count);
  e->middle[1] = find_middle(z, count);
}

template <class T, class Index>
void find_facing(const RenderParams<T, Index>& p, int64_t body, const Easel<T>& e) {
  const T* verts = p.verts + 3 * body * p.num_verts;
  const int64_t count = p.num_faces;
  T corner[3][3][kBlock];
  T out[4][kBlock];
  for (int64_t f = 0; f < count; f += kBlock) {
    const int lanes = static_cast<int>(count - f < kBlock ? count - f : kBlock);
    for (int l = 0; l < kBlock; ++l) {
      const Index* face = p.faces + 3 * (f + (l < lanes ? l : 0));
      for (int k = 0; k < 3; ++k) {
        const T* v = verts + 3 * face[k];
        for (int c = 0; c < 3; ++c) corner[k][c][l] = v[c];
      }
    }
    for (int l = 0; l < kBlock; ++l) {
      const T a[3] = {corner[0][0][l], corner[0][1][l], corner[0][2][l]};
      const T b[3] = {corner[1][0][l], corner[1][1][l], corner[1][2][l]};
      const T c[3] = {corner[2][0][l], corner[2][1][l], corner[2][2][l]};
      const Facing<T> facing = face_facing(a, b, c, e.middle[0], e.middle[1]);
      out[0][l] = facing.x;
      out[1][l] = facing.y;
      out[2][l] = facing.z;
      out[3][l] = facing.reach;
    }
    for (int k = 0; k < 4; ++k) {
      T* to = e.facing + k * count + f;
      for (int l = 0; l < lanes; ++l) to[l] = out[k][l];
    }
  }
}

template <class T, class Index>
View<T> view_of(const RenderParams<T, Index>& p, int64_t body, int64_t view, const Easel<T>& e) {
  return make_view(e.middle, p.camera + (p.perspective ? 6 : 3) * body, p.perspective, p.turns[2 * view], p.turns[2 * view + 1],
                   p.height, p.width);
}

template <bool kPerspective, class T>
void project(const View<T> view, int64_t count, const Easel<T>& e) {
  T px[kBlock], py[kBlock], depth[kBlock];
  for (int64_t v = 0; v < count; v += kBlock) {
    const int lanes = static_cast<int>(count - v < kBlock ? count - v : kBlock);
    const T *x = e.split + v, *y = x + count, *z = y + count;
    for (int l = 0; l < lanes; ++l) project_vertex<kPerspective>(view, x[l], y[l], z[l], px + l, py + l, depth + l);
    T* to = e.pixels + 3 * v;
    for (int l = 0; l < lanes; ++l) {
      to[3 * l] = px[l];
      to[3 * l + 1] = py[l];
      to[3 * l + 2] = depth[l];
    }
  }
}

template <bool kPerspective, class T>
void shade_faces(const View<T> view, int64_t count, const Easel<T>& e) {
  const T *x = e.facing, *y = x + count, *z = y + count, *reach = z + count;
  T* grey = e.grey + 1;
  for (int64_t f = 0; f < count; ++f)
    grey[f] = shade<kPerspective>(view, Facing<T>{.x = x[f], .y = y[f], .z = z[f], .reach = reach[f]});
  e.grey[0] = T(0);
}

template <class T, class Index>
void body_of(const RenderParams<T, Index>& p, int64_t body, Easel<T>* e) {
  if (p.num_verts == 0) return;
  split(p, body, e);
  find_facing(p, body, *e);
}

template <class T, class Index>
void project_all(const RenderParams<T, Index>& p, int64_t body, int64_t view, const Easel<T>& e) {
  const View<T> v = view_of(p, body, view, e);
  p.perspective ? project<true>(v, p.num_verts, e) : project<false>(v, p.num_verts, e);
}

template <class T, class Index>
void paint(const RenderParams<T, Index>& p, int64_t body, int64_t view, int64_t row, int64_t row_end, const Easel<T>& e) {
  const View<T> v = view_of(p, body, view, e);
  p.perspective ? shade_faces<true>(v, p.num_faces, e) : shade_faces<false>(v, p.num_faces, e);
  T* image = p.image + (body * p.views + view) * p.height * p.width;
  const T* grey = e.grey;
  const int32_t* face = e.face_id;
  for (int64_t i = row * p.width; i < row_end * p.width; ++i) image[i] = grey[face[i] + 1];
}

}  // namespace

template <class P>
void take_body(const P& p, int64_t body, Easel<typename P::Real>* easel) {
  body_of(p, body, easel);
}
template <class P>
void project_view(const P& p, int64_t body, int64_t view, const Easel<typename P::Real>& easel) {
  project_all(p, body, view, easel);
}
template <class P>
void paint_view(const P& p, int64_t body, int64_t view, int64_t row, int64_t row_end, const Easel<typename P::Real>& easel) {
  paint(p, body, view, row, row_end, easel);
}

#define GCL_RENDER(T, Index)                                                                                          \
  template void take_body(const RenderParams<T, Index>& p, int64_t body, Easel<T>* easel);                            \
  template void project_view(const RenderParams<T, Index>& p, int64_t body, int64_t view, const Easel<T>& easel);     \
  template void paint_view(const RenderParams<T, Index>& p, int64_t body, int64_t view, int64_t row, int64_t row_end, \
                           const Easel<T>& easel);
GCL_RENDER(float, int32_t)
GCL_RENDER(float, int64_t)
GCL_RENDER(double, int32_t)
GCL_RENDER(double, int64_t)

}  // namespace GCL_ISA
}  // namespace gcl
