// GPU kernels of render_mesh and the order in which they run. No torch header: the same file runs on emulated threads.
//
// Plain form: one block finds the axis of a body; one thread reads a face's corners once and draws them in every view, into a
// 64-bit z-buffer as rasterize does; one thread a pixel shades the winner. No projected vertex is ever written.
#pragma once

#include <limits>

#include "common/launch.cuh"
#include "rasterize/rasterize_kernels.cuh"
#include "render/render.h"
#include "render/render_math.h"

namespace gcl {

// Minima and maxima do not depend on order.
template <class T, class Index>
__global__ void render_middle_kernel(RenderParams<T, Index> p) {
  __shared__ T low[2][kThreads];
  __shared__ T high[2][kThreads];
  const int t = static_cast<int>(threadIdx.x);
  for (int64_t b = blockIdx.x; b < p.batch; b += gridDim.x) {
    for (int k = 0; k < 2; ++k) {
      T least = std::numeric_limits<T>::infinity(), most = -least;
      for (int64_t v = t; v < p.num_verts; v += kThreads) {
        const T value = p.verts[3 * (b * p.num_verts + v) + 2 * k];  // x or z
        least = low_or_nan(value, least);
        most = high_or_nan(value, most);
      }
      low[k][t] = least;
      high[k][t] = most;
    }
    __syncthreads();
    for (int half = kThreads / 2; half > 0; half /= 2) {
      for (int k = 0; t < half && k < 2; ++k) {
        low[k][t] = low_or_nan(low[k][t + half], low[k][t]);
        high[k][t] = high_or_nan(high[k][t + half], high[k][t]);
      }
      __syncthreads();
    }
    if (t < 2) p.middle[2 * b + t] = middle_of(low[t][0], high[t][0]);
    __syncthreads();  // before the next body writes there
  }
}

template <class T, class Index>
__device__ View<T> view_of(const RenderParams<T, Index>& p, int64_t b, int64_t r) {
  const T cosine = p.turns != nullptr ? p.turns[2 * r] : p.sent[2 * (r - p.first_view)];
  const T sine = p.turns != nullptr ? p.turns[2 * r + 1] : p.sent[2 * (r - p.first_view) + 1];
  return make_view(p.middle + 2 * b, p.camera + (p.perspective ? 6 : 3) * b, p.perspective, cosine, sine, p.height, p.width);
}

// False where the face names no vertex.
template <class T, class Index>
__device__ bool load_corners(const RenderParams<T, Index>& p, int64_t b, int64_t f, T corner[3][3]) {
  for (int k = 0; k < 3; ++k) {
    const int64_t v = static_cast<int64_t>(p.faces[3 * f + k]);
    if (v < 0 || v >= p.num_verts) return false;
    for (int c = 0; c < 3; ++c) corner[k][c] = p.verts[3 * (b * p.num_verts + v) + c];
  }
  return true;
}

template <class T>
__device__ bool project_triangle(const View<T>& view, bool perspective, const T corner[3][3], int64_t height, int64_t width,
                                 Triangle<T>* t) {
  for (int k = 0; k < 3; ++k) {
    const T* v = corner[k];
    if (perspective) project_vertex<true>(view, v[0], v[1], v[2], &t->x[k], &t->y[k], &t->z[k]);
    else project_vertex<false>(view, v[0], v[1], v[2], &t->x[k], &t->y[k], &t->z[k]);
  }
  return set_up_triangle(height, width, false, t);
}

// kOwners: the second pass of double.
template <bool kOwners, class T, class Index>
__global__ void render_draw_kernel(RenderParams<T, Index> p) {
  const int64_t pixels = p.height * p.width;
  GCL_EACH_ITEM(n, p.batch * p.num_faces) {
    const int64_t b = n / p.num_faces, f = n % p.num_faces;
    T corner[3][3];
    if (!load_corners(p, b, f, corner)) continue;
    for (int64_t r = p.first_view; r < p.first_view + p.views_now; ++r) {
      Triangle<T> t;
      if (!project_triangle(view_of(p, b, r), p.perspective, corner, p.height, p.width, &t)) continue;
      const int64_t first = (b * p.views + r) * pixels;
      draw_triangle<kOwners>(t, f, p.width, p.zbuffer + first, kOwners ? p.face_id + first : nullptr);
    }
  }
}

template <class T, class Index>
__global__ void render_shade_kernel(RenderParams<T, Index> p) {
  const int64_t pixels = p.height * p.width;
  GCL_EACH_ITEM(n, p.batch * p.views_now * pixels) {
    const int64_t b = n / (p.views_now * pixels), r = p.first_view + n / pixels % p.views_now;
    const int64_t i = (b * p.views + r) * pixels + n % pixels;
    const int64_t f = owner_of<T>(p.zbuffer, p.face_id, i);
    T grey = T(0), corner[3][3];
    if (f >= 0 && load_corners(p, b, f, corner)) {
      const View<T> view = view_of(p, b, r);
      const Facing<T> facing = face_facing(corner[0], corner[1], corner[2], view.middle_x, view.middle_z);
      grey = p.perspective ? shade<true>(view, facing) : shade<false>(view, facing);
    }
    p.image[i] = grey;
  }
}

template <class T, class Index>
void launch_views(const RenderParams<T, Index>& p, GclStream stream) {
  const int64_t triangles = p.batch * p.num_faces;
  if (triangles > 0) {
    GCL_LAUNCH((render_draw_kernel<false, T, Index>), blocks_for(triangles), kThreads, 0, stream, p);
    if constexpr (sizeof(T) == 8) {
      GCL_LAUNCH((render_draw_kernel<true, T, Index>), blocks_for(triangles), kThreads, 0, stream, p);
    }
  }
  GCL_LAUNCH((render_shade_kernel<T, Index>), blocks_for(p.batch * p.views_now * p.height * p.width), kThreads, 0, stream, p);
}

// host_turns [R, 2]: cosines and sines in the memory of the host, or null where p.turns lie on the GPU.
template <class T, class Index>
void launch_render(RenderParams<T, Index> p, const T* host_turns, GclStream stream) {
  const int64_t pixels = p.batch * p.views * p.height * p.width;
  if (pixels == 0) return;
  GCL_FILL_BYTES(p.zbuffer, 0xff, pixels * sizeof(uint64_t), stream);
  if (sizeof(T) == 8) GCL_FILL_BYTES(p.face_id, 0xff, pixels * sizeof(int32_t), stream);
  GCL_LAUNCH((render_middle_kernel<T, Index>), capped_blocks(p.batch), kThreads, 0, stream, p);
  p.views_now = p.views;
  if (host_turns == nullptr) return launch_views(p, stream);
  p.turns = nullptr;
  for (p.first_view = 0; p.first_view < p.views; p.first_view += kViewsAtOnce) {
    p.views_now = minimum(kViewsAtOnce, p.views - p.first_view);
    std::memcpy(p.sent, host_turns + 2 * p.first_view, static_cast<size_t>(2 * p.views_now) * sizeof(T));
    launch_views(p, stream);
  }
}

}  // namespace gcl
