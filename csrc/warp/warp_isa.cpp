// mesh_flow and mesh_warp on the CPU: the pixels of a row that show the body are taken in blocks, each step a loop over the
// block that the compiler turns into vectors. Compiled once for each instruction set.
#include "warp/warp_math.h"
#include "warp/warp_isa.h"

namespace gcl {
namespace GCL_ISA {
namespace {

constexpr int kBlock = 32;  // pixels

template <class T>
struct Block {
  int32_t pixel[kBlock];  // in the image
  int32_t face[kBlock];
  int32_t finite[kBlock], visible[kBlock];
  T corner_x[3][kBlock], corner_y[3][kBlock], corner_z[3][kBlock], bary[3][kBlock];
  T x[kBlock], y[kBlock], z[kBlock], across[kBlock], down[kBlock];
  int32_t index[4][kBlock], within[4][kBlock];  // of each tap
  T weight[4][kBlock];
};

template <class T>
void gather_corners(const FlowParams<T>& p, int64_t b, Block<T>& a) {
  const T* verts = p.src_verts + 3 * b * p.num_verts;
  const T* bary = p.dst_bary + 3 * b * p.height * p.width;
  const int32_t num_verts = static_cast<int32_t>(p.num_verts);
  for (int k = 0; k < 3; ++k) {
    for (int l = 0; l < kBlock; ++l) {
      const T* v = verts + 3 * nearest_index(p.faces[3 * a.face[l] + k], num_verts);
      a.corner_x[k][l] = v[0];
      a.corner_y[k][l] = v[1];
      a.corner_z[k][l] = v[2];
      a.bary[k][l] = bary[3 * static_cast<int64_t>(a.pixel[l]) + k];
    }
  }
}

template <class T>
void find_points(Block<T>& a, T extent) {
  for (int l = 0; l < kBlock; ++l) {
    const T x[3] = {a.corner_x[0][l], a.corner_x[1][l], a.corner_x[2][l]};
    const T y[3] = {a.corner_y[0][l], a.corner_y[1][l], a.corner_y[2][l]};
    const T z[3] = {a.corner_z[0][l], a.corner_z[1][l], a.corner_z[2][l]};
    const T bary[3] = {a.bary[0][l], a.bary[1][l], a.bary[2][l]};
    const SourcePoint<T> point = source_point(x, y, z, bary, extent);
    a.x[l] = point.x;
    a.y[l] = point.y;
    a.z[l] = point.z;
    a.across[l] = point.across;
    a.down[l] = point.down;
    a.finite[l] = point.finite;
  }
}

template <class T>
SourcePoint<T> point_of(const Block<T>& a, int l) {
  return {.x = a.x[l], .y = a.y[l], .z = a.z[l], .across = a.across[l], .down = a.down[l], .finite = a.finite[l] != 0};
}

template <class T>
void find_visible(const FlowParams<T>& p, int64_t b, Block<T>& a, T tolerance) {
  const int32_t height = static_cast<int32_t>(p.height), width = static_cast<int32_t>(p.width);
  const T* depth = p.src_depth + b * p.height * p.width;
  const int32_t* face = p.src_face_id + b * p.height * p.width;
  T covered[kBlock] = {}, agreeing[kBlock] = {};
  for (int n = 0; n < 4; ++n) {
    int32_t same[kBlock], agree[kBlock];
    T seen[kBlock], weight[kBlock], dx[kBlock], dy[kBlock];
    const auto tap = [&](int l) { return tap_at(a.x[l], a.y[l], n, height, width); };
    for (int l = 0; l < kBlock; ++l) a.index[n][l] = tap(l).index;  // apart, for else the compiler sees branches
    for (int l = 0; l < kBlock; ++l) a.within[n][l] = tap(l).within;
    for (int l = 0; l < kBlock; ++l) a.weight[n][l] = tap(l).weight;
    for (int l = 0; l < kBlock; ++l) dx[l] = tap(l).dx;
    for (int l = 0; l < kBlock; ++l) dy[l] = tap(l).dy;
    for (int l = 0; l < kBlock; ++l) seen[l] = depth[a.index[n][l]];
    for (int l = 0; l < kBlock; ++l) same[l] = face[a.index[n][l]] == a.face[l];
    for (int l = 0; l < kBlock; ++l) weight[l] = covered_weight(a.weight[n][l], a.within[n][l] != 0, seen[l]);
    for (int l = 0; l < kBlock; ++l) {
      agree[l] = agrees(point_of(a, l), dx[l], dy[l], seen[l], same[l] != 0, tolerance);
    }
    for (int l = 0; l < kBlock; ++l) {
      covered[l] += weight[l];
      agreeing[l] += agree[l] != 0 ? weight[l] : T(0);
    }
  }
  for (int l = 0; l < kBlock; ++l) {
    a.visible[l] = is_visible(point_of(a, l), covered[l], agreeing[l], height, width);
  }
}

// Calls done(block, count) for the pixels [begin, end) of image b that show a face, up to kBlock at once; a block is filled up
// with copies of its first pixel.
template <class T, class Done>
void each_block(const FlowParams<T>& p, int64_t b, int64_t begin, int64_t end, const Done& done) {
  const int32_t* face_id = p.dst_face_id + b * p.height * p.width;
  Block<T> a;
  int count = 0;
  for (int64_t pixel = begin; pixel < end; ++pixel) {
    const int32_t face = face_id[pixel];
    a.pixel[count] = static_cast<int32_t>(pixel);
    a.face[count] = face;
    count += face >= 0 && face < p.num_faces;
    if (count < kBlock && (pixel + 1 < end || count == 0)) continue;
    for (int l = count; l < kBlock; ++l) {
      a.pixel[l] = a.pixel[0];
      a.face[l] = a.face[0];
    }
    gather_corners(p, b, a);
    find_points(a, p.limits[2 * b]);
    find_visible(p, b, a, p.limits[2 * b + 1]);
    done(a, count);
    count = 0;
  }
}

// Calls run(image, first pixel, last pixel + 1) for the rows [begin, end) of the batch, image by image.
template <class T, class Run>
void each_image(const FlowParams<T>& p, int64_t begin, int64_t end, const Run& run) {
  while (begin < end) {
    const int64_t b = begin / p.height, next = (b + 1) * p.height < end ? (b + 1) * p.height : end;
    run(b, (begin - b * p.height) * p.width, (next - b * p.height) * p.width);
    begin = next;
  }
}

template <class T>
void flow(const FlowParams<T>& p, int64_t row, int64_t last_row) {
  const int32_t height = static_cast<int32_t>(p.height), width = static_cast<int32_t>(p.width);
  each_image(p, row, last_row, [&](int64_t b, int64_t begin, int64_t end) {
    T* grid = p.grid + 2 * b * p.height * p.width;
    uint8_t* visibility = p.visibility + b * p.height * p.width;
    for (int64_t n = begin; n < end; ++n) visibility[n] = 0;
    for (int64_t n = 2 * begin; n < 2 * end; ++n) grid[n] = T(-2);
    each_block(p, b, begin, end, [&](const Block<T>& a, int count) {
      for (int l = 0; l < count; ++l) {
        visibility[a.pixel[l]] = a.visible[l] ? 1 : 2;
        grid[2 * static_cast<int64_t>(a.pixel[l])] = a.finite[l] ? grid_units(a.x[l], width) : T(-2);
        grid[2 * static_cast<int64_t>(a.pixel[l]) + 1] = a.finite[l] ? grid_units(a.y[l], height) : T(-2);
      }
    });
  });
}

// Reads the image at the pixels of a block, plane by plane, and keeps what is visible.
template <class T, class S>
void read_image(const WarpParams<T, S>& p, int64_t b, const Block<T>& a, int count) {
  const int64_t pixels = p.flow.height * p.flow.width;
  for (int64_t c = 0; c < p.channels; ++c) {
    const S* image = p.image + (b * p.channels + c) * pixels;
    S* warped = p.warped + (b * p.channels + c) * pixels;
    S value[kBlock] = {};
    for (int n = 0; n < 4; ++n) {
      S at[kBlock];
      for (int l = 0; l < kBlock; ++l) at[l] = image[a.index[n][l]];
      for (int l = 0; l < kBlock; ++l) at[l] *= S(a.weight[n][l]);
      for (int l = 0; l < kBlock; ++l) value[l] += a.within[n][l] != 0 ? at[l] : S(0);
    }
    for (int l = 0; l < count; ++l) {
      if (a.visible[l]) warped[a.pixel[l]] = value[l];
    }
  }
}

template <class T, class S>
void warp(const WarpParams<T, S>& p, int64_t row, int64_t last_row) {
  const FlowParams<T>& f = p.flow;
  const int64_t pixels = f.height * f.width;
  each_image(f, row, last_row, [&](int64_t b, int64_t begin, int64_t end) {
    uint8_t* visibility = f.visibility + b * pixels;
    for (int64_t n = begin; n < end; ++n) visibility[n] = 0;
    for (int64_t c = 0; c < p.channels; ++c) {
      S* warped = p.warped + (b * p.channels + c) * pixels;
      for (int64_t n = begin; n < end; ++n) warped[n] = p.fill;
    }
    T* source = p.source == nullptr ? nullptr : p.source + 2 * b * pixels;
    for (int64_t n = 2 * begin; source != nullptr && n < 2 * end; ++n) source[n] = T(-1);
    each_block(f, b, begin, end, [&](const Block<T>& a, int count) {
      for (int l = 0; l < count; ++l) {
        visibility[a.pixel[l]] = a.visible[l] ? 1 : 2;
        if (source == nullptr || !a.visible[l]) continue;
        source[2 * static_cast<int64_t>(a.pixel[l])] = a.x[l];
        source[2 * static_cast<int64_t>(a.pixel[l]) + 1] = a.y[l];
      }
      read_image(p, b, a, count);
    });
  });
}

// Channels [begin, end) of image b, pixel by pixel in their order: so is each number summed on the GPU.
template <class T, class S>
void backward(const WarpBackwardParams<T, S>& p, int64_t b, int64_t begin, int64_t end) {
  const int32_t height = static_cast<int32_t>(p.height), width = static_cast<int32_t>(p.width);
  const int64_t pixels = p.height * p.width;
  const uint8_t* visibility = p.visibility + b * pixels;
  const T* source = p.source + 2 * b * pixels;
  const S* grad_warped = p.grad_warped + b * p.channels * pixels;
  S* grad_image = p.grad_image + b * p.channels * pixels;
  for (int64_t n = begin * pixels; n < end * pixels; ++n) grad_image[n] = S(0);
  int32_t pixel[kBlock], index[4][kBlock], within[4][kBlock];
  S weight[4][kBlock];
  T x[kBlock], y[kBlock];
  int count = 0;
  for (int64_t at = 0; at < pixels; ++at) {
    pixel[count] = static_cast<int32_t>(at);
    x[count] = source[2 * at];
    y[count] = source[2 * at + 1];
    count += visibility[at] == 1;
    if (count < kBlock && at + 1 < pixels) continue;
    for (int l = count; l < kBlock; ++l) x[l] = y[l] = T(0);
    for (int n = 0; n < 4; ++n) {
      const auto tap = [&](int l) { return tap_at(x[l], y[l], n, height, width); };
      for (int l = 0; l < kBlock; ++l) index[n][l] = tap(l).index;
      for (int l = 0; l < kBlock; ++l) within[n][l] = tap(l).within;
      for (int l = 0; l < kBlock; ++l) weight[n][l] = S(tap(l).weight);
    }
    for (int64_t c = begin; c < end; ++c) {
      S* to = grad_image + c * pixels;
      for (int l = 0; l < count; ++l) {
        const S grad = grad_warped[c * pixels + pixel[l]];
        for (int n = 0; n < 4; ++n) {
          if (within[n][l] != 0) to[index[n][l]] += weight[n][l] * grad;
        }
      }
    }
    count = 0;
  }
}

template <class T>
void limits(const FlowParams<T>& p, int64_t image) {
  T nearest = T(__builtin_inf()), farthest = -nearest;
  for (int64_t v = 0; v < p.num_verts; ++v) widen(p.src_verts + 3 * (image * p.num_verts + v), &nearest, &farthest);
  limits_of(nearest, farthest, p.limits + 2 * image);
}

}  // namespace

template <class P>
void flow_limits(const P& p, int64_t image) {
  limits(p, image);
}
template <class P>
void flow_rows(const P& p, int64_t begin, int64_t end) {
  flow(p, begin, end);
}
template <class P>
void warp_rows(const P& p, int64_t begin, int64_t end) {
  warp(p, begin, end);
}
template <class P>
void warp_backward(const P& p, int64_t image, int64_t begin, int64_t end) {
  backward(p, image, begin, end);
}

#define GCL_FLOW(T)                                                 \
  template void flow_limits(const FlowParams<T>& p, int64_t image); \
  template void flow_rows(const FlowParams<T>& p, int64_t begin, int64_t end);
GCL_FLOW(float)
GCL_FLOW(double)

#define GCL_WARP(T, S)                                                            \
  template void warp_rows(const WarpParams<T, S>& p, int64_t begin, int64_t end); \
  template void warp_backward(const WarpBackwardParams<T, S>& p, int64_t image, int64_t begin, int64_t end);
GCL_WARP(float, float)
GCL_WARP(float, double)
GCL_WARP(double, float)
GCL_WARP(double, double)

}  // namespace GCL_ISA
}  // namespace gcl
