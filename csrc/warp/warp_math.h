// The mathematics of mesh_flow and mesh_warp, once for host and device. Compiled without fused multiply-add: both give the
// same bits. Functions choose instead of branching, so that the CPU takes many pixels at once.
//
// The point that a destination pixel shows is its face's corners mixed by its barycentric coordinates, in the source view.
// It is visible where at least half of what a bilinear read would mix agrees: a tap agrees when it shows the point's own face,
// or when the plane of that face, carried to the tap's centre, does not lie behind what the source shows there.
#pragma once

#include "common/device.h"
#include "warp/warp.h"

namespace gcl {

template <class T>
struct SourcePoint {
  T x, y, z;
  T across, down;  // slope of the face's plane: d depth / d x, d depth / d y
  bool finite;     // else x, y, z are 0
};

GCL_HD float size_of(float x) { return ::fabsf(x); }
GCL_HD double size_of(double x) { return ::fabs(x); }

// Depths that reach over the mesh: `nearest` starts as +inf and `farthest` as -inf; a vertex that is not finite does not count.
template <class T>
GCL_HD void widen(const T v[3], T* nearest, T* farthest) {
  const bool usable = (v[0] - v[0] == T(0)) & (v[1] - v[1] == T(0)) & (v[2] - v[2] == T(0));
  *nearest = (usable & (v[2] < *nearest)) ? v[2] : *nearest;
  *farthest = (usable & (v[2] > *farthest)) ? v[2] : *farthest;
}

// limits[0] = depth extent; limits[1] = tolerance, half a pixel of a body 250 pixels tall and a sixth as deep.
template <class T>
GCL_HD void limits_of(T nearest, T farthest, T limits[2]) {
  const T near_size = size_of(nearest), far_size = size_of(farthest);
  limits[0] = farthest > nearest ? farthest - nearest : T(0);
  limits[1] = T(0.01) * limits[0] + T(1e-5) * (near_size < far_size ? far_size : near_size);
}

// Floor of a position in an image of `size` pixels; a position outside by more than its last tap becomes one that is. Through
// an integer, because compilers make vectors of that and not of floor().
template <class T>
GCL_HD T round_down(T position, int32_t size) {
  const T low = position > T(-4) ? position : T(-4);
  const T cut = low < T(size + 4) ? low : T(size + 4);
  const int32_t towards_zero = static_cast<int32_t>(cut);
  return static_cast<T>(towards_zero - (static_cast<T>(towards_zero) > cut));
}

GCL_HD int32_t nearest_index(int32_t i, int32_t count) { return i < 0 ? 0 : i < count ? i : count - 1; }

template <class T>
GCL_HD T slope_within(T rise, T area, T limit) {
  const T slope = rise / area;
  const T cut = slope < -limit ? -limit : slope > limit ? limit : slope;
  return ((area != T(0)) & (cut == cut)) ? cut : T(0);
}

// x[k], y[k], z[k]: corners of the face in the source.
template <class T>
GCL_HD SourcePoint<T> source_point(const T x[3], const T y[3], const T z[3], const T bary[3], T extent) {
  SourcePoint<T> p;
  p.x = (bary[0] * x[0] + bary[1] * x[1]) + bary[2] * x[2];
  p.y = (bary[0] * y[0] + bary[1] * y[1]) + bary[2] * y[2];
  p.z = (bary[0] * z[0] + bary[1] * z[1]) + bary[2] * z[2];
  const T undefined = (p.x - p.x) + (p.y - p.y) + (p.z - p.z);  // 0, or NaN
  p.finite = undefined == T(0);
  p.x = p.finite ? p.x : T(0);
  p.y = p.finite ? p.y : T(0);
  p.z = p.finite ? p.z : T(0);
  const T bx = x[1] - x[0], by = y[1] - y[0], bz = z[1] - z[0];
  const T cx = x[2] - x[0], cy = y[2] - y[0], cz = z[2] - z[0];
  const T area = bx * cy - cx * by;
  p.across = slope_within(bz * cy - cz * by, area, extent);
  p.down = slope_within(cz * bx - bz * cx, area, extent);
  return p;
}

// Pixel n = 2 * row + column of the four that a bilinear read at (x, y) mixes.
template <class T>
struct Tap {
  int32_t index;  // in the image; of the nearest pixel where the tap lies outside
  bool within;
  T dx, dy;  // from the point to the tap's centre
  T weight;
};

template <class T>
GCL_HD Tap<T> tap_at(T x, T y, int n, int32_t height, int32_t width) {
  Tap<T> t;
  const T right = T(width - 1), bottom = T(height - 1);
  const T j = round_down(x - T(0.5), width) + T(n % 2), i = round_down(y - T(0.5), height) + T(n / 2);
  t.within = (j >= T(0)) & (j <= right) & (i >= T(0)) & (i <= bottom);
  T column = j > T(0) ? j : T(0), row = i > T(0) ? i : T(0);
  column = column < right ? column : right;
  row = row < bottom ? row : bottom;
  t.index = static_cast<int32_t>(row) * width + static_cast<int32_t>(column);
  t.dx = (j + T(0.5)) - x;
  t.dy = (i + T(0.5)) - y;
  t.weight = (T(1) - size_of(t.dx)) * (T(1) - size_of(t.dy));
  return t;
}

// What the tap counts for: nothing where the source shows no depth there.
template <class T>
GCL_HD T covered_weight(T weight, bool within, T seen) {
  const T shown = seen - seen == T(0) ? weight : T(0);
  return within ? shown : T(0);
}

// Whether a tap at (dx, dy) from the point, of depth `seen`, shows what the point is of; `same`: it shows the point's own face.
template <class T>
GCL_HD bool agrees(const SourcePoint<T>& p, T dx, T dy, T seen, bool same, T tolerance) {
  return same | ((p.z + p.across * dx) + p.down * dy <= seen + tolerance);
}

// covered, agreeing: weight of the taps that count, and of those among them that agree.
template <class T>
GCL_HD bool is_visible(const SourcePoint<T>& p, T covered, T agreeing, int32_t height, int32_t width) {
  const bool inside = (p.x >= T(0)) & (p.x < T(width)) & (p.y >= T(0)) & (p.y < T(height));
  return p.finite & inside & (T(2) * agreeing >= covered);
}

// Pixels -> grid_sample(align_corners=False) units.
template <class T>
GCL_HD T grid_units(T position, int32_t size) {
  return T(2) * position / T(size) - T(1);
}

}  // namespace gcl
