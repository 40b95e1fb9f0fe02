// GPU kernels of mesh_flow, mesh_warp and its backward, and the order in which they run. No torch header: the same file runs
// on emulated threads.
#pragma once

#include <limits>

#include "common/launch.cuh"
#include "warp/warp_math.h"

namespace gcl {

constexpr int kLimitThreads = 1024;  // a block is alone with its image: many loads at once
constexpr int kLimitLoads = 7;       // of a thread, before it looks at what came: all 6,890 vertices of a body in one wait

// One block an image: the reach of its depths. Minima and maxima do not depend on order.
template <class T>
__global__ void flow_limits_kernel(FlowParams<T> p) {
  __shared__ T nearest[kLimitThreads];
  __shared__ T farthest[kLimitThreads];
  const int t = static_cast<int>(threadIdx.x);
  for (int64_t b = blockIdx.x; b < p.batch; b += gridDim.x) {
    T low = std::numeric_limits<T>::infinity(), high = -low;
    for (int64_t first = t; first < p.num_verts; first += kLimitLoads * kLimitThreads) {
      T v[kLimitLoads][3];
      for (int j = 0; j < kLimitLoads; ++j) {  // beyond the last: that one again
        const int64_t n = minimum<int64_t>(first + j * kLimitThreads, p.num_verts - 1);
        for (int k = 0; k < 3; ++k) v[j][k] = p.src_verts[3 * (b * p.num_verts + n) + k];
      }
      for (int j = 0; j < kLimitLoads; ++j) widen(v[j], &low, &high);
    }
    nearest[t] = low;
    farthest[t] = high;
    __syncthreads();
    for (int half = kLimitThreads / 2; half > 0; half /= 2) {
      if (t < half) {
        nearest[t] = minimum(nearest[t], nearest[t + half]);
        farthest[t] = maximum(farthest[t], farthest[t + half]);
      }
      __syncthreads();
    }
    if (t == 0) limits_of(nearest[0], farthest[0], p.limits + 2 * b);
    __syncthreads();  // before the next image writes there
  }
}

// What pixel n of image b shows of the source, if it shows a face.
template <class T>
__device__ SourcePoint<T> point_of_pixel(const FlowParams<T>& p, int64_t b, int64_t n, int32_t face) {
  T x[3], y[3], z[3];
  for (int k = 0; k < 3; ++k) {
    const int32_t v = nearest_index(p.faces[3 * static_cast<int64_t>(face) + k], static_cast<int32_t>(p.num_verts));
    const T* at = p.src_verts + 3 * (b * p.num_verts + v);
    x[k] = at[0];
    y[k] = at[1];
    z[k] = at[2];
  }
  return source_point(x, y, z, p.dst_bary + 3 * n, p.limits[2 * b]);
}

template <class T>
__device__ bool visible_pixel(const FlowParams<T>& p, int64_t b, int32_t face, const SourcePoint<T>& point) {
  const int32_t height = static_cast<int32_t>(p.height), width = static_cast<int32_t>(p.width);
  T covered = T(0), agreeing = T(0);
  for (int n = 0; n < 4; ++n) {
    const Tap<T> tap = tap_at(point.x, point.y, n, height, width);
    const int64_t i = b * p.height * p.width + tap.index;
    const T seen = p.src_depth[i], weight = covered_weight(tap.weight, tap.within, seen);
    covered += weight;
    agreeing += agrees(point, tap.dx, tap.dy, seen, p.src_face_id[i] == face, p.limits[2 * b + 1]) ? weight : T(0);
  }
  return is_visible(point, covered, agreeing, height, width);
}

template <class T>
__global__ void flow_kernel(FlowParams<T> p) {
  const int64_t pixels = p.height * p.width;
  const int32_t height = static_cast<int32_t>(p.height), width = static_cast<int32_t>(p.width);
  GCL_EACH_ITEM(n, p.batch * pixels) {
    const int32_t face = p.dst_face_id[n];
    T gx = T(-2), gy = T(-2);
    uint8_t seen = 0;
    if (face >= 0 && face < p.num_faces) {
      const SourcePoint<T> point = point_of_pixel(p, n / pixels, n, face);
      seen = visible_pixel(p, n / pixels, face, point) ? 1 : 2;
      gx = point.finite ? grid_units(point.x, width) : T(-2);
      gy = point.finite ? grid_units(point.y, height) : T(-2);
    }
    p.visibility[n] = seen;
    p.grid[2 * n] = gx;
    p.grid[2 * n + 1] = gy;
  }
}

constexpr int kColours = 3;  // channels that a thread reads before it waits

// Flow and bilinear read in one pass: the grid is never written.
template <class T, class S>
__global__ void warp_kernel(WarpParams<T, S> p) {
  const FlowParams<T>& f = p.flow;
  const int64_t pixels = f.height * f.width;
  const int32_t height = static_cast<int32_t>(f.height), width = static_cast<int32_t>(f.width);
  GCL_EACH_ITEM(n, f.batch * pixels) {
    const int64_t b = n / pixels, pixel = n % pixels;
    const int32_t face = f.dst_face_id[n];
    SourcePoint<T> point{};
    Tap<T> tap[4]{};
    uint8_t seen = 0;
    if (face >= 0 && face < f.num_faces) {
      point = point_of_pixel(f, b, n, face);
      for (int k = 0; k < 4; ++k) tap[k] = tap_at(point.x, point.y, k, height, width);
      seen = visible_pixel(f, b, face, point) ? 1 : 2;
    }
    f.visibility[n] = seen;
    if (p.source != nullptr) {
      p.source[2 * n] = seen == 1 ? point.x : T(-1);
      p.source[2 * n + 1] = seen == 1 ? point.y : T(-1);
    }
    for (int64_t first = 0; first < p.channels; first += kColours) {
      S read[kColours][4];
      for (int j = 0; seen == 1 && j < kColours; ++j) {  // beyond the last: that one again
        const int64_t plane = (b * p.channels + minimum(first + j, p.channels - 1)) * pixels;
        for (int k = 0; k < 4; ++k) read[j][k] = p.image[plane + tap[k].index];
      }
      for (int j = 0; j < kColours && first + j < p.channels; ++j) {
        S value = p.fill;
        if (seen == 1) {
          value = S(0);
          for (int k = 0; k < 4; ++k) value += tap[k].within ? S(tap[k].weight) * read[j][k] : S(0);
        }
        p.warped[(b * p.channels + first + j) * pixels + pixel] = value;
      }
    }
  }
}

// One thread a pixel of the image gathers from the four cells around it, in the order of the pixels that read there: each
// cell's are in order, so the next one is the least of four heads.
template <class T, class S>
__global__ void warp_backward_kernel(WarpBackwardParams<T, S> p) {
  const int64_t pixels = p.height * p.width;
  const int64_t count = p.batch * p.channels * pixels;
  GCL_EACH_ITEM(n, count) {
    const int64_t plane = n / pixels, b = plane / p.channels, i = n % pixels / p.width, j = n % p.width;
    int64_t head[4], end[4];
    for (int k = 0; k < 4; ++k) {  // the cell for which this pixel is tap k
      const int64_t cell = (b * (p.height + 1) + i + 1 - k / 2) * (p.width + 1) + j + 1 - k % 2;
      head[k] = p.cell_begin[cell];
      end[k] = p.cell_begin[cell + 1];
    }
    S sum = S(0);
    for (;;) {
      int tap = -1;
      int64_t from = 0;
      for (int k = 0; k < 4; ++k) {
        if (head[k] >= end[k]) continue;
        const int64_t pixel = p.pixel_order[head[k]];
        if (tap >= 0 && pixel > from) continue;
        tap = k;
        from = pixel;
      }
      if (tap < 0) break;
      for (int k = 0; k < 4; ++k) head[k] += k == tap;
      const Tap<T> t =
          tap_at(p.source[2 * from], p.source[2 * from + 1], tap, static_cast<int32_t>(p.height), static_cast<int32_t>(p.width));
      sum += S(t.weight) * p.grad_warped[plane * pixels + from - b * pixels];
    }
    p.grad_image[n] = sum;
  }
}

template <class T>
void launch_limits(const FlowParams<T>& p, GclStream stream) {
  GCL_LAUNCH((flow_limits_kernel<T>), capped_blocks(p.batch), kLimitThreads, 0, stream, p);
}

template <class T>
void launch_flow(const FlowParams<T>& p, GclStream stream) {
  const int64_t pixels = p.batch * p.height * p.width;
  if (pixels == 0) return;
  launch_limits(p, stream);
  GCL_LAUNCH((flow_kernel<T>), blocks_for(pixels), kThreads, 0, stream, p);
}

template <class T, class S>
void launch_warp(const WarpParams<T, S>& p, GclStream stream) {
  const int64_t pixels = p.flow.batch * p.flow.height * p.flow.width;
  if (pixels == 0) return;
  launch_limits(p.flow, stream);
  GCL_LAUNCH((warp_kernel<T, S>), blocks_for(pixels), kThreads, 0, stream, p);
}

template <class T, class S>
void launch_warp_backward(const WarpBackwardParams<T, S>& p, GclStream stream) {
  const int64_t count = p.batch * p.channels * p.height * p.width;
  if (count > 0) GCL_LAUNCH((warp_backward_kernel<T, S>), blocks_for(count), kThreads, 0, stream, p);
}

}  // namespace gcl
