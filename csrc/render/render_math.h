// The mathematics of render_mesh, once for host and device: a body turned about its vertical axis, projected, and shaded flat.
// Compiled without fused multiply-add: both give the same bits. Turning and projecting take the steps of gcl_fast.ops.camera.turn
// and project in their order, so that a pixel shows the face that rasterize gives for those. Functions choose instead of
// branching, so that the CPU takes many vertices or faces at once.
#pragma once

#include <limits>

#include "common/device.h"

namespace gcl {

GCL_HD float root(float x) { return ::sqrtf(x); }
GCL_HD double root(double x) { return ::sqrt(x); }

// A minimum and a maximum that, once NaN, stay so, as those of tensors do: a body without a middle is not drawn.
template <class T>
GCL_HD T low_or_nan(T a, T b) {
  return ((a != a) | (a < b)) ? a : b;
}

template <class T>
GCL_HD T high_or_nan(T a, T b) {
  return ((a != a) | (a > b)) ? a : b;
}

template <class T>
GCL_HD T middle_of(T low, T high) {
  return (low + high) / T(2);
}

// One view of one body.
template <class T>
struct View {
  T cosine, sine;
  T middle_x, middle_z;  // the body turns about the vertical line through it
  T camera[6];  // three numbers or six
  T height, half_height, half_width;  // pixels
};

template <class T>
GCL_HD View<T> make_view(const T middle[2], const T* camera, bool perspective, T cosine, T sine, int64_t height, int64_t width) {
  View<T> view{};
  view.cosine = cosine;
  view.sine = sine;
  view.middle_x = middle[0];
  view.middle_z = middle[1];
  for (int k = 0; k < 3; ++k) view.camera[k] = camera[k];
  for (int k = 3; perspective && k < 6; ++k) view.camera[k] = camera[k];
  view.height = static_cast<T>(height);
  view.half_height = static_cast<T>(height) / T(2);
  view.half_width = static_cast<T>(width) / T(2);
  return view;
}

// Pixels and depth of a vertex. A vertex at or behind the eye becomes NaN: its faces are dropped.
template <bool kPerspective, class T>
GCL_HD void project_vertex(const View<T>& v, T x, T y, T z, T* px, T* py, T* depth) {
  const T dx = x - v.middle_x, dz = z - v.middle_z;
  x = (v.cosine * dx + v.sine * dz) + v.middle_x;
  z = (v.cosine * dz - v.sine * dx) + v.middle_z;
  if constexpr (kPerspective) {
    const T ahead = z + v.camera[2];
    const T kept = ahead > T(0) ? ahead : std::numeric_limits<T>::quiet_NaN();
    *px = v.half_width + v.height * (v.camera[3] * (x + v.camera[0]) / kept + v.camera[4]);
    *py = v.half_height + v.height * (v.camera[3] * (y + v.camera[1]) / kept + v.camera[5]);
    *depth = kept;
  } else {
    const T scale = v.half_height * v.camera[0];
    *px = v.half_width + scale * (x + v.camera[1]);
    *py = v.half_height + scale * (y + v.camera[2]);
    *depth = z;
  }
}

// How a face lies before the body turns: its unit normal n (0 for a face without area), and n.a with corner a measured from
// the axis.
template <class T>
struct Facing {
  T x, y, z, reach;
};

template <class T>
GCL_HD Facing<T> face_facing(const T a[3], const T b[3], const T c[3], T middle_x, T middle_z) {
  const T bx = b[0] - a[0], by = b[1] - a[1], bz = b[2] - a[2];
  const T cx = c[0] - a[0], cy = c[1] - a[1], cz = c[2] - a[2];
  const T x = by * cz - bz * cy, y = bz * cx - bx * cz, z = bx * cy - by * cx;
  const T length = root((x * x + y * y) + z * z);
  const T divisor = length > T(1e-30) ? length : T(1e-30);
  Facing<T> f;
  f.x = x / divisor;
  f.y = y / divisor;
  f.z = z / divisor;
  f.reach = (f.x * (a[0] - middle_x) + f.y * a[1]) + f.z * (a[2] - middle_z);
  return f;
}

// Grey of a face in a view: 0.25 + 0.75 max(0, n.l), n turned with the body and then towards the viewer, l = (-0.4, -0.6, -1)
// normalised. The face looks away where n.p > 0, p from the eye to the face: with a from the axis m and the eye at -t, p is
// R a + m + t, and (R n).p = n.a + (R n).(m + t).
template <bool kPerspective, class T>
GCL_HD T shade(const View<T>& v, const Facing<T>& f) {
  const T x = v.cosine * f.x + v.sine * f.z, y = f.y, z = v.cosine * f.z - v.sine * f.x;
  T along = z;
  if constexpr (kPerspective) {
    along = ((f.reach + x * (v.middle_x + v.camera[0])) + y * v.camera[1]) + z * (v.middle_z + v.camera[2]);
  }
  const T lit = (x * T(-0.3244428422615251) + y * T(-0.48666426339228763)) + z * T(-0.8111071056538127);
  const T towards = along > T(0) ? -lit : lit;
  const T positive = (absolute(towards) + towards) / T(2);  // a choice would be sunk into branches, and no vectors made
  const T grey = T(0.25) + T(0.75) * positive;
  return grey < T(1) ? grey : T(1);
}

}  // namespace gcl
