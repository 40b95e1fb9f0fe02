// Parameters of rasterize and its backward. T is float or double, Index is int32_t or int64_t; every array is contiguous.
#pragma once

#include <cstdint>

namespace gcl {

// Which of the two ways to draw: the choice is about time alone. Plain: face by face. Fused: a strip of the image at a time, in a
// core's cache or a block's shared memory.
enum class Method : int64_t { automatic = 0, plain = 1, fused = 2 };

template <class T, class Index>
struct RasterizeParams {
  const T* verts;      // [B, V, 3]  x, y in pixels (centres at +0.5), z = depth
  const Index* faces;  // [F, 3]     a face that names no vertex is skipped
  int64_t batch;
  int64_t num_verts;
  int64_t num_faces;  // below 2^31
  int64_t height;     // at most kMaxImageSize
  int64_t width;
  bool cull_backfaces;
  int32_t* face_id;   // [B, H, W]     -1 where there is nothing
  T* bary;            // [B, H, W, 3]  0 where there is nothing
  T* depth;           // [B, H, W]     +inf where there is nothing
  // GPU kernels
  int64_t at_once;    // images of a plain launch; 0: fused
  int64_t shared_bytes;  // of a fused block
  uint64_t* zbuffer;  // [at_once, H, W]  workspace: the smallest key so far
};

template <class T, class Index>
struct RasterizeBackwardParams {
  const T* grad_bary;     // [B, H, W, 3]
  const T* grad_depth;    // [B, H, W]
  const T* verts;         // [B, V, 3]
  const Index* faces;     // [F, 3]
  const int32_t* face_id;  // [B, H, W]  of the forward pass
  // Corner c = 3 * face + k. Sorted by vertex, ties by c: vertex v has corner_order[corner_begin[v]] and on,
  // before corner_begin[v + 1].
  const int64_t* corner_order;  // [3 F]
  const int64_t* corner_begin;  // [V + 1]
  int64_t batch;
  int64_t num_verts;
  int64_t num_faces;
  int64_t height;
  int64_t width;
  T* grad_corner;  // [B, F, 3, 3]  workspace: gradient of each corner of each face, zero at the start
  T* grad_verts;   // [B, V, 3]
};

}  // namespace gcl
