// How an image is swept. Most triangles of a body are smaller than a pixel or two, so the cost is that of touching each one:
//   1. Vertices are snapped once. Each face gets its box of pixel centres; boxes that hold none drop out here.
//   2. Boxes are cut into blocks of 4 x 4 centres; blocks of many faces are tested side by side, a face in each lane, on 32-bit
//      edge functions. Long triangles go row by row on 64-bit ones: their span is found by exact division.
//   3. Covered centres, "hits", are weighed many at a time, a hit in each lane, and written where they are nearest.
// Faces that look the way of the nearer side of the mesh are swept first; then each tile of the image knows its farthest depth,
// and faces of the other side that lie behind it drop out before step 2. The winner is the smallest (depth, face), so neither
// this order nor the cut into rows shows in the result.
#include "rasterize/rasterize_isa.h"

#include <limits>

#include "rasterize/rasterize_math.h"

namespace gcl {
namespace GCL_ISA {
namespace {

#if defined(__AVX512F__)
constexpr int kBytes = 64;
#elif defined(__AVX2__)
constexpr int kBytes = 32;
#else
constexpr int kBytes = 16;
#endif
constexpr int kWide = kBytes / 4;
typedef float Floats __attribute__((vector_size(kBytes)));
typedef int32_t Ints __attribute__((vector_size(kBytes)));
typedef float F32x4 __attribute__((vector_size(16)));
typedef int32_t I32x4 __attribute__((vector_size(16)));
typedef int64_t I64x2 __attribute__((vector_size(16)));

#if defined(__clang__)
#define GCL_SHUFFLE(a, b, i, j, k, l) __builtin_shufflevector(a, b, i, j, k, l)
#else
#define GCL_SHUFFLE(a, b, i, j, k, l) __builtin_shuffle(a, b, I32x4{i, j, k, l})
#endif

constexpr int kFaces = 64;          // looked at together
constexpr int kBlocks = 128;        // tested together, or a few more
constexpr int kRoom = kBlocks + kFaces;
constexpr int kHits = 256;          // weighed together
constexpr int kSlack = 32;          // room to write past the end before looking
constexpr int32_t kSmall = 4096;    // 1/256 pixels: edge functions of triangles within such a box fit in 32 bits
constexpr int32_t kNowhere = 1 << 30;  // snapped coordinate of an unusable vertex: its faces are long, and looked at one by one
constexpr int32_t kStep = kSubpixels, kHalf = kSubpixels / 2;
constexpr int32_t kNow = 1, kLater = 2, kLarge = 4;  // fates of a face
constexpr int32_t kOffset[17] = {0,         1,         2,         3,         1 << 16,   65536 + 1, 65536 + 2, 65536 + 3, 2 << 16,
                                 131072 + 1, 131072 + 2, 131072 + 3, 3 << 16, 196608 + 1, 196608 + 2, 196608 + 3, 0};
constexpr int kSamples = 128;       // faces that tell which side of the mesh is nearer

template <class V, class T>
V load(const T* from) {
  V v;
  std::memcpy(&v, from, sizeof v);
  return v;
}

template <class T, class V>
void store(T* to, V v) {
  std::memcpy(to, &v, sizeof v);
}

I32x4 load_pair(const int32_t* from) { return (I32x4)I64x2{load<int64_t>(from), 0}; }

int64_t floor_div(int64_t a, int64_t b) {  // b > 0
  return a / b - (a % b < 0);
}

// Whether a face lies behind all that is drawn in a box of at most kTile centres on a side, its corners as row << 16 | column.
template <class Index>
class Hider {
 public:
  explicit Hider(const SweepParams<Index>& p)
      : faces_(p.faces), corners_(p.corners), tiles_(p.tiles), across_((p.width + kTile - 1) / kTile) {}
  bool hides(int32_t f, int32_t first, int32_t last) const {
    const Index* face = faces_ + 3 * int64_t{f};
    const float a = corners_[4 * face[0] + 2], b = corners_[4 * face[1] + 2], c = corners_[4 * face[2] + 2];
    const float* top = tiles_ + (first >> 18) * across_;
    const float* bottom = tiles_ + (last >> 18) * across_;
    const int32_t left = (first & 0xffff) >> 2, right = (last & 0xffff) >> 2;
    return minimum(a, minimum(b, c)) > maximum(maximum(top[left], top[right]), maximum(bottom[left], bottom[right]));
  }

