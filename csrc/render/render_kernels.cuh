// GPU kernels of render_mesh and the order in which they run. No torch header: the same file runs on emulated threads.
//
// One block finds the axis of a body. Then, for as many pictures at once as their z-buffers fit in the second-level cache, one
// thread a vertex projects it into one view and one thread a face finds its grey in every view; rasterize's kernels draw all
// pictures as a batch of images, fused or plain; the greys of the winners are written.
#pragma once

#include <limits>

#include "common/launch.cuh"
#include "rasterize/rasterize_kernels.cuh"
#include "rasterize/resolve.cuh"
#include "render/render.h"
#include "render/render_math.h"

namespace gcl {

constexpr int kMiddleThreads = 1024;  // a block is alone with its body: many loads at once
constexpr int kMiddleLoads = 7;       // of a thread, before it looks at what came

// Minima and maxima do not depend on order.
template <class T, class Index>
__global__ void render_middle_kernel(RenderParams<T, Index> p) {
  __shared__ T low[2][kMiddleThreads];
  __shared__ T high[2][kMiddleThreads];
  const int t = static_cast<int>(threadIdx.x);
  for (int64_t b = blockIdx.x; b < p.batch; b += gridDim.x) {
    T least[2], most[2];
    for (int k = 0; k < 2; ++k) {
      least[k] = std::numeric_limits<T>::infinity();
      most[k] = -least[k];
    }
    for (int64_t first = t; first < p.num_verts; first += kMiddleLoads * kMiddleThreads) {
      T value[kMiddleLoads][2];
      for (int j = 0; j < kMiddleLoads; ++j) {  // beyond the last: that one again
        const int64_t v = minimum<int64_t>(first + j * kMiddleThreads, p.num_verts - 1);
        for (int k = 0; k < 2; ++k) value[j][k] = p.verts[3 * (b * p.num_verts + v) + 2 * k];  // x or z
      }
      for (int j = 0; j < kMiddleLoads; ++j) {
        for (int k = 0; k < 2; ++k) {
          least[k] = low_or_nan(value[j][k], least[k]);
          most[k] = high_or_nan(value[j][k], most[k]);
        }
      }
    }
    for (int k = 0; k < 2; ++k) {
      low[k][t] = least[k];
      high[k][t] = most[k];
    }
    __syncthreads();
    for (int half = kMiddleThreads / 2; half > 0; half /= 2) {
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

// The first blocks project vertices, one view of one body each; the others find the greys of a body's faces in all views.
template <class T, class Index>
__global__ void render_prepare_kernel(RenderParams<T, Index> p, unsigned vertex_blocks, unsigned face_blocks) {
  const unsigned projecting = vertex_blocks * static_cast<unsigned>(p.bodies_now * p.views_now);
  if (blockIdx.x < projecting) {
    const int64_t picture = blockIdx.x / vertex_blocks;
    const int64_t v = int64_t{blockIdx.x % vertex_blocks} * kThreads + threadIdx.x;
    if (v >= p.num_verts) return;
    const int64_t b = p.first_body + picture / p.views_now;
    const View<T> view = view_of(p, b, p.first_view + picture % p.views_now);
    const T* from = p.verts + 3 * (b * p.num_verts + v);
    T* to = p.pixels + 3 * (picture * p.num_verts + v);
    if (p.perspective) project_vertex<true>(view, from[0], from[1], from[2], to, to + 1, to + 2);
    else project_vertex<false>(view, from[0], from[1], from[2], to, to + 1, to + 2);
    return;
  }
  const unsigned n = blockIdx.x - projecting;
  const int64_t body = n / face_blocks, b = p.first_body + body;
  const int64_t f = int64_t{n % face_blocks} * kThreads + threadIdx.x;
  if (f >= p.num_faces) return;
  T corner[3][3];
  for (int k = 0; k < 3; ++k) {
    const int64_t v = static_cast<int64_t>(p.faces[3 * f + k]);
    if (v < 0 || v >= p.num_verts) return;  // never drawn
    for (int c = 0; c < 3; ++c) corner[k][c] = p.verts[3 * (b * p.num_verts + v) + c];
  }
  const Facing<T> facing = face_facing(corner[0], corner[1], corner[2], p.middle[2 * b], p.middle[2 * b + 1]);
  for (int64_t r = 0; r < p.views_now; ++r) {
    const View<T> view = view_of(p, b, p.first_view + r);
    p.grey[(body * p.views_now + r) * p.num_faces + f] = p.perspective ? shade<true>(view, facing) : shade<false>(view, facing);
  }
}

// Where the picture of a chunk goes.
template <class T, class Index>
__device__ T* image_of(const RenderParams<T, Index>& p, int64_t picture) {
  const int64_t b = p.first_body + picture / p.views_now, r = p.first_view + picture % p.views_now;
  return p.image + (b * p.views + r) * p.height * p.width;
}

// Plain: a thread writes four pixels of a picture.
template <class T, class Index>
__global__ void render_paint_kernel(RenderParams<T, Index> p, BlockDivisor blocks) {
  const unsigned picture = blocks.quotient(blockIdx.x);
  const int64_t pixels = p.height * p.width;
  const int64_t n = int64_t{blockIdx.x - picture * blocks.by} * kThreads + threadIdx.x;
  if (4 * n >= pixels) return;
  const T* const grey = p.grey + picture * p.num_faces;
  T* const image = image_of(p, picture);
  const bool wide = 4 * n + 4 <= pixels && aligned(image);
  int32_t face[4];
  const uint64_t* const keys = p.zbuffer + picture * pixels + 4 * n;
  const bool pairs = sizeof(T) == 4 && 4 * n + 4 <= pixels && aligned(keys);
  for (int h = 0; h < 2 && pairs; ++h) {
    const Two both = reinterpret_cast<const Two*>(keys)[h];
    for (int j = 0; j < 2; ++j) face[2 * h + j] = static_cast<int32_t>(both.v[j] & 0xffffffffu);
  }
  for (int j = 0; j < 4 && !pairs; ++j) {
    const int64_t i = picture * pixels + minimum(4 * n + j, pixels - 1);
    face[j] = sizeof(T) == 4 ? static_cast<int32_t>(p.zbuffer[i] & 0xffffffffu) : p.face_id[i];
  }
  Four<T> four;
  for (int j = 0; j < 4; ++j) four.v[j] = face[j] < 0 ? T(0) : grey[face[j]];
  if (wide) reinterpret_cast<Four<T>*>(image)[n] = four;
  for (int j = 0; j < 4 && !wide; ++j) image[minimum(4 * n + j, pixels - 1)] = four.v[j];
}

// What a block of the fused kernel does with the keys of its strip.
template <class Index>
struct PaintStrip {
  RenderParams<float, Index> render;
  __device__ void operator()(const RasterizeParams<float, Index>& p, const Strip& s, unsigned long long* nearest, Desk*) const {
    const float* const grey = render.grey + s.b * p.num_faces;
    float* const image = image_of(render, s.b) + s.window.row0 * p.width + s.window.col0;  // whole rows, or within one
    const int pixels = s.pixels(), fours = aligned(image) ? pixels / 4 : 0;
    const auto grey_at = [&](int i) {
      const int32_t face = static_cast<int32_t>(nearest[i] & 0xffffffffu);
      return face < 0 ? 0.0f : grey[face];
    };
    for (int n = static_cast<int>(threadIdx.x); n < fours; n += kFusedThreads) {
      Four<float> four;
      for (int j = 0; j < 4; ++j) four.v[j] = grey_at(4 * n + j);
      reinterpret_cast<Four<float>*>(image)[n] = four;
    }
    for (int i = 4 * fours + static_cast<int>(threadIdx.x); i < pixels; i += kFusedThreads) image[i] = grey_at(i);
  }
};

template <class T, class Index>
void launch_chunk(const RenderParams<T, Index>& p, GclStream stream) {
  const int64_t pictures = p.bodies_now * p.views_now, vertices = blocks_for(p.num_verts), faces = blocks_for(p.num_faces);
  if (p.num_verts > 0) {
    GCL_LAUNCH((render_prepare_kernel<T, Index>), pictures * vertices + p.bodies_now * faces, kThreads, 0, stream, p,
               static_cast<unsigned>(vertices), static_cast<unsigned>(faces));
  }
  RasterizeParams<T, Index> r = raster_of(p, p.pixels, pictures, p.face_id);
  r.shared_bytes = p.shared_bytes;
  r.zbuffer = p.zbuffer;
  if constexpr (sizeof(T) == 4) {
    if (p.fused) return launch_fused(r, PaintStrip<Index>{p}, stream);
  }
  launch_draw(r, stream);
  const int64_t blocks = blocks_for((p.height * p.width + 3) / 4);
  GCL_LAUNCH((render_paint_kernel<T, Index>), pictures * blocks, kThreads, 0, stream, p, BlockDivisor(blocks));
}

// host_turns [R, 2]: cosines and sines in the memory of the host, or null where p.turns lie on the GPU.
template <class T, class Index>
void launch_render(RenderParams<T, Index> p, const T* host_turns, GclStream stream) {
  if (p.batch * p.views * p.height * p.width == 0) return;
  GCL_LAUNCH((render_middle_kernel<T, Index>), capped_blocks(p.batch), kMiddleThreads, 0, stream, p);
  if (host_turns != nullptr) p.turns = nullptr;
  for (p.first_view = 0; p.first_view < p.views; p.first_view += kViewsAtOnce) {
    p.views_now = minimum(kViewsAtOnce, p.views - p.first_view);
    if (host_turns != nullptr) {
      std::memcpy(p.sent, host_turns + 2 * p.first_view, static_cast<size_t>(2 * p.views_now) * sizeof(T));
    }
    for (p.first_body = 0; p.first_body < p.batch; p.first_body += p.bodies_at_once) {
      p.bodies_now = minimum(p.bodies_at_once, p.batch - p.first_body);
      launch_chunk(p, stream);
    }
  }
}

}  // namespace gcl
