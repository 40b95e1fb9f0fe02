// The forward pass of float32 in one kernel, for images that a few blocks can hold. No torch header: the same file runs on
// emulated threads.
//
// A block has one image and a strip of its rows (of a very wide image: a piece of a row), whose z-buffer lies in shared memory;
// nothing is written to memory but the results.
//   1. Each warp looks at 32 faces at a time. Those that cannot touch the strip drop out after one look at their y; the others
//      are pressed together by a ballot and wait in the warp's own queue, so that later steps have full warps.
//   2. The warp draws 32 waiting triangles (warp_draw.cuh).
//   3. When all faces are done, each warp finishes spans of pixels (resolve.cuh).
// Minima of (depth, face) keys do not depend on order, so neither does the result.
//
// On an H100 slower than the plain form at every size measured (docs/kernels.md); strip size and threads are reasoned, not tuned.
// At 256 x 128 pixels a strip of an H100 is 86 rows (86 KiB), of an A100 52: two blocks lie on a multiprocessor.
#pragma once

#include "rasterize/resolve.cuh"

namespace gcl {

// The piece that a block works on.
struct Strip {
  int64_t b;
  Window window;
  GCL_HD int32_t cols() const { return window.col1 - window.col0; }
  GCL_HD int32_t pixels() const { return (window.row1 - window.row0) * cols(); }
};

GCL_HD Strip strip_of(const Strips& s, uint32_t n, int64_t height, int64_t width) {
  const auto across = static_cast<uint32_t>(s.across), count = static_cast<uint32_t>(s.down) * across, piece = n % count;
  const int64_t row = piece / across * s.rows, col = piece % across * s.cols;
  return {.b = n / count,
          .window = {.row0 = static_cast<int32_t>(row),
                     .row1 = static_cast<int32_t>(minimum(row + s.rows, height)),
                     .col0 = static_cast<int32_t>(col),
                     .col1 = static_cast<int32_t>(minimum(col + s.cols, width))}};
}

// Keys of a strip in shared memory. There, a 64-bit atomicMin is a loop that reads, compares and swaps, also where the key in
// place is the smaller one; this loop stops then, and its first swap succeeds in a pixel that nothing has covered.
struct StripCanvas {
  unsigned long long* nearest;  // [pixels]
  Window window;

