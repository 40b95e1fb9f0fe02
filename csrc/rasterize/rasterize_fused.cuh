// The forward pass in one kernel, for images that a few blocks can hold. No torch header: the same file runs on emulated threads.
//
// A block has one image and a strip of its rows (of a very wide image: a piece of a row), whose z-buffer lies in shared memory;
// nothing is written to memory but the results.
//   1. Each warp looks at 32 faces at a time. Those that cannot touch the strip drop out after one look at their y; the others
//      are pressed together by a ballot and wait in the warp's own queue, so that later steps have full warps.
//   2. A thread takes one waiting triangle and walks its box by stepping edge functions. Triangles with a large box are left for
//      the end of the step, when the whole warp walks one after the other.
//   3. When all faces are done, each thread takes four neighbouring pixels and writes 16 bytes at a time.
// Minima of (depth, face) keys do not depend on order, so neither does the result. A double fills the key: its faces are found in
// a second walk over the triangles.
//
// Not yet measured on a GPU: strip size, threads and the bound of large boxes are reasoned, not tuned. At 256 x 128 pixels a
// strip is 64 rows (64 KiB): two blocks on a multiprocessor of an A100 or H100, and each face is looked at four times.
#pragma once

#include <limits>

#include "common/launch.cuh"
#include "rasterize/rasterize.h"
#include "rasterize/rasterize_math.h"

