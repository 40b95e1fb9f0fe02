// How the fused kernel cuts an image, and which of the two ways to draw is taken.
#pragma once

#include "rasterize/rasterize.h"
#include "rasterize/warp_draw.cuh"

namespace gcl {

constexpr int kFusedThreads = 384;  // two blocks leave a thread 80 registers
constexpr int kFusedWarps = kFusedThreads / kWarpLanes;
constexpr int64_t kStripBytes = 96 << 10;
constexpr int64_t kMaxStrips = 16;  // of an image; beyond, looking at every face in each of them costs more than it saves
constexpr int64_t kStripPixelBytes = sizeof(uint64_t);  // a key
constexpr int64_t kMaxBlocks = 0x7fffffff;               // of a launch

// Pixels that a warp finishes together.
constexpr int kSpan = 4 * kWarpLanes;

// What a warp of the fused kernel has beside its strip: while it draws the queue of faces and that of hits, then barycentrics on
// their way to memory.
struct alignas(16) Desk {
  union {
    struct {
      int32_t waiting[2 * kWarpLanes];
      Hit hits[kHitRoom];
    };
    float bary[3 * kSpan];
  };
};
constexpr int64_t kDeskBytes = int64_t{kFusedWarps} * sizeof(Desk);

// Pieces of rows x cols pixels, at the last ones fewer.
struct Strips {
  int64_t rows = 0, cols = 0, down = 0, across = 0;
  GCL_HD int64_t count() const { return down * across; }
};

// For blocks that may have `shared` bytes.
inline Strips cut_into_strips(int64_t height, int64_t width, int64_t shared) {
  const int64_t room = minimum(shared - kDeskBytes, kStripBytes) / kStripPixelBytes;
  if (room < 1 || height == 0 || width == 0) return {};
  Strips s;
  s.across = (width + room - 1) / room;
  s.cols = (width + s.across - 1) / s.across;
  const int64_t rows = minimum(height, maximum<int64_t>(room / s.cols, 1));
  s.down = (height + rows - 1) / rows;
  s.rows = (height + s.down - 1) / s.down;
  return s;
}

// What the choice depends on beside the image.
struct Gpu {
  int64_t shared_bytes;     // that a block may have for two of them to lie on a multiprocessor
  int64_t multiprocessors;
  int64_t cache_bytes;      // second level
};

// Whether the fused kernel draws: where it is asked for, float32, an image of a few strips. Left to us it never is: on an H100
// the plain kernels are faster at every size that was measured (bench/results/gpu_*.md).
template <class T>
bool draws_fused(Method method, int64_t images, int64_t height, int64_t width, const Gpu& gpu) {
  if (method != Method::fused || sizeof(T) != 4) return false;
  const int64_t strips = cut_into_strips(height, width, gpu.shared_bytes).count();
  return strips >= 1 && strips <= kMaxStrips && images <= kMaxBlocks / strips;
}

// How many images of `strips` pieces a fused launch needs to keep all multiprocessors busy: eight rounds of two blocks each, so
// that the last one, which is not full, costs little.
inline int64_t images_to_fuse(int64_t images, int64_t strips, const Gpu& gpu) {
  return minimum(images, maximum<int64_t>(16 * gpu.multiprocessors / maximum<int64_t>(strips, 1), 1));
}

// How many images the plain kernels draw at once: as many as have their z-buffer in half of the second-level cache, but enough to
// give every multiprocessor some thousand faces.
inline int64_t images_at_once(int64_t images, int64_t pixels, int64_t num_faces, const Gpu& gpu) {
  const int64_t cached = gpu.cache_bytes / 2 / maximum<int64_t>(pixels * sizeof(uint64_t), 1);
  const int64_t busy = 2048 * gpu.multiprocessors / maximum<int64_t>(num_faces, 1);
  const int64_t blocks = maximum(pixels / kSpan, num_faces / kWarpLanes) + 1;  // more than an image takes
  return minimum(minimum(images, maximum<int64_t>(kMaxBlocks / blocks, 1)), maximum<int64_t>(maximum(cached, busy), 1));
}

}  // namespace gcl
