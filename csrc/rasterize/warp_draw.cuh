// How a warp draws 32 triangles of float32, one in each lane: what the plain and the fused kernel have in common. No torch
// header: the same file runs on emulated threads.
//
// Triangles of a body cover from none to some ten centres, so a lane that shaded its own would wait for its neighbours most of
// the time. Instead:
//   1. Each lane tests its triangle on blocks of 4 x 4 centres by stepping 32-bit edge functions, which are exact within 16
//      pixels. A block gives 16 bits.
//   2. Owned centres ("hits") are pressed together into the warp's queue, at places that a prefix sum gives.
//   3. The warp takes 32 hits at a time, whosever they are, and shades them: corners come from the lane that holds the triangle.
// Longer triangles, and those of many blocks, are left for the end: there the whole warp walks one after the other.
#pragma once

#include <limits>
#include <type_traits>

#include "common/launch.cuh"
#include "rasterize/rasterize.h"
#include "rasterize/rasterize_math.h"

namespace gcl {

constexpr int kBlockSide = 4;
constexpr int kBlockCentres = kBlockSide * kBlockSide;
constexpr unsigned kManyBlocks = 9;                        // from which a warp walks a box together
constexpr int kHitRoom = kWarpLanes * kBlockCentres;  // one block of every lane fits

// A hit: lane (5 bits), column and row from the first of the triangle's box (5 bits each).
using Hit = uint16_t;
static_assert(kShort / kSubpixels + kBlockSide <= 32);

// The part of an image that is drawn: rows [row0, row1), columns [col0, col1).
struct Window {
  int32_t row0, row1, col0, col1;
};

struct Corner {
  float x, y, z;
};

// As wide as the numbers in faces are: one comparison finds those that name no vertex, negative ones too.
template <class Index>
using VertexNumber = std::make_unsigned_t<Index>;

// A mesh as one image sees it.
template <class Index>
struct Mesh {
  const Corner* verts;  // [V]
  const Index* faces;   // [F, 3]
  VertexNumber<Index> num_verts;
  int64_t height, width;
  bool cull_backfaces;
};

template <class Index>
__device__ Mesh<Index> mesh_of(const RasterizeParams<float, Index>& p, int64_t b) {
  const uint64_t numbers = uint64_t{std::numeric_limits<Index>::max()} + 1;
  return {.verts = reinterpret_cast<const Corner*>(p.verts) + b * p.num_verts,
          .faces = p.faces,
          .num_verts = static_cast<VertexNumber<Index>>(minimum(static_cast<uint64_t>(p.num_verts), numbers)),
          .height = p.height,
          .width = p.width,
          .cull_backfaces = p.cull_backfaces};
}

// The box of a triangle, cut to the window; false where nothing is left.
template <class Index>
__device__ bool load_within(const Mesh<Index>& mesh, const Window& window, int32_t face, Triangle<float>* t) {
  const Index* const corners = mesh.faces + 3 * int64_t{face};
  VertexNumber<Index> v[3];
  for (int k = 0; k < 3; ++k) v[k] = static_cast<VertexNumber<Index>>(corners[k]);  // all first: memory is waited for twice
  if ((v[0] >= mesh.num_verts) | (v[1] >= mesh.num_verts) | (v[2] >= mesh.num_verts)) return false;
  for (int k = 0; k < 3; ++k) {
    const Corner corner = mesh.verts[v[k]];
    t->x[k] = corner.x;
    t->y[k] = corner.y;
    t->z[k] = corner.z;
  }
  if (!set_up_triangle(mesh.height, mesh.width, mesh.cull_backfaces, t)) return false;
  t->row0 = maximum(t->row0, window.row0);
  t->row1 = minimum(t->row1, window.row1 - 1);
  t->col0 = maximum(t->col0, window.col0);
  t->col1 = minimum(t->col1, window.col1 - 1);
  return t->row0 <= t->row1 && t->col0 <= t->col1;
}

// The centres of a block that a triangle owns, from the value of its edge functions at the block's first one; bit 15 is the
// first, bit 0 the last of the last row. rows, cols: how many of the block lie in the box, 1 to 4.
__device__ inline unsigned owned_in_block(const int32_t value[3], const int32_t across[3], const int32_t down[3], int rows,
                                          int cols) {
  unsigned outside = 0;
  for (int i = 0; i < kBlockSide; ++i) {
    for (int j = 0; j < kBlockSide; ++j) {
      int32_t any = 0;  // negative where an edge leaves the centre outside
      for (int k = 0; k < 3; ++k) any |= value[k] + i * down[k] + j * across[k];
      outside = (outside << 1) | (static_cast<unsigned>(any) >> 31);
    }
  }
  const unsigned within = ((0xf0u >> cols) & 0xfu) * 0x1111u & (0xffffu << (kBlockCentres - kBlockSide * rows));
  return ~outside & within & 0xffffu;
}

// The sum of a warp's values up to and with this lane's own.
__device__ inline int sum_up_to(int value) {
  const int lane = static_cast<int>(threadIdx.x) % kWarpLanes;
  for (int step = 1; step < kWarpLanes; step *= 2) {
    const int before = __shfl_up_sync(kAllLanes, value, static_cast<unsigned>(step));
    if (lane >= step) value += before;
  }
  return value;
}

// Shades the first `count` hits of the queue. t: the triangle of this lane, of which corners and box are given to the others.
template <class Canvas>
__device__ void shade_hits(const Triangle<float>& t, int32_t face, const Hit* queue, int count, const Canvas& canvas) {
  __syncwarp();
  for (int first = 0; first < count; first += kWarpLanes) {
    const int n = first + static_cast<int>(threadIdx.x) % kWarpLanes;
    const unsigned hit = n < count ? queue[n] : 0u;
    const int from = static_cast<int>(hit % kWarpLanes);
    float x[3], y[3], z[3];
    for (int k = 0; k < 3; ++k) {
      x[k] = __shfl_sync(kAllLanes, t.x[k], from);
      y[k] = __shfl_sync(kAllLanes, t.y[k], from);
      z[k] = __shfl_sync(kAllLanes, t.z[k], from);
    }
    const int32_t owner = __shfl_sync(kAllLanes, face, from);
    const int32_t col = __shfl_sync(kAllLanes, t.col0, from) + static_cast<int32_t>(hit >> 5 & 31u);
    const int32_t row = __shfl_sync(kAllLanes, t.row0, from) + static_cast<int32_t>(hit >> 10);
    if (n < count && !canvas.hides(row, col, z)) canvas.offer(row, col, depth_at(x, y, z, col, row), owner);
  }
  __syncwarp();
}

// Steps 1 to 3 for the lanes that take part.
template <class Canvas>
__device__ void draw_blocks(const Triangle<float>& t, int32_t face, bool takes_part, Hit* queue, const Canvas& canvas) {
  const int lane = static_cast<int>(threadIdx.x) % kWarpLanes;
  EdgeSteps<int32_t> e;
  if (takes_part) e = edge_steps(t, t.col0, t.row0);
  int row = 0, col = 0, count = 0;  // of the block's first centre, from the box's; hits that wait
  for (;;) {
    const bool more = __any_sync(kAllLanes, takes_part);
    unsigned owned = 0;
    if (takes_part) {
      owned = owned_in_block(e.value, e.across, e.down, minimum(t.row1 - t.row0 + 1 - row, kBlockSide),
                             minimum(t.col1 - t.col0 + 1 - col, kBlockSide));
    }
    const int own = __popc(owned), end = more ? sum_up_to(own) : 0, all = __shfl_sync(kAllLanes, end, kWarpLanes - 1);
    if (!more || count + all > kHitRoom) {
      shade_hits(t, face, queue, count, canvas);
      count = 0;
    }
    if (!more) return;
    Hit* to = queue + count + end - own;
    const unsigned first = static_cast<unsigned>(lane | col << 5 | row << 10);
    for (; owned != 0; ++to) {
      const unsigned n = static_cast<unsigned>(__clz(static_cast<int>(owned))) - kBlockCentres;  // 4 rows down + columns across
      owned &= ~(0x8000u >> n);
      *to = static_cast<Hit>(first + (n << 5) + n / kBlockSide * ((1u << 10) - (kBlockSide << 5)));
    }
    count += all;
    int32_t rows_down = 0, cols_across = kBlockSide;
    col += kBlockSide;
    if (col > t.col1 - t.col0) {
      cols_across -= col;
      col = 0;
      rows_down = kBlockSide;
      row += kBlockSide;
      takes_part = takes_part && row <= t.row1 - t.row0;
    }
    for (int k = 0; k < 3 && takes_part; ++k) e.value[k] += cols_across * e.across[k] + rows_down * e.down[k];
  }
}

// The whole warp walks the box of one face, 4 x 8 centres at a time, on 64-bit edge functions.
template <class Index, class Canvas>
__device__ void draw_together(const Mesh<Index>& mesh, const Window& window, int32_t face, const Canvas& canvas) {
  Triangle<float> t;
  if (!load_within(mesh, window, face, &t)) return;
  const int32_t lane = static_cast<int32_t>(threadIdx.x) % kWarpLanes;
  for (int32_t row = t.row0 + lane / 8; row <= t.row1; row += 4) {
    for (int32_t col = t.col0 + lane % 8; col <= t.col1; col += 8) {
      int64_t edge[3];
      if (!covers(t, col, row, edge)) continue;
      float x[3], y[3], z[3];  // read again: the registers are needed
      for (int k = 0; k < 3; ++k) {
        const Corner& corner = mesh.verts[mesh.faces[3 * int64_t{face} + k]];
        x[k] = corner.x;
        y[k] = corner.y;
        z[k] = corner.z;
      }
      if (!canvas.hides(row, col, z)) canvas.offer(row, col, depth_at(x, y, z, col, row), face);
    }
  }
}

// Draws the face that each lane holds, -1 for none, all 32 lanes together. queue: [kHitRoom] of the warp. A canvas has
// offer(row, col, depth, face), which keeps the nearest, and hides(row, col, z): whether something nearer than all three corners
// is there, which a triangle's depth never leaves.
template <class Index, class Canvas>
__device__ void draw_faces(const Mesh<Index>& mesh, const Window& window, int32_t face, Hit* queue, const Canvas& canvas) {
  Triangle<float> t;
  for (int k = 0; k < 3; ++k) t.x[k] = t.y[k] = t.z[k] = 0.0f;  // what the other lanes ask for; the rest is read where it is set
  t.row0 = t.col0 = 0;
  const bool touches = face >= 0 && load_within(mesh, window, face, &t);
  const auto blocks = [&] {
    return (static_cast<unsigned>(t.row1 - t.row0) / kBlockSide + 1) * (static_cast<unsigned>(t.col1 - t.col0) / kBlockSide + 1);
  };
  const bool large = touches && (!is_short(t) || blocks() >= kManyBlocks);
  draw_blocks(t, face, touches && !large, queue, canvas);
  for (unsigned left = __ballot_sync(kAllLanes, large); left != 0; left &= left - 1) {
    draw_together(mesh, window, __shfl_sync(kAllLanes, face, __ffs(static_cast<int>(left)) - 1), canvas);
  }
}

}  // namespace gcl