  __device__ int32_t index(int32_t row, int32_t col) const {
    return (row - window.row0) * (window.col1 - window.col0) + (col - window.col0);
  }
  __device__ void offer(int32_t row, int32_t col, float depth, int32_t face) const {
    unsigned long long* const at = nearest + index(row, col);
    const unsigned long long key = depth_key(depth, face);
    for (unsigned long long expected = kNoKey;;) {
      const unsigned long long found = atomicCAS(at, expected, key);
      if (found == expected || found <= key) return;
      expected = found;
    }
  }
  __device__ bool hides(int32_t row, int32_t col, const float z[3]) const {
    const unsigned least = static_cast<unsigned>(depth_key(least_of_three(z), 0) >> 32);
    return load_relaxed(reinterpret_cast<const unsigned*>(nearest + index(row, col)) + 1) < least;
  }
};

// False only where no corner's row, snapped, can make the face cover a centre of the strip: those are half a pixel inside. NaN is
// left to load_triangle.
template <class Index>
__device__ bool may_touch(const Mesh<Index>& mesh, const Window& window, int32_t f) {
  const auto top = static_cast<float>(made_anew(window.row0)), bottom = static_cast<float>(made_anew(window.row1));
  const Index* const face = mesh.faces + 3 * int64_t{f};
  VertexNumber<Index> v[3];
  bool named = true, above = true, below = true;
  for (int k = 0; k < 3; ++k) {
    v[k] = static_cast<VertexNumber<Index>>(face[k]);
    named = named & (v[k] < mesh.num_verts);
  }
  if (!named) return false;
  for (int k = 0; k < 3; ++k) {
    const float y = mesh.verts[v[k]].y;
    above = above & (y < top);
    below = below & (y > bottom);
  }
  return !above && !below;
}

// Steps 1 and 2.
template <class Index, class Canvas>
__device__ void draw_strip(const Mesh<Index>& mesh, const Window& window, uint32_t num_faces, Desk* desk, const Canvas& canvas) {
  const int lane = static_cast<int>(threadIdx.x) % kWarpLanes;
  int count = 0;  // the same in all lanes
  for (uint32_t f = threadIdx.x;; f += kFusedThreads) {
    const bool over = f - static_cast<uint32_t>(lane) >= num_faces;
    if (!over) {
      const bool keep = f < num_faces && may_touch(mesh, window, static_cast<int32_t>(f));
      const unsigned kept = __ballot_sync(kAllLanes, keep);
      if (keep) desk->waiting[count + __popc(kept & ((1u << lane) - 1))] = static_cast<int32_t>(f);
      count += __popc(kept);
      if (count < kWarpLanes) continue;
    }
    __syncwarp();
    const int taken = minimum(count, kWarpLanes);
    count -= taken;
    const int32_t face = lane < taken ? desk->waiting[count + lane] : -1;
    __syncwarp();
    draw_faces(mesh, window, face, desk->hits, canvas);
    if (over) return;
  }
}

// Step 3 of rasterize.
template <class Index>
struct WriteRaster {
  using Params = RasterizeParams<float, Index>;
  __device__ void operator()(const Params& p, const Strip& s, unsigned long long* nearest, Desk* desk) const {
    const Mesh<Index> mesh = mesh_of(p, s.b);
    const int lane = static_cast<int>(threadIdx.x) % kWarpLanes, pixels = s.pixels(), cols = s.cols();
    const int64_t start = (s.b * p.height + s.window.row0) * p.width + s.window.col0;  // a strip is whole rows or within one
    for (int first = static_cast<int>(threadIdx.x) / kWarpLanes * kSpan; first < pixels; first += kFusedWarps * kSpan) {
      const Span span{.face_id = p.face_id + start + first,
                      .depth = p.depth + start + first,
                      .bary = p.bary + 3 * (start + first),
                      .row = s.window.row0 + first / cols,
                      .col = first % cols,
                      .left = s.window.col0,
                      .width = cols,
                      .count = minimum(pixels - first, kSpan)};
      uint64_t key[4];
      for (int j = 0; j < 4; ++j) key[j] = 4 * lane + j < span.count ? nearest[first + 4 * lane + j] : kNoKey;
      resolve_span(mesh, span, key, nearest + first, desk->bary);
    }
  }
};

// Finish: what a block does with the keys of its strip.
template <class Finish, class Index>
__global__ void __launch_bounds__(kFusedThreads, 2)
    rasterize_fused_kernel(RasterizeParams<float, Index> p, Strips strips, Finish finish) {
  GCL_DYNAMIC_SHARED(unsigned long long, nearest);  // [pixels] keys
  __shared__ Desk desks[kFusedWarps];
  Desk* const desk = desks + threadIdx.x / kWarpLanes;
  {
    const Strip s = strip_of(strips, blockIdx.x, p.height, p.width);
    for (int i = static_cast<int>(threadIdx.x); i < s.pixels(); i += kFusedThreads) nearest[i] = kNoKey;
    __syncthreads();
    draw_strip(mesh_of(p, s.b), s.window, static_cast<uint32_t>(p.num_faces), desk,
               StripCanvas{.nearest = nearest, .window = s.window});
    __syncthreads();
  }
  finish(p, strip_of(strips, blockIdx.x, p.height, p.width), nearest, desk);  // again: no register held it meanwhile
}

template <class Finish, class Index>
void launch_fused(const RasterizeParams<float, Index>& p, const Finish& finish, GclStream stream) {
  const Strips strips = cut_into_strips(p.height, p.width, p.shared_bytes);
  const int64_t bytes = strips.rows * strips.cols * kStripPixelBytes;
  GCL_ALLOW_SHARED((rasterize_fused_kernel<Finish, Index>), bytes);
  GCL_LAUNCH((rasterize_fused_kernel<Finish, Index>), p.batch * strips.count(), kFusedThreads, static_cast<size_t>(bytes), stream,
             p, strips, finish);
}

}  // namespace gcl