 private:
  static_assert(kTile == 4);
  const Index* faces_;
  const float *corners_, *tiles_;
  int64_t across_;
};

template <class Index>
class Sweep {
 public:
  explicit Sweep(const SweepParams<Index>& params) : p(params) {}

  void run() {
    clear();
    if (p.row_begin >= p.row_end || p.width == 0) return;
    snap();
    first_sign_ = nearer_sign();
    for (int64_t f = 0; f < p.num_faces; f += kFaces) {
      add_faces<true>(nullptr, f, static_cast<int>(minimum<int64_t>(p.num_faces - f, kFaces)));
    }
    test_blocks();
    weigh_hits();
    if (num_later_ == 0) return;
    find_farthest();
    for (int64_t n = 0; n < num_later_; n += kFaces) {
      add_faces<false>(p.later + n, 0, static_cast<int>(minimum<int64_t>(num_later_ - n, kFaces)));
    }
    test_blocks();
    weigh_hits();
  }

 private:
  void clear() {
    const int64_t begin = int64_t{p.row_begin} * p.width, count = int64_t{p.row_end - p.row_begin} * p.width;
    std::memset(p.face_id + begin, 0xff, static_cast<size_t>(count) * sizeof(int32_t));
    for (int64_t i = begin; i < begin + count; ++i) p.depth[i] = std::numeric_limits<float>::infinity();
    if (p.bary != nullptr) std::memset(p.bary + 3 * begin, 0, static_cast<size_t>(count) * 3 * sizeof(float));
  }

  void snap() {
    for (int64_t v = 0; v < p.num_verts; ++v) {
      const float x = p.verts[3 * v], y = p.verts[3 * v + 1], z = p.verts[3 * v + 2];
      const bool usable = (absolute(x) <= float(kMaxCoordinate)) & (absolute(y) <= float(kMaxCoordinate)) &
                          (absolute(z) <= std::numeric_limits<float>::max());
      store(p.corners + 4 * v, F32x4{x, y, z, 0});
      p.snapped[2 * v] = usable ? static_cast<int32_t>(round_even(x * float(kSubpixels))) : kNowhere;
      p.snapped[2 * v + 1] = usable ? static_cast<int32_t>(round_even(y * float(kSubpixels))) : kNowhere;
    }
  }

  int64_t area(int64_t f) const {
    const int32_t* a = p.snapped + 2 * p.faces[3 * f];
    const int32_t* b = p.snapped + 2 * p.faces[3 * f + 1];
    const int32_t* c = p.snapped + 2 * p.faces[3 * f + 2];
    const int64_t ux = int64_t{b[0]} - a[0], uy = int64_t{b[1]} - a[1], vx = int64_t{c[0]} - a[0], vy = int64_t{c[1]} - a[1];
    return ux * vy - uy * vx;
  }

  // Which way the faces of the nearer side run: a guess from a few, which decides about time alone.
  bool nearer_sign() const {
    double depth[2] = {0, 0};
    int64_t count[2] = {0, 0};
    const int64_t step = p.num_faces / kSamples + 1;
    for (int64_t f = 0; f < p.num_faces; f += step) {
      const int64_t twice = area(f);
      if (twice == 0) continue;
      depth[twice > 0] += p.corners[4 * p.faces[3 * f] + 2];
      ++count[twice > 0];
    }
    return depth[1] * static_cast<double>(count[0]) < depth[0] * static_cast<double>(count[1]);
  }

