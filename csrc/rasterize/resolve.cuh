// From keys to results, float32: a warp finishes a span of 128 neighbouring pixels. No torch header: the same file runs on
// emulated threads.
//
// Face and depth stand in the key. Pixels that show a face are listed without gaps, so that barycentrics are computed by full
// warps, and meet the others in shared memory, from where all leave 16 bytes at a time.
#pragma once

#include "rasterize/strips.cuh"

namespace gcl {

struct alignas(16) Two {
  uint64_t v[2];
};

inline __device__ bool aligned(const void* at) { return reinterpret_cast<uintptr_t>(at) % 16 == 0; }

// Where the results of a span go. Its first pixel is in row `row` and column `col` of an image of `width` columns, or of a strip
// that is `width` wide and begins in column `left`.
struct Span {
  int32_t* face_id;
  float* depth;
  float* bary;
  int32_t row, col, left, width;
  int count;  // pixels, at most kSpan
};

// The place of pixel n of the span.
__device__ inline void place_in(const Span& s, int n, int32_t* row, int32_t* col) {
  *row = s.row;
  *col = s.col + n;
  if (s.width >= kSpan) {  // one row ends at most
    const bool next = *col >= s.width;
    *row += next;
    *col -= next ? s.width : 0;
  } else {
    *row += static_cast<int32_t>(static_cast<uint32_t>(*col) / static_cast<uint32_t>(s.width));
    *col = static_cast<int32_t>(static_cast<uint32_t>(*col) % static_cast<uint32_t>(s.width));
  }
  *col += s.left;
}

template <class Index>
__device__ void find_bary(const Mesh<Index>& mesh, int32_t face, int32_t row, int32_t col, float bary[3]) {
  float x[3], y[3];
  for (int k = 0; k < 3; ++k) {
    const Corner& corner = mesh.verts[mesh.faces[3 * int64_t{face} + k]];
    x[k] = corner.x;
    y[k] = corner.y;
  }
  bary_at(x, y, col, row, bary);
}

// A lane has the keys of pixels 4 lane and on. Shared memory of the warp: list [kSpan], which may be where the keys were read
// from, and bary [3 kSpan].
template <class Index>
__device__ void resolve_span(const Mesh<Index>& mesh, const Span& s, const uint64_t key[4], unsigned long long* list,
                             float* bary) {
  const int lane = static_cast<int>(threadIdx.x) % kWarpLanes;
  const bool wide = s.count % 4 == 0 && aligned(s.face_id) && aligned(s.depth) && aligned(s.bary);
  Four<int32_t> face;
  Four<float> depth;
  for (int j = 0; j < 4; ++j) {
    face.v[j] = static_cast<int32_t>(key[j] & 0xffffffffu);
    depth.v[j] = depth_of_key(key[j]);
    if (wide || 4 * lane + j >= s.count) continue;
    s.face_id[4 * lane + j] = face.v[j];
    s.depth[4 * lane + j] = depth.v[j];
  }
  if (wide && 4 * lane < s.count) {
    reinterpret_cast<Four<int32_t>*>(s.face_id)[lane] = face;
    reinterpret_cast<Four<float>*>(s.depth)[lane] = depth;
  }
  __syncwarp();  // all keys are read
  int seen = 0;
  for (int j = 0; j < 4; ++j) {
    const bool sees = face.v[j] >= 0;
    const unsigned lanes = __ballot_sync(kAllLanes, sees);
    const int at = seen + __popc(lanes & ((1u << lane) - 1));
    if (sees) list[at] = static_cast<unsigned long long>(4 * lane + j) << 32 | static_cast<unsigned>(face.v[j]);
    seen += __popc(lanes);
  }
  for (int n = lane; n < 3 * kSpan / 4; n += kWarpLanes) reinterpret_cast<Four<float>*>(bary)[n] = {};
  __syncwarp();
  for (int n = lane; n < seen; n += kWarpLanes) {
    const int pixel = static_cast<int>(list[n] >> 32);
    int32_t row, col;
    float found[3];
    place_in(s, pixel, &row, &col);
    find_bary(mesh, static_cast<int32_t>(list[n] & 0xffffffffu), row, col, found);
    for (int k = 0; k < 3; ++k) bary[3 * pixel + k] = found[k];
  }
  __syncwarp();
  for (int n = lane; 4 * n < 3 * s.count && wide; n += kWarpLanes) {
    reinterpret_cast<Four<float>*>(s.bary)[n] = reinterpret_cast<const Four<float>*>(bary)[n];
  }
  for (int n = lane; n < 3 * s.count && !wide; n += kWarpLanes) s.bary[n] = bary[n];
  __syncwarp();
}

}  // namespace gcl
