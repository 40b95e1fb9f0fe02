// GPU kernels of rasterize and the order in which they run. No torch header: the same file runs on emulated threads.
//
// Where asked for, float32 images that fit in a few blocks' shared memory are drawn by one fused kernel (rasterize_fused.cuh).
// Others take the plain form, some images at a time so that their z-buffer stays in the second-level cache: faces take the
// minimum of (depth, face) keys in a 64-bit z-buffer in global memory, where that is one instruction; then what each pixel's
// winner says is computed. Minima do not depend on order, so neither does the result.
#pragma once

#include <limits>

#include "common/launch.cuh"
#include "rasterize/rasterize.h"
#include "rasterize/rasterize_fused.cuh"
#include "rasterize/rasterize_math.h"
#include "rasterize/resolve.cuh"

namespace gcl {

constexpr int kDrawWarps = kThreads / kWarpLanes;

// ---- float32 -----------------------------------------------------------------------------------------------------------------

struct GlobalCanvas {
  uint64_t* nearest;  // [H, W]
  uint32_t width;

  __device__ void offer(int32_t row, int32_t col, float depth, int32_t face) const {
    atomicMin(reinterpret_cast<unsigned long long*>(nearest +
                                                    (uint64_t{static_cast<uint32_t>(row)} * width + static_cast<uint32_t>(col))),
              static_cast<unsigned long long>(depth_key(depth, static_cast<uint32_t>(face))));
  }
  // Reading first would cost as much as the minimum, whose result nobody waits for.
  __device__ bool hides(int32_t, int32_t, const float*) const { return false; }
};

// What a warp has in shared memory while it finishes a span.
struct alignas(16) WarpDesk {
  unsigned long long list[kSpan];
  Four<float> bary[3 * kSpan / 4];
};

// A block draws kThreads faces of an image.
template <class Index>
__global__ void __launch_bounds__(kThreads, 8) rasterize_draw_kernel(RasterizeParams<float, Index> p, BlockDivisor blocks) {
  __shared__ Hit hits[kDrawWarps][kHitRoom];
  const unsigned b = blocks.quotient(blockIdx.x);
  const int64_t f = int64_t{blockIdx.x - b * blocks.by} * kThreads + threadIdx.x;
  const Window whole{.row0 = 0, .row1 = static_cast<int32_t>(p.height), .col0 = 0, .col1 = static_cast<int32_t>(p.width)};
  Mesh<Index> mesh = mesh_of(p, b);
  mesh.verts = whole_address(mesh.verts);
  draw_faces(mesh, whole, f < p.num_faces ? static_cast<int32_t>(f) : -1, hits[threadIdx.x / kWarpLanes],
             GlobalCanvas{.nearest = whole_address(p.zbuffer + b * p.height * p.width), .width = static_cast<uint32_t>(p.width)});
}

// A block finishes kDrawWarps spans of an image.
template <class Index>
__global__ void rasterize_resolve_kernel(RasterizeParams<float, Index> p, BlockDivisor blocks) {
  __shared__ WarpDesk desks[kDrawWarps];
  const unsigned b = blocks.quotient(blockIdx.x), block = blockIdx.x - b * blocks.by;
  const int warp = static_cast<int>(threadIdx.x) / kWarpLanes, lane = static_cast<int>(threadIdx.x) % kWarpLanes;
  const int64_t pixels = p.height * p.width;
  const int64_t first = (int64_t{block} * kDrawWarps + warp) * kSpan, start = b * pixels + first;
  if (first >= pixels) return;
  const bool small = pixels >> 31 == 0;  // a 64-bit division takes long
  const int64_t row = small ? static_cast<uint32_t>(first) / static_cast<uint32_t>(p.width) : first / p.width;
  const Span span{.face_id = p.face_id + start,
                  .depth = p.depth + start,
                  .bary = p.bary + 3 * start,
                  .row = static_cast<int32_t>(row),
                  .col = static_cast<int32_t>(first - row * p.width),
                  .left = 0,
                  .width = static_cast<int32_t>(p.width),
                  .count = static_cast<int>(minimum<int64_t>(pixels - first, kSpan))};
  uint64_t key[4];
  const uint64_t* const keys = p.zbuffer + start + 4 * lane;
  if (4 * lane + 3 < span.count && aligned(keys)) {
    for (int h = 0; h < 2; ++h) {
      const Two both = reinterpret_cast<const Two*>(keys)[h];
      key[2 * h] = both.v[0];
      key[2 * h + 1] = both.v[1];
    }
  } else {
    for (int j = 0; j < 4; ++j) key[j] = 4 * lane + j < span.count ? keys[j] : kNoKey;
  }
  WarpDesk& desk = desks[warp];
  resolve_span(mesh_of(p, b), span, key, desk.list, desk.bary[0].v);
}

// ---- float64: a key is all depth, the face is found in a second pass ----------------------------------------------------------

// One thread draws its triangle into the z-buffer [H, W] of an image. First pass: minima of the keys. kOwners, the second: the
// lowest face among those that reach it. face_id starts as -1, the largest unsigned number.
template <bool kOwners, class Index>
__global__ void rasterize_draw_double_kernel(RasterizeParams<double, Index> p) {
  GCL_EACH_ITEM(n, p.batch * p.num_faces) {
    const int64_t b = n / p.num_faces, f = n % p.num_faces, first = b * p.height * p.width;
    Triangle<double> t;
    if (!load_triangle(p.verts + 3 * b * p.num_verts, p.faces + 3 * f, p.num_verts, p.height, p.width, p.cull_backfaces, &t))
      continue;
    for_each_owned(t, [&](int64_t row, int64_t col, const Weights<double>& w) {
      const int64_t i = first + row * p.width + col;
      const uint64_t key = depth_key(w.depth, f);
      if constexpr (!kOwners) {
        atomicMin(reinterpret_cast<unsigned long long*>(p.zbuffer + i), static_cast<unsigned long long>(key));
      } else if (key == p.zbuffer[i]) {
        atomicMin(reinterpret_cast<unsigned*>(p.face_id + i), static_cast<unsigned>(f));
      }
    });
  }
}

template <class Index>
__global__ void rasterize_resolve_double_kernel(RasterizeParams<double, Index> p) {
  const int64_t pixels = p.height * p.width;
  GCL_EACH_ITEM(i, p.batch * pixels) {
    const int64_t b = i / pixels, row = i % pixels / p.width, col = i % p.width;
    const int64_t f = p.face_id[i];
    Triangle<double> t;
    int64_t edge[3];
    const bool seen = f >= 0 && load_triangle(p.verts + 3 * b * p.num_verts, p.faces + 3 * f, p.num_verts, p.height, p.width,
                                              p.cull_backfaces, &t);
    if (seen) covers(t, col, row, edge);
    const Weights<double> w = seen ? weigh(t, col, row, edge) : Weights<double>{};
    for (int k = 0; k < 3; ++k) p.bary[3 * i + k] = w.bary[k];
    p.depth[i] = seen ? w.depth : std::numeric_limits<double>::infinity();
  }
}

// ---- backward ----------------------------------------------------------------------------------------------------------------

// One thread gathers the pixels of one face, row by row: no atomics, so the order of additions is fixed.
template <class T, class Index>
__global__ void rasterize_backward_corner_kernel(RasterizeBackwardParams<T, Index> p) {
  GCL_EACH_ITEM(n, p.batch * p.num_faces) {
    const int64_t b = n / p.num_faces, f = n % p.num_faces;
    Triangle<T> t;
    if (!load_triangle(p.verts + 3 * b * p.num_verts, p.faces + 3 * f, p.num_verts, p.height, p.width, false, &t)) continue;
    T grad[9] = {};
    for (int64_t row = t.row0; row <= t.row1; ++row) {
      for (int64_t col = t.col0; col <= t.col1; ++col) {
        const int64_t i = (b * p.height + row) * p.width + col;
        if (p.face_id[i] != f) continue;
        int64_t edge[3];
        covers(t, col, row, edge);
        weigh_backward(t, weigh(t, col, row, edge), p.grad_bary + 3 * i, p.grad_depth[i], grad);
      }
    }
    for (int k = 0; k < 9; ++k) p.grad_corner[9 * n + k] = grad[k];
  }
}

// One thread adds the corners that meet in one vertex, in the order of the faces.
template <class T, class Index>
__global__ void rasterize_backward_vertex_kernel(RasterizeBackwardParams<T, Index> p) {
  GCL_EACH_ITEM(n, p.batch * p.num_verts) {
    const int64_t b = n / p.num_verts, v = n % p.num_verts;
    T sum[3] = {};
    for (int64_t c = p.corner_begin[v]; c < p.corner_begin[v + 1]; ++c) {
      for (int k = 0; k < 3; ++k) sum[k] += p.grad_corner[9 * b * p.num_faces + 3 * p.corner_order[c] + k];
    }
    for (int k = 0; k < 3; ++k) p.grad_verts[3 * n + k] = sum[k];
  }
}

// ---- launches ----------------------------------------------------------------------------------------------------------------

// Images [first, first + count) alone; the z-buffer is the same for all parts.
template <class T, class Index>
RasterizeParams<T, Index> part_of(const RasterizeParams<T, Index>& p, int64_t first, int64_t count) {
  RasterizeParams<T, Index> part = p;
  const int64_t pixels = first * p.height * p.width;
  part.batch = count;
  part.verts += 3 * first * p.num_verts;
  part.face_id += part.face_id == nullptr ? 0 : pixels;
  part.depth += part.depth == nullptr ? 0 : pixels;
  part.bary += part.bary == nullptr ? 0 : 3 * pixels;
  return part;
}

// Fills the z-buffer, and of float64 face_id, for a batch of at most p.at_once images.
template <class T, class Index>
void launch_draw(const RasterizeParams<T, Index>& p, GclStream stream) {
  const int64_t pixels = p.batch * p.height * p.width, triangles = p.batch * p.num_faces;
  GCL_FILL_BYTES(p.zbuffer, 0xff, pixels * sizeof(uint64_t), stream);
  if constexpr (sizeof(T) == 4) {
    const int64_t blocks = blocks_for(p.num_faces);
    if (triangles > 0) {
      GCL_LAUNCH((rasterize_draw_kernel<Index>), p.batch * blocks, kThreads, 0, stream, p, BlockDivisor(blocks));
    }
  } else {
    GCL_FILL_BYTES(p.face_id, 0xff, pixels * sizeof(int32_t), stream);
    if (triangles == 0) return;
    GCL_LAUNCH((rasterize_draw_double_kernel<false, Index>), blocks_for(triangles), kThreads, 0, stream, p);
    GCL_LAUNCH((rasterize_draw_double_kernel<true, Index>), blocks_for(triangles), kThreads, 0, stream, p);
  }
}

template <class T, class Index>
void launch_resolve(const RasterizeParams<T, Index>& p, GclStream stream) {
  const int64_t pixels = p.height * p.width;
  if constexpr (sizeof(T) == 4) {
    const int64_t blocks = (pixels + kDrawWarps * kSpan - 1) / (kDrawWarps * kSpan);
    GCL_LAUNCH((rasterize_resolve_kernel<Index>), p.batch * blocks, kThreads, 0, stream, p, BlockDivisor(blocks));
  } else {
    GCL_LAUNCH((rasterize_resolve_double_kernel<Index>), blocks_for(p.batch * pixels), kThreads, 0, stream, p);
  }
}

template <class T, class Index>
void launch_rasterize(const RasterizeParams<T, Index>& p, GclStream stream) {
  if (p.batch * p.height * p.width == 0) return;
  if constexpr (sizeof(T) == 4) {
    if (p.at_once == 0) return launch_fused(p, WriteRaster<Index>{}, stream);
  }
  for (int64_t first = 0; first < p.batch; first += p.at_once) {
    const RasterizeParams<T, Index> part = part_of(p, first, minimum(p.at_once, p.batch - first));
    launch_draw(part, stream);
    launch_resolve(part, stream);
  }
}

template <class T, class Index>
void launch_rasterize_backward(const RasterizeBackwardParams<T, Index>& p, GclStream stream) {
  const int64_t triangles = p.batch * p.num_faces, vertices = p.batch * p.num_verts;
  if (vertices == 0) return;
  if (triangles > 0 && p.height > 0 && p.width > 0) {
    GCL_LAUNCH((rasterize_backward_corner_kernel<T, Index>), blocks_for(triangles), kThreads, 0, stream, p);
  }
  GCL_LAUNCH((rasterize_backward_vertex_kernel<T, Index>), blocks_for(vertices), kThreads, 0, stream, p);
}

}  // namespace gcl