  // Step 1 for up to kFaces faces: `ids`, or those from `begin` on where that is null. Who drops out cannot be guessed, so
  // nothing branches on it.
  template <bool kFirst>
  void add_faces(const int32_t* ids, int64_t begin, int count) {
    const Index* const faces = p.faces;  // copies here and below: stores might have changed what the struct holds
    const int32_t* const snapped = p.snapped;
    for (int n = 0; n < count; ++n) {
      const Index* face = faces + 3 * (ids == nullptr ? begin + n : int64_t{ids[n]});
      for (int k = 0; k < 3; ++k) store(pairs_[k] + 2 * n, load<int64_t>(snapped + 2 * face[k]));
    }
    split(count);
    for (int n = 0; n < count; n += kWide) sort_out<kFirst>(n);
    int blocks = num_blocks_;
    int64_t laters = num_later_;
    int32_t* const later = p.later;
    const Hider<Index> hider(p);
    for (int n = 0; n < count; ++n) {
      const int32_t f = ids == nullptr ? static_cast<int32_t>(begin) + n : ids[n], fate = fate_[n];
      if (__builtin_expect(fate & kLarge, 0)) {
        num_blocks_ = blocks;
        num_later_ = laters;
        add_large<kFirst>(f, n);
        blocks = num_blocks_;
        laters = num_later_;
        continue;
      }
      const bool now = kFirst ? (fate & kNow) != 0 : !hider.hides(f, first_[n], last_[n]);
      block_face_[blocks] = f;
      block_origin_[blocks] = first_[n];
      blocks += now;
      if (kFirst) {
        later[laters] = f;
        laters += (fate & kLater) != 0;
      }
    }
    num_blocks_ = blocks;
    num_later_ = laters;
    if (num_blocks_ >= kBlocks) test_blocks();
  }

  template <bool kFirst>
  void sort_out(int n) {
    Ints x[3], y[3];
    for (int k = 0; k < 3; ++k) {
      x[k] = load<Ints>(split_[2 * k] + n);
      y[k] = load<Ints>(split_[2 * k + 1] + n);
    }
    const Ints left = minimum(x[0], minimum(x[1], x[2])), right = maximum(x[0], maximum(x[1], x[2]));
    const Ints top = minimum(y[0], minimum(y[1], y[2])), bottom = maximum(y[0], maximum(y[1], y[2]));
    const Ints col0 = maximum((left + (kHalf - 1)) >> 8, Ints{}), col1 = minimum((right - kHalf) >> 8, Ints{} + (p.width - 1));
    const Ints row0 = maximum((top + (kHalf - 1)) >> 8, Ints{} + p.row_begin);
    const Ints row1 = minimum((bottom - kHalf) >> 8, Ints{} + (p.row_end - 1));
    const Ints drop = (col0 > col1) | (row0 > row1);
    const Ints small = (right - left < kSmall) & (bottom - top < kSmall);
    const Ints one_block = small & (col1 - col0 < int32_t{kTile}) & (row1 - row0 < int32_t{kTile});
    // Of long ones, which would overflow, the area is left to add_large.
    const Ints twice = ((x[1] - x[0]) & small) * ((y[2] - y[0]) & small) - ((y[1] - y[0]) & small) * ((x[2] - x[0]) & small);
    const Ints no_area = small & ((twice == 0) | ((twice > 0) & -int32_t{p.cull_backfaces}));
    const Ints now = kFirst ? (twice > 0) ^ (int32_t{first_sign_} - 1) : ~Ints{};  // ^ -1 is not
    const Ints fate = (one_block & ((now & kNow) | (~now & kLater))) | (~one_block & kLarge);
    store(fate_ + n, fate & ~(drop | no_area));
    store(first_ + n, (row0 << 16) | col0);
    store(last_ + n, (row1 << 16) | col1);
  }

  void split(int count) {
    for (int k = 0; k < 3; ++k) {
      const int32_t* from = pairs_[k];
      int32_t *x = split_[2 * k], *y = split_[2 * k + 1];
      for (int n = 0; n < count; ++n) {
        x[n] = from[2 * n];
        y[n] = from[2 * n + 1];
      }
    }
  }

