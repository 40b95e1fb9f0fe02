// How an image is swept. Most triangles of a body are smaller than a pixel or two, so the cost is that of touching each one:
//   1. Side by side, a face in each lane, corners are snapped and faces get their boxes of pixel centres. Faces whose box holds
//      none drop out; of the others the corners are pressed together into blocks.
//   2. Blocks of 4 x 4 centres are tested, hits weighed and written (blocks.h). Long triangles go row by row on 64-bit edge
//      functions: their span is found by exact division.
// Faces that look the way of the nearer side of the mesh are swept first; then each tile of the image knows its farthest depth,
// and faces of the other side that lie behind it drop out before step 2. The winner is the smallest (depth, face), so neither
// this order nor the cut into rows shows in the result.
#include "rasterize/rasterize_isa.h"

#include <limits>

#include "rasterize/blocks.h"
#include "rasterize/lanes.h"
#include "rasterize/rasterize_math.h"

namespace gcl {
namespace GCL_ISA {
namespace {

constexpr float kNowhere = 1 << 22;  // coordinate of an unusable vertex: its faces are long, and looked at one by one
constexpr int kSamples = 128;        // faces that tell which side of the mesh is nearer

int64_t floor_div(int64_t a, int64_t b) {  // b > 0
  return a / b - (a % b < 0);
}

template <class Index>
class Sweep {
 public:
  explicit Sweep(const SweepParams<Index>& params) : p(params), blocks_(params) {}

  void run() {
    clear();
    if (p.row_begin >= p.row_end || p.width == 0 || p.num_faces == 0) return;
    copy_corners();
    first_sign_ = nearer_sign();
    for (int64_t f = 0; f < p.num_faces; f += kWide) sort_out(f);
    blocks_.flush();
    if (num_later_ + num_large_ == 0) return;
    find_farthest();
    look_again();
    blocks_.flush();
  }

 private:
  void clear() {
    const int64_t begin = int64_t{p.row_begin} * p.width, count = int64_t{p.row_end - p.row_begin} * p.width;
    if (count == 0) return;  // a picture without pixels may have no memory, and memset wants some
    std::memset(p.face_id + begin, 0xff, static_cast<size_t>(count) * sizeof(int32_t));
    for (int64_t i = begin; i < begin + count; ++i) p.depth[i] = std::numeric_limits<float>::infinity();
    if (p.bary != nullptr) std::memset(p.bary + 3 * begin, 0, static_cast<size_t>(count) * 3 * sizeof(float));
  }

  void copy_corners() {
    const float* const verts = p.verts;
    float* const corners = p.corners;
    const int64_t last = p.num_verts - 1;
    for (int64_t v = 0; v < last; ++v) store(corners + 4 * v, load<F32x4>(verts + 3 * v));  // the fourth is not used
    store(corners + 4 * last, F32x4{verts[3 * last], verts[3 * last + 1], verts[3 * last + 2], 0});
    int32_t beyond = 0;
    for (int64_t i = 0; i < 3 * p.num_verts; ++i) beyond |= !(absolute(verts[i]) <= float(kMaxCoordinate));  // true for NaN too
    for (int64_t v = 0; beyond != 0 && v <= last; ++v) {
      const float x = verts[3 * v], y = verts[3 * v + 1], z = verts[3 * v + 2];
      const bool usable = absolute(x) <= float(kMaxCoordinate) && absolute(y) <= float(kMaxCoordinate) &&
                          absolute(z) <= std::numeric_limits<float>::max();
      if (!usable) store(corners + 4 * v, F32x4{kNowhere, kNowhere, 0, 0});
    }
  }

  // Twice the snapped area.
  int64_t area(const Index* face) const {
    int64_t x[3], y[3];
    for (int k = 0; k < 3; ++k) {
      x[k] = static_cast<int64_t>(round_even(p.corners[4 * face[k]] * float(kSubpixels)));
      y[k] = static_cast<int64_t>(round_even(p.corners[4 * face[k] + 1] * float(kSubpixels)));
    }
    return twice_area<int64_t>(x, y);
  }