namespace gcl {

constexpr uint64_t kNoKey = ~uint64_t{0};  // behind every finite depth
constexpr int kFusedThreads = 384;  // two blocks leave a thread 80 registers, which float needs
constexpr int kWarpLanes = 32;
constexpr unsigned kAllLanes = 0xffffffffu;
constexpr int64_t kStripBytes = 64 << 10;
constexpr int64_t kQueueBytes = int64_t{kFusedThreads} * 2 * sizeof(int32_t);
constexpr int64_t kMaxStrips = 16;  // of an image; beyond, looking at every face in each of them costs more than it saves
constexpr int kLargeBox = 48;  // pixels from which a warp walks a box together
static_assert(kFusedThreads % kWarpLanes == 0);

// How an image is cut: pieces of rows x cols pixels, at the last ones fewer.
struct Strips {
  int64_t rows = 0, cols = 0, down = 0, across = 0;
  GCL_HD int64_t count() const { return down * across; }
};

template <class T>
constexpr int64_t kStripPixelBytes = sizeof(T) == 4 ? 8 : 12;  // a key; of double, the face too

// For blocks that may have `shared` bytes.
template <class T>
Strips cut_into_strips(int64_t height, int64_t width, int64_t shared) {
  const int64_t room = (minimum(shared - kQueueBytes, kStripBytes)) / kStripPixelBytes<T>;
  if (room < 1 || height == 0 || width == 0) return {};
  Strips s;
  s.across = (width + room - 1) / room;
  s.cols = (width + s.across - 1) / s.across;
  const int64_t rows = minimum(height, maximum<int64_t>(room / s.cols, 1));
  s.down = (height + rows - 1) / rows;
  s.rows = (height + s.down - 1) / s.down;
  return s;
}

// Whether the fused kernel draws images of this size; the others need the z-buffer of rasterize_kernels.cuh.
template <class T>
bool can_fuse(int64_t height, int64_t width, int64_t shared) {
  const int64_t count = cut_into_strips<T>(height, width, shared).count();
  return count > 0 && count <= kMaxStrips;
}

// The piece that a block works on: of image b, rows [row0, row1) and columns [col0, col1).
struct Strip {
  int64_t b;
  int32_t row0, row1, col0, col1;
  GCL_HD int32_t cols() const { return col1 - col0; }
  GCL_HD int32_t pixels() const { return (row1 - row0) * (col1 - col0); }
  GCL_HD int32_t index(int32_t row, int32_t col) const { return (row - row0) * cols() + (col - col0); }
};

GCL_HD Strip strip_of(const Strips& s, int64_t n, int64_t height, int64_t width) {
  const int64_t piece = n % s.count(), row = piece / s.across * s.rows, col = piece % s.across * s.cols;
  return {.b = n / s.count(),
          .row0 = static_cast<int32_t>(row),
          .row1 = static_cast<int32_t>(minimum(row + s.rows, height)),
          .col0 = static_cast<int32_t>(col),
          .col1 = static_cast<int32_t>(minimum(col + s.cols, width))};
}

// False only where no corner's row, snapped, can make the face cover a centre of the strip. NaN is left to load_triangle.
template <class T, class Index>
__device__ bool may_touch(const RasterizeParams<T, Index>& p, const Strip& s, int64_t f) {
  const T* verts = p.verts + 3 * s.b * p.num_verts;
  const T top = static_cast<T>(s.row0), bottom = static_cast<T>(s.row1);  // centres are half a pixel inside
  bool above = true, below = true;
  for (int k = 0; k < 3; ++k) {
    const int64_t v = static_cast<int64_t>(p.faces[3 * f + k]);
    if (v < 0 || v >= p.num_verts) return false;
    const T y = verts[3 * v + 1];
    above = above && y < top;
    below = below && y > bottom;
  }
  return !above && !below;
}

// The box of a triangle, cut to the strip; false where nothing is left.
template <class T, class Index>
__device__ bool load_within(const RasterizeParams<T, Index>& p, const Strip& s, int64_t f, Triangle<T>* t) {
  const T* verts = p.verts + 3 * s.b * p.num_verts;
  if (!load_triangle(verts, p.faces + 3 * f, p.num_verts, p.height, p.width, p.cull_backfaces, t)) return false;
  t->row0 = maximum(t->row0, s.row0);
  t->row1 = minimum(t->row1, s.row1 - 1);
  t->col0 = maximum(t->col0, s.col0);
  t->col1 = minimum(t->col1, s.col1 - 1);
  return t->row0 <= t->row1 && t->col0 <= t->col1;
}

// What a triangle says at a centre that it owns.
template <class T>
struct Shaded {
  T depth, bary[3];
};

// Without an area before snapping.
template <class T, class Index>
__device__ GCL_RARE Shaded<T> shade_flat(const T* verts, const Index* face, int64_t num_verts, int32_t row, int32_t col) {
  Triangle<T> t;
  int64_t edge[3];
  load_triangle(verts, face, num_verts, kMaxImageSize, kMaxImageSize, false, &t);
  covers(t, col, row, edge);
  const Weights<T> w = weigh(t, col, row, edge);
  return {.depth = w.depth, .bary = {w.bary[0], w.bary[1], w.bary[2]}};
}

template <class T, class Index>
__device__ Shaded<T> shade(const RasterizeParams<T, Index>& p, const T x[3], const T y[3], const T z[3], int64_t b, int64_t f,
                           int32_t row, int32_t col) {
  Shaded<T> out;
  if (weigh_unsnapped(x, y, z, col, row, out.bary, &out.depth)) return out;
  return shade_flat(p.verts + 3 * b * p.num_verts, p.faces + 3 * f, p.num_verts, row, col);
}

// Step 2 for a warp: the face that each lane holds, -1 for none. Calls visit(face, row, col, depth) for every owned centre.
template <class T, class Index, class Visit>
__device__ void draw_faces(const RasterizeParams<T, Index>& p, const Strip& s, int32_t face, Visit&& visit) {
  Triangle<T> t;
  const bool touches = face >= 0 && load_within(p, s, face, &t);
  const bool large = touches && (!is_short(t) || (t.row1 - t.row0 + 1) * (t.col1 - t.col0 + 1) >= kLargeBox);
  if (touches && !large) {
    EdgeSteps<int32_t> e = edge_steps(t, t.col0, t.row0);
    for (int32_t row = t.row0; row <= t.row1; ++row) {
      int32_t at[3] = {e.value[0], e.value[1], e.value[2]};
      for (int32_t col = t.col0; col <= t.col1; ++col) {
        if ((at[0] | at[1] | at[2]) >= 0) visit(face, row, col, shade(p, t.x, t.y, t.z, s.b, face, row, col).depth);
        for (int k = 0; k < 3; ++k) at[k] += e.across[k];
      }
      for (int k = 0; k < 3; ++k) e.value[k] += e.down[k];
    }
  }
  for (unsigned left = __ballot_sync(kAllLanes, large); left != 0; left &= left - 1) {
    const int32_t common = __shfl_sync(kAllLanes, face, __ffs(static_cast<int>(left)) - 1);
    load_within(p, s, common, &t);
    const int32_t cols = t.col1 - t.col0 + 1, pixels = (t.row1 - t.row0 + 1) * cols;
    for (int32_t i = static_cast<int32_t>(threadIdx.x) % kWarpLanes; i < pixels; i += kWarpLanes) {
      const int32_t row = t.row0 + i / cols, col = t.col0 + i % cols;
      int64_t edge[3];
      if (covers(t, col, row, edge)) visit(common, row, col, shade(p, t.x, t.y, t.z, s.b, common, row, col).depth);
    }
  }
}

// Steps 1 and 2. `waiting`: the warp's queue of 2 * kWarpLanes.
template <class T, class Index, class Visit>
__device__ void draw_strip(const RasterizeParams<T, Index>& p, const Strip& s, int32_t* waiting, Visit&& visit) {
  const int lane = static_cast<int>(threadIdx.x) % kWarpLanes;
  int count = 0;  // the same in all lanes
  for (int64_t first = threadIdx.x - lane;; first += blockDim.x) {
    const bool over = first >= p.num_faces;
    if (!over) {
      const int64_t f = first + lane;
      const bool keep = f < p.num_faces && may_touch(p, s, f);
      const unsigned kept = __ballot_sync(kAllLanes, keep);
      if (keep) waiting[count + __popc(kept & ((1u << lane) - 1))] = static_cast<int32_t>(f);
      count += __popc(kept);
      if (count < kWarpLanes) continue;
    }
    __syncwarp();
    const int taken = minimum(count, kWarpLanes);
    count -= taken;
    const int32_t face = lane < taken ? waiting[count + lane] : -1;
    __syncwarp();
    draw_faces(p, s, face, visit);
    if (over) return;
  }
}

template <class T>
struct alignas(16) Four {
  T v[4];
};

// Step 3. face_at(i): the face seen in pixel i of the strip.
template <class T, class Index, class FaceAt>
__device__ void write_strip(const RasterizeParams<T, Index>& p, const Strip& s, FaceAt&& face_at) {
  const int pixels = s.pixels();
  const int64_t start = (s.b * p.height + s.row0) * p.width + s.col0;
  const auto aligned = [](const void* at) { return reinterpret_cast<uintptr_t>(at) % 16 == 0; };
  const bool wide = s.cols() == p.width && aligned(p.face_id + start) && aligned(p.depth + start) && aligned(p.bary + 3 * start);
  const int fours = wide ? pixels / 4 : 0;
  // Returns whether the face is flat: then its values are still to be found.
  const auto look = [&](int32_t face, int32_t row, int32_t col, Shaded<T>* out) {
    *out = {.depth = std::numeric_limits<T>::infinity(), .bary = {}};
    if (face < 0) return false;
    T x[3], y[3], z[3];
    for (int k = 0; k < 3; ++k) {
      const T* corner = p.verts + 3 * (s.b * p.num_verts + static_cast<int64_t>(p.faces[3 * int64_t{face} + k]));
      x[k] = corner[0];
      y[k] = corner[1];
      z[k] = corner[2];
    }
    return !weigh_unsnapped(x, y, z, col, row, out->bary, &out->depth);
  };
  const auto write = [&](int i, int32_t row, int32_t col) {
    const int32_t face = face_at(i);
    Shaded<T> shaded;
    if (look(face, row, col, &shaded)) {
      shaded = shade_flat(p.verts + 3 * s.b * p.num_verts, p.faces + 3 * int64_t{face}, p.num_verts, row, col);
    }
    const int64_t to = (s.b * p.height + row) * p.width + col;
    p.face_id[to] = face;
    p.depth[to] = shaded.depth;
    for (int k = 0; k < 3; ++k) p.bary[3 * to + k] = shaded.bary[k];
  };
  for (int n = static_cast<int>(threadIdx.x); n < fours; n += static_cast<int>(blockDim.x)) {
    Four<int32_t> face;
    Four<T> depth, bary[3];
    bool flat = false;
    for (int j = 0; j < 4; ++j) {
      const int i = 4 * n + j;
      Shaded<T> shaded;
      face.v[j] = face_at(i);
      flat |= look(face.v[j], s.row0 + i / s.cols(), i % s.cols(), &shaded);
      depth.v[j] = shaded.depth;
      for (int k = 0; k < 3; ++k) bary[(3 * j + k) / 4].v[(3 * j + k) % 4] = shaded.bary[k];
    }
    const int64_t to = start + 4 * n;
    *reinterpret_cast<Four<int32_t>*>(p.face_id + to) = face;
    *reinterpret_cast<Four<T>*>(p.depth + to) = depth;
    for (int k = 0; k < 3; ++k) reinterpret_cast<Four<T>*>(p.bary + 3 * to)[k] = bary[k];
    for (int i = 4 * n; flat && i < 4 * n + 4; ++i) write(i, s.row0 + i / s.cols(), i % s.cols());
  }
  for (int i = 4 * fours + static_cast<int>(threadIdx.x); i < pixels; i += static_cast<int>(blockDim.x)) {
    write(i, s.row0 + i / s.cols(), s.col0 + i % s.cols());
  }
}

template <class T, class Index>
__global__ void __launch_bounds__(kFusedThreads, sizeof(T) == 4 ? 2 : 1)
    rasterize_fused_kernel(RasterizeParams<T, Index> p, Strips strips) {
  GCL_DYNAMIC_SHARED(unsigned long long, nearest);  // [pixels] keys
  __shared__ int32_t waiting[kFusedThreads / kWarpLanes][2 * kWarpLanes];
  unsigned* const owner = reinterpret_cast<unsigned*>(nearest + strips.rows * strips.cols);  // [pixels] of double
  int32_t* const queue = waiting[threadIdx.x / kWarpLanes];
  for (int64_t n = blockIdx.x; n < p.batch * strips.count(); n += gridDim.x) {
    const Strip s = strip_of(strips, n, p.height, p.width);
    const int pixels = s.pixels();
    for (int i = static_cast<int>(threadIdx.x); i < pixels; i += static_cast<int>(blockDim.x)) {
      nearest[i] = kNoKey;
      if (sizeof(T) == 8) owner[i] = ~0u;
    }
    __syncthreads();
    draw_strip(p, s, queue, [&](int32_t face, int row, int col, T depth) {
      atomicMin(nearest + s.index(row, col), static_cast<unsigned long long>(depth_key(depth, face)));
    });
    __syncthreads();
    if (sizeof(T) == 8) {
      draw_strip(p, s, queue, [&](int32_t face, int row, int col, T depth) {
        const int i = s.index(row, col);
        if (depth_key(depth, face) == nearest[i]) atomicMin(owner + i, static_cast<unsigned>(face));
      });
      __syncthreads();
    }
    write_strip(p, s, [&](int i) {
      if (sizeof(T) == 8) return static_cast<int32_t>(owner[i]);
      return nearest[i] == kNoKey ? -1 : static_cast<int32_t>(nearest[i] & 0xffffffffu);
    });
    __syncthreads();
  }
}

template <class T, class Index>
void launch_rasterize_fused(const RasterizeParams<T, Index>& p, GclStream stream) {
  const Strips strips = cut_into_strips<T>(p.height, p.width, p.shared_bytes);
  const int64_t bytes = strips.rows * strips.cols * kStripPixelBytes<T>;
  const int64_t blocks = capped_blocks(p.batch * strips.count());
  GCL_ALLOW_SHARED((rasterize_fused_kernel<T, Index>), bytes);
  GCL_LAUNCH((rasterize_fused_kernel<T, Index>), blocks, kFusedThreads, static_cast<size_t>(bytes), stream, p, strips);
}

}  // namespace gcl
