// Parameters of mesh_flow, mesh_warp and its backward. T (vertices) and S (image) are float or double; every array is
// contiguous. An image has fewer than 2^31 pixels, at most kMaxImageSize on a side, a mesh fewer than 2^31 / 3 vertices or faces.
#pragma once

#include <cstdint>

namespace gcl {

template <class T>
struct FlowParams {
  const T* src_verts;  // [B, V, 3]  x, y in pixels (centres at +0.5), z = depth
  const int32_t* faces;  // [F, 3]
  const int32_t* dst_face_id;  // [B, H, W]     the destination's raster
  const T* dst_bary;  // [B, H, W, 3]
  const int32_t* src_face_id;  // [B, H, W]     the source's raster
  const T* src_depth;  // [B, H, W]     +inf where there is nothing
  int64_t batch;
  int64_t num_verts;
  int64_t num_faces;
  int64_t height;
  int64_t width;
  T* limits;  // [B, 2]        workspace: depth extent of the source mesh, and the depth tolerance
  T* grid;  // [B, H, W, 2]  in grid_sample units, -2 where there is nothing; null in mesh_warp
  uint8_t* visibility;  // [B, H, W]     0 background, 1 visible, 2 occluded
};

template <class T, class S>
struct WarpParams {
  FlowParams<T> flow;
  const S* image;  // [B, C, H, W]
  int64_t channels;
  S fill;
  T* source;  // [B, H, W, 2]  x, y in the source where it is visible, else -1; null if no gradient is wanted
  S* warped;  // [B, C, H, W]
};

template <class T, class S>
struct WarpBackwardParams {
  const S* grad_warped;  // [B, C, H, W]
  const T* source;  // [B, H, W, 2]  of the forward pass
  const uint8_t* visibility;  // [B, H, W]
  // GPU only. Cells of the lattice of pixel centres, one row and column more than pixels: [B, H + 1, W + 1]. Visible pixels
  // sorted by the cell that their source lies in, ties by pixel: cell n has pixel_order[cell_begin[n]] and on.
  const int64_t* pixel_order;  // [B H W]
  const int64_t* cell_begin;  // [B (H + 1) (W + 1) + 1]
  int64_t batch;
  int64_t channels;
  int64_t height;
  int64_t width;
  S* grad_image;  // [B, C, H, W]
};

}  // namespace gcl