  // Which way the faces of the nearer side run: a guess from a few, which decides about time alone.
  bool nearer_sign() const {
    double depth[2] = {0, 0};
    int64_t count[2] = {0, 0};
    const int64_t step = p.num_faces / kSamples + 1;
    for (int64_t f = 0; f < p.num_faces; f += step) {
      const Index* face = p.faces + 3 * f;
      const int64_t twice = area(face);
      if (twice == 0) continue;
      depth[twice > 0] += p.corners[4 * face[0] + 2];
      ++count[twice > 0];
    }
    return depth[1] * static_cast<double>(count[0]) < depth[0] * static_cast<double>(count[1]);
  }

  // Step 1 for kWide faces from f on. Who drops out cannot be guessed, so nothing branches on it.
  void sort_out(int64_t f) {
    const int64_t rest = p.num_faces - f;
    const Index* const faces = p.faces + 3 * f;
    Corners c;
    const auto load_all = [&](auto&& face) {
      for (int k = 0; k < 3; ++k) load_corners(p.corners, k, face, &c.x[k], &c.y[k], &c.z[k]);
    };
    uint32_t lanes = kEveryLane;
    if (__builtin_expect(rest >= kWide, 1)) {
      load_all([&](int lane) { return faces + 3 * lane; });
    } else {
      lanes = (1u << rest) - 1;
      load_all([&](int lane) { return faces + 3 * (lane < rest ? lane : 0); });
    }
    Ints x[3], y[3];
    snap(c.x, x);
    snap(c.y, y);
    const Ints left = least_of_three(x), right = greatest_of_three(x), top = least_of_three(y), bottom = greatest_of_three(y);
    const Ints col0 = maximum(first_centre(left), Ints{}), col1 = minimum(last_centre(right), every(p.width - 1));
    const Ints row0 = maximum(first_centre(top), every(p.row_begin));
    const Ints row1 = minimum(last_centre(bottom), every(p.row_end - 1));
    const Ints has_centre = (col0 <= col1) & (row0 <= row1);
    const Ints small = (right - left < kShort) & (bottom - top < kShort);
    const Ints one_block = (col1 - col0 < int32_t{kTile}) & (row1 - row0 < int32_t{kTile}) & small;
    // Of long ones this overflows; add_large looks again.
    const Ints twice = (Ints)twice_area<UReg>(x, y);
    const Ints positive = twice > 0, area = (twice != 0) & ~(positive & -int32_t{p.cull_backfaces});
    const Ints fits = has_centre & one_block & area, near = positive ^ (int32_t{first_sign_} - 1);  // ^ -1 is not
    Ints id;
    for (int k = 0; k < kWide; ++k) id[k] = k;
    id += static_cast<int32_t>(f);
    const Ints origin = (row0 << 16) | col0;
    blocks_.add(Press(negative_lanes(fits & near) & lanes), id, origin, c);
    const Press later(negative_lanes(fits & ~near) & lanes);
    later.write(p.later + num_later_, id);
    later.write(p.later_origin + num_later_, origin);
    later.write(p.later_depth + num_later_, least_of_three(c.z));
    num_later_ += later.count;
    uint32_t large = negative_lanes(has_centre & ~one_block & (area | ~small)) & lanes;
    for (; __builtin_expect(large != 0, 0); large &= large - 1) {
      add_large<true>(static_cast<int32_t>(f) + __builtin_ctz(large));
    }
  }

  // More than one block.
  template <bool kFirst>
  void add_large(int32_t f) {
    const Index* face = p.faces + 3 * int64_t{f};
    Triangle<float> t;
    if (!load_triangle(p.verts, face, p.num_verts, p.height, p.width, p.cull_backfaces, &t)) return;
    if (kFirst && (t.orientation > 0) != first_sign_) {
      p.later[later_room(p.num_faces) - ++num_large_] = f;  // from the end
      return;
    }
    const int64_t row0 = maximum<int64_t>(t.row0, p.row_begin), row1 = minimum<int64_t>(t.row1, p.row_end - 1);
    if (!is_short(t)) return add_rows(f, t, row0, row1);
    const float nearest = least_of_three(t.z);
    for (int64_t row = row0; row <= row1; row += kTile) {
      for (int64_t col = t.col0; col <= t.col1; col += kTile) {
        const int32_t origin = static_cast<int32_t>(row << 16 | col);
        if (kFirst || nearest <= p.tiles[tile_of(origin)]) blocks_.add(f, origin);
      }
    }
  }