  // More than one block.
  template <bool kFirst>
  void add_large(int32_t f, int n) {
    const int64_t twice = area(f);
    if (twice == 0 || (p.cull_backfaces && twice > 0)) return;
    if (kFirst && (twice > 0) != first_sign_) {
      p.later[num_later_++] = f;
      return;
    }
    const Index* face = p.faces + 3 * int64_t{f};
    const I32x4 a = load_pair(p.snapped + 2 * face[0]), b = load_pair(p.snapped + 2 * face[1]);
    const I32x4 c = load_pair(p.snapped + 2 * face[2]);
    const I32x4 length = maximum(a, maximum(b, c)) - minimum(a, minimum(b, c));
    if (length[0] >= kSmall || length[1] >= kSmall) return add_rows(f);
    const int32_t col1 = last_[n] & 0xffff, row1 = last_[n] >> 16;
    for (int32_t row = first_[n] >> 16; row <= row1; row += kTile) {
      for (int32_t col = first_[n] & 0xffff; col <= col1; col += kTile) {
        const int32_t origin = row << 16 | col;
        if (!kFirst && Hider<Index>(p).hides(f, origin, minimum(row + int32_t{kTile} - 1, row1) << 16 | minimum(col + int32_t{kTile} - 1, col1))) {
          continue;
        }
        block_face_[num_blocks_] = f;
        block_origin_[num_blocks_] = origin;
        if (++num_blocks_ >= kBlocks) test_blocks();
      }
    }
  }

  // A long triangle: the columns of each row at which all three edge functions own the centre.
  void add_rows(int32_t f) {
    Triangle<float> t;
    if (!load_triangle(p.verts, p.faces + 3 * int64_t{f}, p.num_verts, p.height, p.width, p.cull_backfaces, &t)) return;
    const int64_t row0 = maximum<int64_t>(t.row0, p.row_begin), row1 = minimum<int64_t>(t.row1, p.row_end - 1);
    for (int64_t row = row0; row <= row1; ++row) {
      int64_t begin = t.col0, end = t.col1, edge[3];
      covers(t, t.col0, row, edge);
      for (int k = 0; k < 3; ++k) {
        const int a = (k + 1) % 3, b = (k + 2) % 3;
        const int64_t dx = t.orientation * (t.snapped_x[b] - t.snapped_x[a]);
        const int64_t dy = t.orientation * (t.snapped_y[b] - t.snapped_y[a]);
        const int64_t value = edge[k] - !(dy < 0 || (dy == 0 && dx > 0)), step = -dy * kSubpixels;  // owned where >= 0
        if (step > 0) begin = maximum(begin, t.col0 - floor_div(value, step));
        if (step < 0) end = minimum(end, t.col0 + floor_div(value, -step));
        if (step == 0 && value < 0) end = begin - 1;
      }
      for (int64_t col = begin; col <= end; ++col) {
        hit_face_[num_hits_] = f;
        hit_place_[num_hits_] = static_cast<int32_t>(row << 16 | col);
        if (++num_hits_ >= kHits) weigh_hits();
      }
    }
  }

  // Step 2: which of the 16 centres of each block its face owns.
  void test_blocks() {
    const int count = num_blocks_;
    num_blocks_ = 0;
    if (count == 0) return;
    const Index* const faces = p.faces;
    const int32_t* const snapped = p.snapped;
    for (int n = 0; n < count; ++n) {
      const Index* face = faces + 3 * int64_t{block_face_[n]};
      for (int k = 0; k < 3; ++k) store(pairs_[k] + 2 * n, load<int64_t>(snapped + 2 * face[k]));
    }
    split(count);
    for (int n = 0; n < count; n += kWide) store(mask_ + n, covered(n));
    int hits = num_hits_;
    for (int n = 0; n < count; ++n) {
      uint32_t mask = static_cast<uint32_t>(mask_[n]);
      const int32_t f = block_face_[n], origin = block_origin_[n];
      const int more = __builtin_popcount(mask);
      int32_t *face = hit_face_ + hits, *place = hit_place_ + hits;
      for (int done = 0;;) {  // four at a time: how many there are cannot be guessed
        for (int k = 0; k < 4; ++k) {
          face[done + k] = f;
          place[done + k] = origin + kOffset[__builtin_ctz(mask | 0x10000)];
          mask &= mask - 1;
        }
        done += 4;
        if (__builtin_expect(done >= more, 1)) break;
      }
      hits += more;
      if (hits >= kHits) {
        num_hits_ = hits;
        weigh_hits();
        hits = 0;
      }
    }
    num_hits_ = hits;
  }

