// The mathematics of rasterize, once for host and device. Compiled without fused multiply-add: both give the same bits.
//
// Coverage is decided on integers: vertices are snapped to 1/256 pixel, edge functions are exact in 64 bits, and the top-left
// rule gives a pixel centre on a shared edge to exactly one of its two triangles. Barycentrics and depth are those of the
// unsnapped triangle.
#pragma once

#include <limits>

#include "common/device.h"

namespace gcl {

constexpr int32_t kSubpixels = 256;               // steps of the snapping grid in a pixel
constexpr int64_t kMaxCoordinate = 1 << 21;       // pixels: snapped differences < 2^31, edge functions < 2^62
constexpr int64_t kMaxImageSize = 1 << 20;        // pixel centres are exact in float

template <class T>
struct Triangle {
  T x[3], y[3], z[3];                  // as given
  int32_t snapped_x[3], snapped_y[3];  // in 1/256 pixel; their differences, to each other and to a centre, fit too
  int32_t orientation;                 // +1 where the corners run clockwise on the screen (y down), -1 else
  int32_t col0, col1, row0, row1;      // box of the pixel centres that may be covered, last ones included
};

// Rows or columns whose centre (256 i + 128) lies in [low, high], cut to [0, size).
GCL_HD void centres_between(int32_t low, int32_t high, int64_t size, int32_t* first, int32_t* last) {
  *first = maximum((low + (kSubpixels / 2 - 1)) >> 8, 0);
  *last = minimum((high - kSubpixels / 2) >> 8, static_cast<int32_t>(size) - 1);
}

// Box and orientation of a triangle whose corners are in x, y, z. False where it covers nothing: a coordinate is not finite or
// beyond kMaxCoordinate, the snapped area is zero, it is culled, or its box holds no pixel centre.
template <class T>
GCL_HD bool set_up_triangle(int64_t height, int64_t width, bool cull_backfaces, Triangle<T>* t) {
  for (int k = 0; k < 3; ++k) {
    const bool usable = absolute(t->x[k]) <= T(kMaxCoordinate) && absolute(t->y[k]) <= T(kMaxCoordinate) &&
                        absolute(t->z[k]) <= std::numeric_limits<T>::max();  // false for NaN too
    if (!usable) return false;
    t->snapped_x[k] = static_cast<int32_t>(round_even(t->x[k] * T(kSubpixels)));
    t->snapped_y[k] = static_cast<int32_t>(round_even(t->y[k] * T(kSubpixels)));
  }
  const int32_t* sx = t->snapped_x;
  const int32_t* sy = t->snapped_y;
  const int64_t area = int64_t{sx[1] - sx[0]} * (sy[2] - sy[0]) - int64_t{sy[1] - sy[0]} * (sx[2] - sx[0]);
  if (area == 0 || (cull_backfaces && area > 0)) return false;
  t->orientation = area > 0 ? 1 : -1;
  centres_between(minimum(sx[0], minimum(sx[1], sx[2])), maximum(sx[0], maximum(sx[1], sx[2])), width, &t->col0, &t->col1);
  centres_between(minimum(sy[0], minimum(sy[1], sy[2])), maximum(sy[0], maximum(sy[1], sy[2])), height, &t->row0, &t->row1);
  return t->col0 <= t->col1 && t->row0 <= t->row1;
}

// The same for a face; false too where it names no vertex.
template <class T, class Index>
GCL_HD bool load_triangle(const T* verts, const Index* face, int64_t num_verts, int64_t height, int64_t width,
                          bool cull_backfaces, Triangle<T>* t) {
  for (int k = 0; k < 3; ++k) {
    const int64_t v = static_cast<int64_t>(face[k]);
    if (v < 0 || v >= num_verts) return false;
    t->x[k] = verts[3 * v];
    t->y[k] = verts[3 * v + 1];
    t->z[k] = verts[3 * v + 2];
  }
  return set_up_triangle(height, width, cull_backfaces, t);
}

// Exact edge functions of the snapped triangle at a pixel centre, in 1/65536 pixel^2, positive inside; edge[k] faces corner k.
// Returns whether the triangle owns the centre.
template <class T>
GCL_HD bool covers(const Triangle<T>& t, int64_t col, int64_t row, int64_t edge[3]) {
  const int32_t px = static_cast<int32_t>(col) * kSubpixels + kSubpixels / 2;
  const int32_t py = static_cast<int32_t>(row) * kSubpixels + kSubpixels / 2;
  bool inside = true;
  for (int k = 0; k < 3; ++k) {
    const int a = (k + 1) % 3, b = (k + 2) % 3;
    const int32_t dx = t.orientation * (t.snapped_x[b] - t.snapped_x[a]);
    const int32_t dy = t.orientation * (t.snapped_y[b] - t.snapped_y[a]);
    edge[k] = int64_t{dx} * (py - t.snapped_y[a]) - int64_t{dy} * (px - t.snapped_x[a]);
    const bool top_left = dy < 0 || (dy == 0 && dx > 0);
    inside = inside && (edge[k] > 0 || (edge[k] == 0 && top_left));
  }
  return inside;
}

constexpr int32_t kShort = 4096;  // 1/256 pixels: edge functions of triangles within such a box fit in 32 bits there

// The edge functions of a short triangle at a pixel centre in its box, each lowered by one where its edge owns no centre on it:
// the triangle owns the centre where none is negative. And what a step of one pixel adds to them.
struct EdgeSteps {
  int32_t value[3], across[3], down[3];
};

template <class T>
GCL_HD bool is_short(const Triangle<T>& t) {
  const int32_t *x = t.snapped_x, *y = t.snapped_y;
  return maximum(x[0], maximum(x[1], x[2])) - minimum(x[0], minimum(x[1], x[2])) < kShort &&
         maximum(y[0], maximum(y[1], y[2])) - minimum(y[0], minimum(y[1], y[2])) < kShort;
}

template <class T>
GCL_HD EdgeSteps edge_steps(const Triangle<T>& t, int32_t col, int32_t row) {
  const int32_t px = col * kSubpixels + kSubpixels / 2, py = row * kSubpixels + kSubpixels / 2;
  EdgeSteps e;
  for (int k = 0; k < 3; ++k) {
    const int a = (k + 1) % 3, b = (k + 2) % 3;
    const int32_t dx = t.orientation * (t.snapped_x[b] - t.snapped_x[a]);
    const int32_t dy = t.orientation * (t.snapped_y[b] - t.snapped_y[a]);
    const bool top_left = dy < 0 || (dy == 0 && dx > 0);
    e.value[k] = dx * (py - t.snapped_y[a]) - dy * (px - t.snapped_x[a]) - (top_left ? 0 : 1);
    e.across[k] = -dy * kSubpixels;
    e.down[k] = dx * kSubpixels;
  }
  return e;
}

// The three steps of what the unsnapped triangle says at a pixel centre, for numbers and for vectors of them (one lane a pixel).
// Twice the signed area that the centre spans with the edge facing each corner; returns their sum.
template <class T>
GCL_HD T corner_areas(const T x[3], const T y[3], T px, T py, T area[3]) {
  for (int k = 0; k < 3; ++k) {
    const int a = (k + 1) % 3, b = (k + 2) % 3;
    area[k] = (x[a] - px) * (y[b] - py) - (y[a] - py) * (x[b] - px);
  }
  return (area[0] + area[1]) + area[2];
}

// Barycentrics of areas that are positive inside; returns the sum that they were divided by.
template <class T>
GCL_HD T clamp_to_bary(const T oriented[3], T bary[3]) {
  T part[3];
  for (int k = 0; k < 3; ++k) part[k] = oriented[k] >= T{} ? oriented[k] : T{};
  const T sum = (part[0] + part[1]) + part[2];
  for (int k = 0; k < 3; ++k) bary[k] = part[k] / sum;
  return sum;
}

// Rounding must not leave the triangle; -0 becomes +0.
template <class T>
GCL_HD T mix_depth(const T bary[3], const T z[3]) {
  const T depth = (bary[0] * z[0] + bary[1] * z[1]) + bary[2] * z[2];
  const T nearest = minimum(z[0], minimum(z[1], z[2]));
  const T farthest = maximum(z[0], maximum(z[1], z[2]));
  return minimum(maximum(depth, nearest), farthest) + T{};
}

// What the unsnapped triangle says at a pixel centre. Snapping may cover a centre up to 1/256 pixel outside of it: negative
// weights become 0 and the rest is scaled to sum to 1. Where the unsnapped area is zero, the snapped triangle's weights stand in.
template <class T>
struct Weights {
  T bary[3];
  T depth;  // within the corners' depths, never -0
  T px, py;
  T scale;         // signed: d bary = (d edge - bary * sum of d edge) * scale over the unclamped edges; 0 for a stand-in
  bool active[3];  // not clamped
};

template <class T>
GCL_HD Weights<T> weigh(const Triangle<T>& t, int64_t col, int64_t row, const int64_t edge[3]) {
  Weights<T> w;
  w.px = static_cast<T>(col) + T(0.5);
  w.py = static_cast<T>(row) + T(0.5);
  T area[3];
  const T signed_sum = corner_areas(t.x, t.y, w.px, w.py, area);
  const T sign = signed_sum < T(0) ? T(-1) : T(1);
  for (int k = 0; k < 3; ++k) {
    area[k] = signed_sum == T(0) ? static_cast<T>(edge[k]) : area[k] * sign;
    w.active[k] = area[k] >= T(0);
  }
  const T sum = clamp_to_bary(area, w.bary);
  w.scale = signed_sum == T(0) ? T(0) : sign / sum;
  w.depth = mix_depth(w.bary, t.z);
  return w;
}

// The barycentrics and depth of weigh() alone; false where the unsnapped area is zero and edge functions are needed.
template <class T>
GCL_HD bool weigh_unsnapped(const T x[3], const T y[3], const T z[3], int32_t col, int32_t row, T bary[3], T* depth) {
  T area[3];
  const T signed_sum = corner_areas(x, y, static_cast<T>(col) + T(0.5), static_cast<T>(row) + T(0.5), area);
  if (signed_sum == T(0)) return false;
  const T sign = signed_sum < T(0) ? T(-1) : T(1);
  for (int k = 0; k < 3; ++k) area[k] = area[k] * sign;
  clamp_to_bary(area, bary);
  *depth = mix_depth(bary, z);
  return true;
}

// Adds the gradient of one pixel to grad[corner][x, y, z]: the chain rule of weigh(), the depth's rounding guard left out.
template <class T>
GCL_HD void weigh_backward(const Triangle<T>& t, const Weights<T>& w, const T grad_bary[3], T grad_depth, T grad[9]) {
  T g[3];
  for (int k = 0; k < 3; ++k) {
    g[k] = grad_bary[k] + grad_depth * t.z[k];
    grad[3 * k + 2] += grad_depth * w.bary[k];
  }
  const T mean = (g[0] * w.bary[0] + g[1] * w.bary[1]) + g[2] * w.bary[2];
  for (int k = 0; k < 3; ++k) {
    const int a = (k + 1) % 3, b = (k + 2) % 3;
    const T g_area = w.active[k] ? (g[k] - mean) * w.scale : T(0);
    grad[3 * a + 0] += g_area * (t.y[b] - w.py);
    grad[3 * a + 1] -= g_area * (t.x[b] - w.px);
    grad[3 * b + 0] -= g_area * (t.y[a] - w.py);
    grad[3 * b + 1] += g_area * (t.x[a] - w.px);
  }
}

// Keys that order as depths do (smaller is nearer). A float leaves room for the face below it, so that one 64-bit minimum
// decides both; a double fills the key, and the face is decided in a second pass.
GCL_HD uint64_t depth_key(float depth, int64_t face) {
  uint32_t bits;
  std::memcpy(&bits, &depth, sizeof bits);
  bits = (bits >> 31) != 0 ? ~bits : bits | 0x80000000u;
  return (static_cast<uint64_t>(bits) << 32) | static_cast<uint64_t>(face);
}

GCL_HD uint64_t depth_key(double depth, int64_t) {
  uint64_t bits;
  std::memcpy(&bits, &depth, sizeof bits);
  return (bits >> 63) != 0 ? ~bits : bits | 0x8000000000000000ull;
}

}  // namespace gcl
