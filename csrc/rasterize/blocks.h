// Blocks of 4 x 4 pixel centres, each with the triangle that may own some of them: tested side by side, a block in each lane,
// on 32-bit edge functions. The owned centres, "hits", are then weighed side by side, a hit in each lane, and written where
// they are nearest.
#pragma once

#include <limits>

#include "rasterize/lanes.h"
#include "rasterize/rasterize_isa.h"

namespace gcl {
namespace GCL_ISA {

// The corners of kWide triangles, as given.
struct Corners {
  Floats x[3], y[3], z[3];
};

// Snapped to 1/256 pixel.
inline void snap(const Floats from[3], Ints to[3]) {
  for (int k = 0; k < 3; ++k) to[k] = round_to_ints(from[k] * float(kSubpixels));
}

template <class Index>
class Blocks {
 public:
  explicit Blocks(const SweepParams<Index>& params) : p(params), width_(params.width) {}

  // Adds the lanes that `press` keeps: faces `id` and the blocks at `origin` (row << 16 | column of the first centre).
  void add(const Press& press, Ints id, Ints origin, const Corners& c) {
    for (int k = 0; k < 3; ++k) {
      press.write(x_[k] + count_, c.x[k]);
      press.write(y_[k] + count_, c.y[k]);
      press.write(z_[k] + count_, c.z[k]);
    }
    press.write(id_ + count_, id);
    press.write(origin_ + count_, origin);
    count_ += press.count;
    if (count_ >= kBlocks) draw_full();
  }

  void add(int32_t id, int32_t origin) {
    const Index* face = p.faces + 3 * int64_t{id};
    for (int k = 0; k < 3; ++k) {
      const float* from = p.corners + 4 * int64_t{face[k]};
      x_[k][count_] = from[0];
      y_[k][count_] = from[1];
      z_[k][count_] = from[2];
    }
    id_[count_] = id;
    origin_[count_] = origin;
    if (++count_ >= kBlocks) draw_full();
  }

  // Tests, weighs and writes what there is.
  void flush() {
    const int full = (count_ + kWide - 1) & ~(kWide - 1);
    for (int n = count_; n < full; ++n) copy<1>(n, 0);  // the same block again changes nothing
    count_ = 0;
    draw(full);
    write();
  }

  // Columns [begin, end) of a row, owned by face `id`: weighed side by side too.
  void add_span(int32_t id, const Triangle<float>& t, int32_t row, int32_t begin, int32_t end) {
    Corners c;
    Ints lane;
    for (int k = 0; k < kWide; ++k) lane[k] = k;
    for (int k = 0; k < 3; ++k) {
      c.x[k] = Floats{} + t.x[k];
      c.y[k] = Floats{} + t.y[k];
      c.z[k] = Floats{} + t.z[k];
    }
    for (int32_t col = begin; col < end; col += kWide) {
      weigh_lanes(c, every(row), lane + col, every(id), minimum(end - col, kWide));
    }
  }

 private:
  static constexpr int kBlocks = 64;  // tested together, or a few more
  static constexpr int kRoom = kBlocks + kWide;
  static constexpr int kCodes = kTile * kTile * kWide;
  static constexpr int kHits = 128;  // written together, or a few more

  Corners corners(int n) const {
    Corners c;
    for (int k = 0; k < 3; ++k) {
      c.x[k] = load<Floats>(x_[k] + n);
      c.y[k] = load<Floats>(y_[k] + n);
      c.z[k] = load<Floats>(z_[k] + n);
    }
    return c;
  }

  // All but the last few, which fill no vector.
  void draw_full() {
    const int full = count_ & ~(kWide - 1);
    draw(full);
    copy<kWide>(0, full);
    count_ -= full;
  }

  void draw(int count) {
    int hits[kRoom / kWide];
    for (int n = 0; n < count; n += kWide) hits[n / kWide] = covered(corners(n), load<Ints>(origin_ + n), code_[n / kWide]);
    for (int n = 0; n < count; n += kWide) weigh_hits(n, code_[n / kWide], hits[n / kWide]);
  }

  template <int kCount>
  void copy(int to, int from) {
    for (int k = 0; k < 3; ++k) {
      std::memcpy(x_[k] + to, x_[k] + from, kCount * sizeof(float));
      std::memcpy(y_[k] + to, y_[k] + from, kCount * sizeof(float));
      std::memcpy(z_[k] + to, z_[k] + from, kCount * sizeof(float));
    }
    std::memcpy(id_ + to, id_ + from, kCount * sizeof(int32_t));
    std::memcpy(origin_ + to, origin_ + from, kCount * sizeof(int32_t));
  }

  // The first `hits` of `code`, centres of the blocks from n on.
  void weigh_hits(int n, const uint8_t* codes, int hits) {
    const Corners c = corners(n);
    const Floats origin = load<Floats>(origin_ + n), id = load<Floats>(id_ + n);  // as bits
    for (int h = 0; h < hits; h += kWide) {
      const Ints code = widen(load<Bytes>(codes + h)), within = code >> kWideBits;
      Corners owner;
      for (int k = 0; k < 3; ++k) {
        owner.x[k] = pick(c.x[k], code);
        owner.y[k] = pick(c.y[k], code);
        owner.z[k] = pick(c.z[k], code);
      }
      const Ints first = (Ints)pick(origin, code);
      const Ints row = (first >> 16) + (within >> 2), col = (first & 0xffff) + (within & 3);
      weigh_lanes(owner, row, col, (Ints)pick(id, code), minimum(hits - h, kWide));
    }
  }

