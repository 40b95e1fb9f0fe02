// The mathematics of interpolate, once for host and device.
#pragma once

#include "common/device.h"
#include "interpolate/interpolate.h"

namespace gcl {

template <class T>
GCL_HD bool drawn(const InterpolateParams<T>& p, int64_t pixel) {
  return p.face_id[pixel] >= 0 && p.num_faces > 0 && p.num_verts > 0;
}

// Row of the attribute table that corner k of a drawn pixel reads, the image's own table starting at row 0.
template <class T>
GCL_HD int64_t corner_row(const InterpolateParams<T>& p, int64_t pixel, int k) {
  const int64_t face = p.face_id[pixel] < p.num_faces ? p.face_id[pixel] : p.num_faces - 1;
  const int64_t v = p.faces[3 * face + k];
  return v < 0 ? 0 : v < p.num_verts ? v : p.num_verts - 1;
}

template <class T>
GCL_HD const T* table_of(const InterpolateParams<T>& p, int64_t b) {
  return p.attributes + (p.shared ? 0 : b * p.num_verts * p.channels);
}

template <class T>
GCL_HD T mix(const T bary[3], T a, T b, T c) {
  return (bary[0] * a + bary[1] * b) + bary[2] * c;
}

}  // namespace gcl
