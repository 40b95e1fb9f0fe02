// The mathematics of rasterize, once for host and device. Compiled without fused multiply-add: both give the same bits.
//
// Coverage is decided on integers (edge.h): vertices are snapped to 1/256 pixel, edge functions are exact in 64 bits, and the
// top-left rule gives a pixel centre on a shared edge to exactly one of its two triangles. Barycentrics and depth are those of
// the unsnapped triangle.
#pragma once

#include <limits>

#include "common/device.h"
#include "rasterize/edge.h"

namespace gcl {

constexpr int64_t kMaxCoordinate = 1 << 21;  // pixels: snapped differences < 2^31, edge functions < 2^62
constexpr int64_t kMaxImageSize = 1 << 20;   // pixel centres are exact in float
constexpr uint64_t kNoKey = ~uint64_t{0};    // behind every finite depth; its lower half, as an int32_t, is the face -1

template <class T>
struct Triangle {
  T x[3], y[3], z[3];                  // as given
  int32_t snapped_x[3], snapped_y[3];  // in 1/256 pixel; their differences, to each other and to a centre, fit too
  int32_t orientation;                 // +1 where the corners run clockwise on the screen (y down), -1 else
  int32_t col0, col1, row0, row1;      // box of the pixel centres that may be covered, last ones included
};

template <class T>
GCL_HD void snap(const T from[3], int32_t to[3]) {
  for (int k = 0; k < 3; ++k) to[k] = nearest_int(from[k] * T(kSubpixels));
}

// Rows or columns whose centre lies between the snapped corners, cut to [0, size).
GCL_HD void centres_between(const int32_t snapped[3], int64_t size, int32_t* first, int32_t* last) {
  *first = maximum(first_centre(least_of_three(snapped)), 0);
  *last = minimum(last_centre(greatest_of_three(snapped)), static_cast<int32_t>(size) - 1);
}

// Box and orientation of a triangle whose corners are in x, y, z. False where it covers nothing: a coordinate is not finite or
// beyond kMaxCoordinate, the snapped area is zero, it is culled, or its box holds no pixel centre.
template <class T>
GCL_HD bool set_up_triangle(int64_t height, int64_t width, bool cull_backfaces, Triangle<T>* t) {
  bool usable = true;
  for (int k = 0; k < 3; ++k) {  // no branches: a GPU has one instruction for each
    usable &= magnitude(t->x[k]) <= T(kMaxCoordinate);
    usable &= magnitude(t->y[k]) <= T(kMaxCoordinate);
    usable &= magnitude(t->z[k]) <= std::numeric_limits<T>::max();  // false for NaN too
  }
  if (!usable) return false;
  snap(t->x, t->snapped_x);
  snap(t->y, t->snapped_y);
  const int64_t area = twice_area<int64_t>(t->snapped_x, t->snapped_y);
  if (area == 0 || (cull_backfaces && area > 0)) return false;
  t->orientation = area > 0 ? 1 : -1;
  centres_between(t->snapped_x, width, &t->col0, &t->col1);
  centres_between(t->snapped_y, height, &t->row0, &t->row1);
  return t->col0 <= t->col1 && t->row0 <= t->row1;
}

// The same for a face; false too where it names no vertex.
template <class T, class Index>
GCL_HD bool load_triangle(const T* verts, const Index* face, int64_t num_verts, int64_t height, int64_t width,
                          bool cull_backfaces, Triangle<T>* t) {
  int64_t v[3];
  bool named = true;
  for (int k = 0; k < 3; ++k) {  // all numbers first, so that a GPU waits for memory twice and not for each corner
    v[k] = static_cast<int64_t>(face[k]);
    named = named & (v[k] >= 0) & (v[k] < num_verts);
  }
  if (!named) return false;
  for (int k = 0; k < 3; ++k) {
    t->x[k] = verts[3 * v[k]];
    t->y[k] = verts[3 * v[k] + 1];
    t->z[k] = verts[3 * v[k] + 2];
  }
  return set_up_triangle(height, width, cull_backfaces, t);
}

template <class T>
GCL_HD Edge<int32_t> edge_facing(const Triangle<T>& t, int k) {
  return edge_facing(k, t.snapped_x, t.snapped_y, [&](int32_t d) { return t.orientation * d; });
}

// Exact edge functions of the snapped triangle at a pixel centre; edge[k] faces corner k. Returns whether the triangle owns the
// centre.
template <class T>
GCL_HD bool covers(const Triangle<T>& t, int64_t col, int64_t row, int64_t edge[3]) {
  const int32_t px = centre_of(static_cast<int32_t>(col)), py = centre_of(static_cast<int32_t>(row));
  bool inside = true;
  for (int k = 0; k < 3; ++k) {
    const Edge<int32_t> e = edge_facing(t, k);
    edge[k] = edge_at<int64_t>(e, px, py);
    inside = inside && owns(e, edge[k]);
  }
  return inside;
}

constexpr int32_t kShort = 4096;  // 1/256 pixels: edge functions of triangles within such a box fit in 32 bits there

template <class T>
GCL_HD bool is_short(const Triangle<T>& t) {
  return greatest_of_three(t.snapped_x) - least_of_three(t.snapped_x) < kShort &&
         greatest_of_three(t.snapped_y) - least_of_three(t.snapped_y) < kShort;
}

// Of a short triangle, at a pixel centre in its box.
template <class T>
GCL_HD EdgeSteps<int32_t> edge_steps(const Triangle<T>& t, int32_t col, int32_t row) {
  return edge_steps(t.snapped_x, t.snapped_y, centre_of(col), centre_of(row), [&](int32_t d) { return t.orientation * d; });
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

// area / sum, two areas of one triangle of which no centre is outside.
GCL_HD double area_ratio(double area, double sum) { return area / sum; }

// Areas of float are 0 or from 2^-50 to 2^63 (differences to a centre are multiples of 2^-25 pixel), where the steps of a
// correctly rounded division need neither the guards that a compiler adds nor a branch. -0 becomes +0 on a GPU.
GCL_HD float area_ratio(float area, float sum) {
#if defined(__CUDA_ARCH__)
  float inverse;
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(inverse) : "f"(sum));
  inverse = __fmaf_rn(inverse, __fmaf_rn(-sum, inverse, 1.0f), inverse);
  const float ratio = __fmul_rn(area, inverse);
  return __fmaf_rn(inverse, __fmaf_rn(-sum, ratio, area), ratio);
#else
  return area / sum;
#endif
}

// Rounding must not leave the triangle; -0 becomes +0.
#if defined(__CUDA_ARCH__)
GCL_HD float mix_depth(const float bary[3], const float z[3]) {  // instructions of their own for the minima: nothing is NaN
  const float depth = (bary[0] * z[0] + bary[1] * z[1]) + bary[2] * z[2];
  return ::fminf(::fmaxf(depth, ::fminf(z[0], ::fminf(z[1], z[2]))), ::fmaxf(z[0], ::fmaxf(z[1], z[2]))) + 0.0f;
}
#endif
template <class T>
GCL_HD T mix_depth(const T bary[3], const T z[3]) {
  const T depth = (bary[0] * z[0] + bary[1] * z[1]) + bary[2] * z[2];
  return minimum(maximum(depth, least_of_three(z)), greatest_of_three(z)) + T{};
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

// Calls visit(row, col, weights) for every pixel centre that the triangle owns.
template <class T, class Visit>
GCL_HD void for_each_owned(const Triangle<T>& t, Visit&& visit) {
  for (int64_t row = t.row0; row <= t.row1; ++row) {
    for (int64_t col = t.col0; col <= t.col1; ++col) {
      int64_t edge[3];
      if (covers(t, col, row, edge)) visit(row, col, weigh(t, col, row, edge));
    }
  }
}

// The edge functions of the snapped triangle as numbers, from its corners as given: they stand in where the area before snapping
// is zero.
template <class T>
GCL_HD void snapped_areas(const T x[3], const T y[3], int32_t col, int32_t row, T area[3]) {
  Triangle<T> t;
  snap(x, t.snapped_x);
  snap(y, t.snapped_y);
  t.orientation = twice_area<int64_t>(t.snapped_x, t.snapped_y) > 0 ? 1 : -1;
  int64_t edge[3];
  covers(t, col, row, edge);
  for (int k = 0; k < 3; ++k) area[k] = static_cast<T>(edge[k]);
}

// The areas that weigh() divides, at a centre that the triangle owns; returns their sum.
template <class T>
GCL_HD T areas_at(const T x[3], const T y[3], int32_t col, int32_t row, T area[3]) {
  const T signed_sum = corner_areas(x, y, static_cast<T>(col) + T(0.5), static_cast<T>(row) + T(0.5), area);
  const T sign = signed_sum < T(0) ? T(-1) : T(1);
  for (int k = 0; k < 3; ++k) area[k] = area[k] * sign;
  if (signed_sum == T(0)) snapped_areas(x, y, col, row, area);
  for (int k = 0; k < 3; ++k) area[k] = area[k] >= T(0) ? area[k] : T(0);
  return (area[0] + area[1]) + area[2];
}

// The barycentrics of weigh() alone, there.
template <class T>
GCL_HD void bary_at(const T x[3], const T y[3], int32_t col, int32_t row, T bary[3]) {
  T area[3];
  const T sum = areas_at(x, y, col, row, area);
  for (int k = 0; k < 3; ++k) bary[k] = area[k] == T(0) ? area[k] : area_ratio(area[k], sum);  // of -0: -0
}

// Its depth alone.
template <class T>
GCL_HD T depth_at(const T x[3], const T y[3], const T z[3], int32_t col, int32_t row) {
  T area[3], bary[3];
  const T sum = areas_at(x, y, col, row, area);
  for (int k = 0; k < 3; ++k) bary[k] = area_ratio(area[k], sum);
  return mix_depth(bary, z);
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
  bits ^= static_cast<uint32_t>(static_cast<int32_t>(bits) >> 31) | 0x80000000u;
  return (static_cast<uint64_t>(bits) << 32) | static_cast<uint64_t>(face);
}

GCL_HD uint64_t depth_key(double depth, int64_t) {
  uint64_t bits;
  std::memcpy(&bits, &depth, sizeof bits);
  return (bits >> 63) != 0 ? ~bits : bits | 0x8000000000000000ull;
}

// The depth in the upper half of a float's key; of no key, infinity.
GCL_HD float depth_of_key(uint64_t key) {
  const uint32_t high = static_cast<uint32_t>(key >> 32);
  const uint32_t bits = (high >> 31) != 0 ? high ^ 0x80000000u : ~high;
  float depth;
  std::memcpy(&depth, &bits, sizeof depth);
  return key == kNoKey ? std::numeric_limits<float>::infinity() : depth;
}

}  // namespace gcl