  // A long triangle: the columns of each row at which all three edge functions own the centre.
  void add_rows(int32_t f, const Triangle<float>& t, int64_t row0, int64_t row1) {
    for (int64_t row = row0; row <= row1; ++row) {
      int64_t begin = t.col0, end = t.col1;
      for (int k = 0; k < 3; ++k) {
        const Edge<int32_t> e = edge_facing(t, k);
        const int64_t value = owned_from_zero(e, edge_at<int64_t>(e, centre_of(t.col0), centre_of(static_cast<int32_t>(row))));
        const int64_t step = int64_t{-e.dy} * kSubpixels;
        if (step > 0) begin = maximum(begin, t.col0 - floor_div(value, step));
        if (step < 0) end = minimum(end, t.col0 + floor_div(value, -step));
        if (step == 0 && value < 0) end = begin - 1;
      }
      blocks_.add_span(f, t, static_cast<int32_t>(row), static_cast<int32_t>(begin), static_cast<int32_t>(end + 1));
    }
  }

  int32_t tile_of(int32_t origin) const {
    static_assert(kTile == 4);
    return (origin >> 18) * across_ + ((origin & 0xffff) >> 2);
  }

  // The farthest depth of each tile and of its neighbours to the right, below and both: a block that begins in a tile ends in
  // one of them.
  void find_farthest() {
    const int64_t across = across_, first = p.row_begin / kTile, last = (p.row_end - 1) / kTile;
    for (int64_t r = first; r <= last; ++r) {
      const int64_t row = maximum<int64_t>(r * kTile, p.row_begin), row_end = minimum<int64_t>((r + 1) * kTile, p.row_end);
      for (int64_t t = 0; t < across; ++t) {
        float farthest = -std::numeric_limits<float>::infinity();
        if ((t + 1) * kTile <= p.width) {
          F32x4 columns = load<F32x4>(p.depth + row * p.width + t * kTile);
          for (int64_t i = row + 1; i < row_end; ++i) columns = maximum(columns, load<F32x4>(p.depth + i * p.width + t * kTile));
          farthest = maximum(maximum(columns[0], columns[1]), maximum(columns[2], columns[3]));
        } else {
          for (int64_t i = row; i < row_end; ++i) {
            for (int64_t c = t * kTile; c < p.width; ++c) farthest = maximum(farthest, p.depth[i * p.width + c]);
          }
        }
        p.tiles[r * across + t] = farthest;
      }
    }
    for (int64_t r = first; r <= last; ++r) {
      float* tile = p.tiles + r * across;
      const float* below = r < last ? tile + across : tile;
      for (int64_t t = 0; t + 1 < across; ++t) tile[t] = maximum(maximum(tile[t], tile[t + 1]), maximum(below[t], below[t + 1]));
      tile[across - 1] = maximum(tile[across - 1], below[across - 1]);
    }
  }

  // The faces of the other side.
  void look_again() {
    store(p.later_origin + num_later_, every(p.row_begin << 16));  // of the lanes past the last one
    for (int64_t n = 0; n < num_later_; n += kWide) {
      Floats farthest;
      for (int k = 0; k < kWide; ++k) farthest[k] = p.tiles[tile_of(p.later_origin[n + k])];
      uint32_t lanes = negative_lanes(load<Floats>(p.later_depth + n) <= farthest);
      if (num_later_ - n < kWide) lanes &= (1u << (num_later_ - n)) - 1;
      for (; lanes != 0; lanes &= lanes - 1) {
        const int64_t i = n + __builtin_ctz(lanes);
        blocks_.add(p.later[i], p.later_origin[i]);
      }
    }
    for (int64_t n = 1; n <= num_large_; ++n) add_large<false>(p.later[later_room(p.num_faces) - n]);
  }

  const SweepParams<Index>& p;
  Blocks<Index> blocks_;
  const int32_t across_ = (p.width + static_cast<int32_t>(kTile) - 1) / static_cast<int32_t>(kTile);
  bool first_sign_ = false;
  int64_t num_later_ = 0, num_large_ = 0;
};

}  // namespace

void sweep32(const SweepParams<int32_t>& p) { Sweep<int32_t>(p).run(); }
void sweep64(const SweepParams<int64_t>& p) { Sweep<int64_t>(p).run(); }

}  // namespace GCL_ISA
}  // namespace gcl