  Ints covered(int n) const {
    Ints x[3], y[3];
    for (int k = 0; k < 3; ++k) {
      x[k] = load<Ints>(split_[2 * k] + n);
      y[k] = load<Ints>(split_[2 * k + 1] + n);
    }
    const Ints origin = load<Ints>(block_origin_ + n), col = origin & 0xffff, row = origin >> 16;
    const Ints px = col * kStep + kHalf, py = row * kStep + kHalf;
    const Ints twice = (x[1] - x[0]) * (y[2] - y[0]) - (y[1] - y[0]) * (x[2] - x[0]);
    const Ints flip = twice < 0;  // -1: negate
    Ints value[3], across[3], down[3];
    for (int k = 0; k < 3; ++k) {
      const int a = (k + 1) % 3, b = (k + 2) % 3;
      const Ints dx = ((x[b] - x[a]) ^ flip) - flip, dy = ((y[b] - y[a]) ^ flip) - flip;
      const Ints top_left = (dy < 0) | ((dy == 0) & (dx > 0));
      value[k] = dx * (py - y[a]) - dy * (px - x[a]) + ~top_left;  // owned where >= 0
      across[k] = -dy * kStep;
      down[k] = dx * kStep;
    }
    Ints mask{};
    for (int i = 0; i < kTile; ++i) {
      const Ints row_in = row + i < p.row_end;
      Ints e[3] = {value[0], value[1], value[2]};
      for (int j = 0; j < kTile; ++j) {
        const Ints inside = ((e[0] | e[1] | e[2]) >= 0) & row_in & (col + j < p.width);
        mask |= inside & (1 << (kTile * i + j));
        for (int k = 0; k < 3; ++k) e[k] += across[k];
      }
      for (int k = 0; k < 3; ++k) value[k] += down[k];
    }
    return mask;
  }

  // Step 3.
  void weigh_hits() {
    const int count = num_hits_;
    num_hits_ = 0;
    if (count == 0) return;
    const int padded = (count + 15) / 16 * 16;
    for (int n = count; n < padded; ++n) {  // the same hit again changes nothing
      hit_face_[n] = hit_face_[count - 1];
      hit_place_[n] = hit_place_[count - 1];
    }
    gather_corners(padded);
    Ints flat{};
    for (int n = 0; n < padded; n += kWide) flat |= weigh_lanes(n);
    bool any_flat = false;
    for (int k = 0; k < kWide; ++k) any_flat |= flat[k] != 0;
    if (any_flat) {
      for (int n = 0; n < count; ++n) weigh_alone(n);
    }
    const int64_t width = p.width;
    float *const depths = p.depth, *const bary = p.bary;
    int32_t* const face_id = p.face_id;
    for (int n = 0; n < count; ++n) {
      const int64_t i = (hit_place_[n] >> 16) * width + (hit_place_[n] & 0xffff);
      const float depth = result_[3][n], before = depths[i];
      const int32_t f = hit_face_[n];
      if (!(depth < before || (depth == before && f < face_id[i]))) continue;
      depths[i] = depth;
      face_id[i] = f;
      if (bary != nullptr) {
        for (int k = 0; k < 3; ++k) bary[3 * i + k] = result_[k][n];
      }
    }
  }

  void gather_corners(int count) {
    const Index* const faces = p.faces;
    const float* const corners = p.corners;
    for (int n = 0; n < count; n += 4) {
      for (int k = 0; k < 3; ++k) {
        F32x4 v[4];
        for (int j = 0; j < 4; ++j) v[j] = load<F32x4>(corners + 4 * faces[3 * int64_t{hit_face_[n + j]} + k]);
        const F32x4 xy0 = GCL_SHUFFLE(v[0], v[1], 0, 4, 1, 5), xy1 = GCL_SHUFFLE(v[2], v[3], 0, 4, 1, 5);
        const F32x4 z0 = GCL_SHUFFLE(v[0], v[1], 2, 6, 3, 7), z1 = GCL_SHUFFLE(v[2], v[3], 2, 6, 3, 7);
        store(corner_[k] + n, GCL_SHUFFLE(xy0, xy1, 0, 1, 4, 5));
        store(corner_[3 + k] + n, GCL_SHUFFLE(xy0, xy1, 2, 3, 6, 7));
        store(corner_[6 + k] + n, GCL_SHUFFLE(z0, z1, 0, 1, 4, 5));
      }
    }
  }

