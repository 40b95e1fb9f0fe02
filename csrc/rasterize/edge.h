// Edge functions on the snapping grid and the top-left rule, once for every way to draw: pixel by pixel (rasterize_math.h, for
// CPU, GPU and render_mesh), by stepping (the fused kernel) and side by side in SIMD lanes (blocks.h).
//
// I is an integer, or a vector of them with a triangle in each lane. The corners of a triangle lie on a grid of 1/256 pixel, so
// everything here is exact as long as the numbers fit.
#pragma once

#include <type_traits>

#include "common/device.h"

namespace gcl {

constexpr int32_t kSubpixels = 256;  // steps of the snapping grid in a pixel
constexpr int32_t kSubpixelBits = 8;
static_assert(1 << kSubpixelBits == kSubpixels);

// Where the centre of a row or column lies on the grid, and the first and last one whose centre lies in [low, high].
template <class I>
GCL_HD I centre_of(I pixel) {
  return pixel * kSubpixels + kSubpixels / 2;
}

template <class I>
GCL_HD I first_centre(I low) {
  return (low + (kSubpixels / 2 - 1)) >> kSubpixelBits;
}

template <class I>
GCL_HD I last_centre(I high) {
  return (high - kSubpixels / 2) >> kSubpixelBits;
}

// Twice the area of a triangle: positive where its corners run clockwise on the screen (y down).
template <class Wide, class I>
GCL_HD Wide twice_area(const I x[3], const I y[3]) {
  return (Wide)(x[1] - x[0]) * (Wide)(y[2] - y[0]) - (Wide)(y[1] - y[0]) * (Wide)(x[2] - x[0]);
}

// The edge that faces corner k: where it begins, and the way to its end with the triangle on the right hand.
template <class I>
struct Edge {
  I x, y, dx, dy;
};

// `clockwise(d)` gives d, or -d where the corners do not run clockwise.
template <class I, class Clockwise>
GCL_HD Edge<I> edge_facing(int k, const I x[3], const I y[3], Clockwise&& clockwise) {
  const int a = (k + 1) % 3, b = (k + 2) % 3;
  return {.x = x[a], .y = y[a], .dx = clockwise(x[b] - x[a]), .dy = clockwise(y[b] - y[a])};
}

// The edge function at a point of the grid, in 1/65536 pixel^2: positive inside.
template <class Wide, class I>
GCL_HD Wide edge_at(const Edge<I>& e, I px, I py) {
  return (Wide)e.dx * (py - e.y) - (Wide)e.dy * (px - e.x);
}

// Whether an edge leaves a centre to its triangle, given its edge function there; in a lane all bits or none. The top-left rule:
// a centre on an edge that two triangles share belongs to the one of which it is a left or top edge.
template <class Wide, class I>
GCL_HD auto owns(const Edge<I>& e, Wide value) {
  const auto is_top_left = e.dy < 0 || (e.dy == 0 && e.dx > 0);
  return value > 0 || (value == 0 && is_top_left);
}

// The value of an edge function lowered by one where the edge leaves no centre on it to its triangle, which so owns a centre
// where none of its three is negative.
template <class Wide, class I>
GCL_HD Wide owned_from_zero(const Edge<I>& e, Wide value) {
  const auto owns_border = owns(e, Wide{});
  if constexpr (std::is_integral_v<I>) return value - (owns_border ? 0 : 1);
  else return value + ~owns_border;
}

// Edge functions of a triangle at one centre, as owned_from_zero gives them, and what a step of one pixel adds to each.
template <class I>
struct EdgeSteps {
  I value[3], across[3], down[3];
};

template <class I, class Clockwise>
GCL_HD EdgeSteps<I> edge_steps(const I x[3], const I y[3], I px, I py, Clockwise&& clockwise) {
  EdgeSteps<I> steps;
  for (int k = 0; k < 3; ++k) {
    const Edge<I> e = edge_facing(k, x, y, clockwise);
    steps.value[k] = owned_from_zero(e, edge_at<I>(e, px, py));
    steps.across[k] = -e.dy * kSubpixels;
    steps.down[k] = e.dx * kSubpixels;
  }
  return steps;
}

}  // namespace gcl
