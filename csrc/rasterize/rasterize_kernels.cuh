// GPU kernels of rasterize and the order in which they run. No torch header: the same file runs on emulated threads.
//
// Images that fit in a few blocks' shared memory are drawn by one fused kernel (rasterize_fused.cuh). Larger ones take the plain
// form: one thread walks the box of one face and takes the minimum of (depth, face) keys in a 64-bit z-buffer; then one thread
// per pixel reads the winner and computes what it says. Minima do not depend on order, so neither does the result.
#pragma once

#include <limits>

#include "common/launch.cuh"
#include "rasterize/rasterize.h"
#include "rasterize/rasterize_fused.cuh"
#include "rasterize/rasterize_math.h"

namespace gcl {

template <class T, class Index>
__device__ bool load_triangle_of(const RasterizeParams<T, Index>& p, int64_t b, int64_t f, Triangle<T>* t) {
  return load_triangle(p.verts + 3 * b * p.num_verts, p.faces + 3 * f, p.num_verts, p.height, p.width, p.cull_backfaces, t);
}

// One thread draws its triangle into the z-buffer [H, W] of an image. First pass: minima of the keys. kOwners, the second pass of
// double, whose key is all depth: the lowest face among those that reach it. face_id starts as -1, the largest unsigned number.
template <bool kOwners, class T>
__device__ void draw_triangle(const Triangle<T>& t, int64_t f, int64_t width, uint64_t* zbuffer, int32_t* face_id) {
  for_each_owned(t, [&](int64_t row, int64_t col, const Weights<T>& w) {
    const int64_t i = row * width + col;
    const uint64_t key = depth_key(w.depth, f);
    if constexpr (!kOwners) {
      atomicMin(reinterpret_cast<unsigned long long*>(zbuffer + i), static_cast<unsigned long long>(key));
    } else if (key == zbuffer[i]) {
      atomicMin(reinterpret_cast<unsigned*>(face_id + i), static_cast<unsigned>(f));
    }
  });
}

// What the passes left in pixel i: its face, or -1.
template <class T>
__device__ int64_t owner_of(const uint64_t* zbuffer, const int32_t* face_id, int64_t i) {
  if (zbuffer[i] == kNoKey) return -1;
  return sizeof(T) == 4 ? static_cast<int64_t>(zbuffer[i] & 0xffffffffu) : face_id[i];
}

template <bool kOwners, class T, class Index>
__global__ void rasterize_draw_kernel(RasterizeParams<T, Index> p) {
  GCL_EACH_ITEM(n, p.batch * p.num_faces) {
    const int64_t b = n / p.num_faces, f = n % p.num_faces, first = b * p.height * p.width;
    Triangle<T> t;
    if (load_triangle_of(p, b, f, &t))
      draw_triangle<kOwners>(t, f, p.width, p.zbuffer + first, kOwners ? p.face_id + first : nullptr);
  }
}

template <class T, class Index>
__global__ void rasterize_resolve_kernel(RasterizeParams<T, Index> p) {
  const int64_t pixels = p.height * p.width;
  GCL_EACH_ITEM(i, p.batch * pixels) {
    const int64_t b = i / pixels, row = i % pixels / p.width, col = i % p.width;
    const int64_t f = owner_of<T>(p.zbuffer, p.face_id, i);
    p.face_id[i] = static_cast<int32_t>(f);
    Triangle<T> t;
    int64_t edge[3];
    const bool seen = f >= 0 && load_triangle_of(p, b, f, &t);
    if (seen) covers(t, col, row, edge);
    const Weights<T> w = seen ? weigh(t, col, row, edge) : Weights<T>{};
    for (int k = 0; k < 3; ++k) p.bary[3 * i + k] = w.bary[k];
    p.depth[i] = seen ? w.depth : std::numeric_limits<T>::infinity();
  }
}

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

template <class T, class Index>
void launch_rasterize(const RasterizeParams<T, Index>& p, GclStream stream) {
  const int64_t pixels = p.batch * p.height * p.width, triangles = p.batch * p.num_faces;
  if (pixels == 0) return;
  if (can_fuse<T>(p.height, p.width, p.shared_bytes)) return launch_rasterize_fused(p, stream);
  GCL_FILL_BYTES(p.zbuffer, 0xff, pixels * sizeof(uint64_t), stream);
  if (triangles > 0) GCL_LAUNCH((rasterize_draw_kernel<false, T, Index>), blocks_for(triangles), kThreads, 0, stream, p);
  if constexpr (sizeof(T) == 8) {
    GCL_FILL_BYTES(p.face_id, 0xff, pixels * sizeof(int32_t), stream);
    if (triangles > 0) GCL_LAUNCH((rasterize_draw_kernel<true, T, Index>), blocks_for(triangles), kThreads, 0, stream, p);
  }
  GCL_LAUNCH((rasterize_resolve_kernel<T, Index>), blocks_for(pixels), kThreads, 0, stream, p);
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