  // Lists the centres that each block's face owns as (4 row + column) * kWide + lane.
  int covered(const Corners& c, Ints origin, uint8_t* code) {
    Ints x[3], y[3];
    snap(c.x, x);
    snap(c.y, y);
    const Ints px = centre_of(origin & 0xffff), py = centre_of(origin >> 16);
    const Ints right = minimum(greatest_of_three(x), every(centre_of(p.width - 1)));
    const Ints bottom = minimum(greatest_of_three(y), every(centre_of(p.row_end - 1)));
    const Ints flip = twice_area<Ints>(x, y) < 0;  // -1: negate
    EdgeSteps<Ints> steps = edge_steps(x, y, px, py, [&](Ints d) { return (d ^ flip) - flip; });
    uint32_t col_in[kTile];
    for (int j = 0; j < kTile; ++j) col_in[j] = negative_lanes(px + (j * kSubpixels - 1) - right);
    uint8_t* to = code;
    for (int i = 0; i < kTile; ++i) {
      const uint32_t row_in = negative_lanes(py + (i * kSubpixels - 1) - bottom);
      if (row_in == 0) break;
      Ints e[3] = {steps.value[0], steps.value[1], steps.value[2]};
      for (int j = 0; j < kTile; ++j) {
        const uint32_t lanes = ~negative_lanes(e[0] | e[1] | e[2]) & row_in & col_in[j];
        for (int half = 0; half < kWide; half += 8) {
          const uint32_t byte = lanes >> half & 0xff;
          const uint64_t first = static_cast<uint64_t>((kTile * i + j) * kWide + half) * 0x0101010101010101u;
          store(to, load<uint64_t>(kBitNumbers.of[byte]) + first);
          to += __builtin_popcount(byte);
        }
        for (int k = 0; k < 3; ++k) e[k] += steps.across[k];
      }
      for (int k = 0; k < 3; ++k) steps.value[k] += steps.down[k];
    }
    return static_cast<int>(to - code);
  }

  // weigh() for the first `count` lanes.
  void weigh_lanes(const Corners& c, Ints row, Ints col, Ints id, int count) {
    if (num_hits_ >= kHits) write();
    const int n = num_hits_;
    const Floats px = __builtin_convertvector(col, Floats) + 0.5f, py = __builtin_convertvector(row, Floats) + 0.5f;
    Floats area[3], bary[3];
    const Floats signed_sum = corner_areas(c.x, c.y, px, py, area);
    const Ints sign_bit = (signed_sum < Floats{}) & INT32_MIN;
    for (int k = 0; k < 3; ++k) area[k] = (Floats)((Ints)area[k] ^ sign_bit);  // times +1 or -1
    clamp_to_bary(area, bary);
    for (int k = 0; k < 3; ++k) store(hit_bary_[k] + n, bary[k]);
    store(hit_depth_ + n, mix_depth(bary, c.z));
    store(hit_id_ + n, id);
    store(hit_pixel_ + n, row * p.width + col);
    num_hits_ += count;
    if (__builtin_expect(negative_lanes(signed_sum == Floats{}) & ((1u << count) - 1), 0)) weigh_alone(n);
  }

  // Where a triangle has no area before snapping, the snapped one's weights stand in.
  void weigh_alone(int begin) {
    for (int n = begin; n < num_hits_; ++n) {
      Triangle<float> t;
      int64_t edge[3];
      if (!load_triangle(p.verts, p.faces + 3 * int64_t{hit_id_[n]}, p.num_verts, p.height, p.width, false, &t)) continue;
      const int64_t row = hit_pixel_[n] / width_, col = hit_pixel_[n] % width_;
      covers(t, col, row, edge);
      const Weights<float> w = weigh(t, col, row, edge);
      for (int k = 0; k < 3; ++k) hit_bary_[k][n] = w.bary[k];
      hit_depth_[n] = w.depth;
    }
  }

  // The hits that are the nearest so far.
  void write() {
    int32_t* const face_id = p.face_id;  // copies: stores might have changed what the struct holds
    float *const depths = p.depth, *const bary = p.bary;
    const int count = num_hits_;
    num_hits_ = 0;
    for (int n = 0; n < count; ++n) {
      const int64_t i = hit_pixel_[n];
      const int32_t id = hit_id_[n];
      const float depth = hit_depth_[n], before = depths[i];
      if (!(depth < before || (depth == before && id < face_id[i]))) continue;
      depths[i] = depth;
      face_id[i] = id;
      if (bary == nullptr) continue;
      for (int k = 0; k < 3; ++k) bary[3 * i + k] = hit_bary_[k][n];
    }
  }

  const SweepParams<Index>& p;
  const int64_t width_;
  int count_ = 0, num_hits_ = 0;
  alignas(64) float x_[3][kRoom] = {}, y_[3][kRoom] = {}, z_[3][kRoom] = {};
  alignas(64) int32_t id_[kRoom] = {}, origin_[kRoom] = {};
  alignas(64) uint8_t code_[kRoom / kWide][kCodes + 64] = {};
  alignas(64) float hit_bary_[3][kHits + 2 * kWide], hit_depth_[kHits + 2 * kWide];
  alignas(64) int32_t hit_id_[kHits + 2 * kWide], hit_pixel_[kHits + 2 * kWide];
};

}  // namespace GCL_ISA
}  // namespace gcl
