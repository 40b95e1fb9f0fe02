// Parameters of interpolate and its backward. T is float or double; every array is contiguous; P = H * W pixels an image.
#pragma once

#include <cstdint>

namespace gcl {

template <class T>
struct InterpolateParams {
  const T* attributes;     // [B, V, C], or [V, C] if shared
  const int32_t* faces;    // [F, 3]     a vertex that does not exist reads the nearest one that does
  const int32_t* face_id;  // [B, P]     negative: background; so does a face that does not exist
  const T* bary;           // [B, P, 3]  not read on background
  int64_t batch;
  int64_t num_verts;
  int64_t num_faces;
  int64_t pixels;
  int64_t channels;
  bool shared;  // one table of attributes for the batch
  T* out;       // [B, P, C]
};

template <class T>
struct InterpolateBackwardParams {
  InterpolateParams<T> forward;  // out is not there
  const T* grad_out;             // [B, P, C]
  // GPU only. Entry e = 3 * (b * P + pixel) + k is corner k of a pixel. Sorted by the row of the table that it reads, ties by
  // e: row r has entry_order[entry_begin[r]] and on, before entry_begin[r + 1]. Background stands behind the last row.
  const int64_t* entry_order;  // [3 B P]
  const int64_t* entry_begin;  // [rows + 1]
  T* grad_attributes;          // as attributes; null if not wanted
  T* grad_bary;                // [B, P, 3]; null if not wanted
};

}  // namespace gcl
