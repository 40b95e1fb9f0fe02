// Who sweeps what: images shared out over threads, cut into strips of rows where there are fewer images than threads.
#pragma once

#include "common/cpu_backend.h"
#include "rasterize/rasterize_isa.h"
#include "rasterize/rasterize_math.h"

namespace gcl {

inline bool can_sweep(int64_t height, int64_t width, int64_t num_verts) {
  return height <= kMaxSweepSize && width <= kMaxSweepSize && num_verts < (int64_t{1} << 29);
}

inline void sweep(const SweepParams<int32_t>& p) { GCL_PICK(sweep32)(p); }
inline void sweep(const SweepParams<int64_t>& p) { GCL_PICK(sweep64)(p); }

// Pieces of work: strips [0, strips) of image b are pieces b * strips and on. Worker w does those in [begin(w), begin(w + 1)).
struct Shares {
  int64_t strips, pieces, workers;
  Shares(int64_t images, int64_t height) {
    const int64_t threads = maximum<int64_t>(torch::stable::get_num_threads(), 1);
    strips = images == 0 || images >= threads ? 1 : maximum<int64_t>(minimum((threads + images - 1) / images, height / 16), 1);
    pieces = images * strips;
    workers = minimum(threads, pieces);
  }
  int64_t begin(int64_t worker) const { return pieces * worker / workers; }
  int64_t image(int64_t piece) const { return piece / strips; }
  int64_t row(int64_t piece, int64_t height) const { return height * (piece % strips) / strips; }
  int64_t row_end(int64_t piece, int64_t height) const { return height * (piece % strips + 1) / strips; }

  // Calls f(worker, piece) for every piece, workers in parallel.
  template <class F>
  void each(F&& f) const {
    in_parallel(workers, 1, [&](int64_t w) {
      for (int64_t piece = begin(w); piece < begin(w + 1); ++piece) f(w, piece);
    });
  }
};

// What a sweep needs beside its results, for each worker.
class SweepWorkspace {
 public:
  SweepWorkspace(const Tensor& like, int64_t workers, int64_t num_verts, int64_t num_faces, int64_t height, int64_t width)
      : num_verts_(num_verts),
        room_(later_room(num_faces)),
        tile_count_(tiles(height) * tiles(width)),
        floats_(new_empty(like, {workers, 4 * num_verts_ + room_ + tile_count_}, ScalarType::Float)),
        ints_(new_empty(like, {workers, 2 * room_}, ScalarType::Int)),
        floats(floats_.mutable_data_ptr<float>()),
        ints(ints_.mutable_data_ptr<int32_t>()) {}

  template <class Index>
  void give(int64_t worker, SweepParams<Index>* p) const {
    p->corners = floats + worker * (4 * num_verts_ + room_ + tile_count_);
    p->later_depth = p->corners + 4 * num_verts_;
    p->tiles = p->later_depth + room_;
    p->later = ints + worker * 2 * room_;
    p->later_origin = p->later + room_;
  }

 private:
  static int64_t tiles(int64_t size) { return (size + kTile - 1) / kTile; }
  int64_t num_verts_, room_, tile_count_;
  Tensor floats_, ints_;
  float* floats;
  int32_t* ints;
};

// No crash on a face that names no vertex: say so before any thread starts.
template <class Index>
void check_face_range(const char* op, const Index* index, int64_t count, int64_t num_verts) {
  const auto beyond = [&](Index i) { return static_cast<int64_t>(i) < 0 || static_cast<int64_t>(i) >= num_verts; };
  bool fits = true;
  for (int64_t i = 0; i < count; ++i) fits &= !beyond(index[i]);
  for (int64_t i = 0; !fits && i < count; ++i) {
    STD_TORCH_CHECK(!beyond(index[i]), op, ": faces must be in [0, V=", num_verts, "), got ", index[i]);
  }
}

}  // namespace gcl