  // weigh() for some hits side by side; returns where the triangle has no area before snapping.
  Ints weigh_lanes(int n) {
    Floats x[3], y[3], z[3], area[3], bary[3];
    for (int k = 0; k < 3; ++k) {
      x[k] = load<Floats>(corner_[k] + n);
      y[k] = load<Floats>(corner_[3 + k] + n);
      z[k] = load<Floats>(corner_[6 + k] + n);
    }
    const Ints place = load<Ints>(hit_place_ + n);
    const Floats px = __builtin_convertvector(place & 0xffff, Floats) + 0.5f;
    const Floats py = __builtin_convertvector(place >> 16, Floats) + 0.5f;
    const Floats signed_sum = corner_areas(x, y, px, py, area);
    const Ints sign_bit = (signed_sum < Floats{}) & INT32_MIN;
    for (int k = 0; k < 3; ++k) area[k] = (Floats)((Ints)area[k] ^ sign_bit);  // times +1 or -1
    clamp_to_bary(area, bary);
    for (int k = 0; k < 3; ++k) store(result_[k] + n, bary[k]);
    store(result_[3] + n, mix_depth(bary, z));
    const Ints flat = signed_sum == Floats{};
    return flat;
  }

  void weigh_alone(int n) {
    Triangle<float> t;
    int64_t edge[3];
    if (!load_triangle(p.verts, p.faces + 3 * int64_t{hit_face_[n]}, p.num_verts, p.height, p.width, false, &t)) return;
    const int64_t col = hit_place_[n] & 0xffff, row = hit_place_[n] >> 16;
    covers(t, col, row, edge);
    const Weights<float> w = weigh(t, col, row, edge);
    for (int k = 0; k < 3; ++k) result_[k][n] = w.bary[k];
    result_[3][n] = w.depth;
  }

  void find_farthest() {
    const int64_t across = (p.width + kTile - 1) / kTile;
    for (int64_t row = p.row_begin; row < p.row_end; row = (row / kTile + 1) * kTile) {
      const int64_t row_end = minimum<int64_t>((row / kTile + 1) * kTile, p.row_end);
      for (int64_t t = 0; t < across; ++t) {
        const int64_t col_end = minimum<int64_t>((t + 1) * kTile, p.width);
        float farthest = -std::numeric_limits<float>::infinity();
        if (col_end == (t + 1) * kTile) {
          F32x4 all = load<F32x4>(p.depth + row * p.width + t * kTile);
          for (int64_t r = row + 1; r < row_end; ++r) all = maximum(all, load<F32x4>(p.depth + r * p.width + t * kTile));
          farthest = maximum(maximum(all[0], all[1]), maximum(all[2], all[3]));
        } else {
          for (int64_t r = row; r < row_end; ++r) {
            for (int64_t c = t * kTile; c < col_end; ++c) farthest = maximum(farthest, p.depth[r * p.width + c]);
          }
        }
        p.tiles[(row / kTile) * across + t] = farthest;
      }
    }
  }

  const SweepParams<Index>& p;
  bool first_sign_ = false;
  int num_blocks_ = 0, num_hits_ = 0;
  int64_t num_later_ = 0;
  alignas(64) int32_t pairs_[3][2 * kRoom] = {};  // snapped corners 0, 1, 2 of some faces: x, y, x, y ..
  alignas(64) int32_t split_[6][kRoom] = {};      // x of corner 0, y of corner 0, x of corner 1 ..
  alignas(64) int32_t fate_[kFaces], first_[kFaces], last_[kFaces];  // box of a face: row << 16 | column
  alignas(64) int32_t block_face_[kRoom] = {}, block_origin_[kRoom] = {};
  alignas(64) int32_t mask_[kRoom];  // bit 4 i + j: the centre in row i and column j of the block
  alignas(64) int32_t hit_face_[kHits + kSlack], hit_place_[kHits + kSlack];
  alignas(64) float corner_[9][kHits + kSlack];  // x, y, z of corners 0, 1, 2
  alignas(64) float result_[4][kHits + kSlack];  // bary, depth
};

}  // namespace

void sweep32(const SweepParams<int32_t>& p) { Sweep<int32_t>(p).run(); }
void sweep64(const SweepParams<int64_t>& p) { Sweep<int64_t>(p).run(); }

}  // namespace GCL_ISA
}  // namespace gcl
