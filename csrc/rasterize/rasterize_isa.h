// Float path of the CPU rasterizer: one image, or some rows of it, by one thread; compiled for each instruction set.
#pragma once

#include <cstdint>

#include "common/isa.h"

namespace gcl {

constexpr int64_t kMaxSweepSize = 32767;  // of an image side: a pixel's number and a box's corners fit in 32 bits
constexpr int64_t kTile = 4;              // pixels on a side of the tiles that remember their farthest depth

// Lanes are written past the last face before looking how many count.
constexpr int64_t later_room(int64_t num_faces) { return num_faces + 16; }

template <class Index>
struct SweepParams {
  const float* verts;  // [V, 3]
  const Index* faces;  // [F, 3]  every one names vertices that exist
  int64_t num_verts;
  int64_t num_faces;
  int32_t height;  // at most kMaxSweepSize
  int32_t width;
  int32_t row_begin;  // rows of this call
  int32_t row_end;
  bool cull_backfaces;
  int32_t* face_id;  // [H, W]     -1 where there is nothing
  float* depth;      // [H, W]     +inf where there is nothing
  float* bary;       // [H, W, 3]  0 where there is nothing; null: not wanted
  // Workspace
  float* corners;         // [V, 4]  x, y, z, unused: one load a corner
  int32_t* later;         // [later_room(F)]  faces of the second pass: of one block from the front, larger ones from the end
  int32_t* later_origin;  // [later_room(F)]  the block's first centre, row << 16 | column
  float* later_depth;     // [later_room(F)]  the nearest depth of the face
  float* tiles;           // [ceil(H / kTile), ceil(W / kTile)]
};

#define GCL_DECLARE(isa)                       \
  namespace isa {                              \
  void sweep32(const SweepParams<int32_t>& p); \
  void sweep64(const SweepParams<int64_t>& p); \
  }
GCL_EACH_ISA(GCL_DECLARE)
#undef GCL_DECLARE

}  // namespace gcl
