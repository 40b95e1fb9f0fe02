// CPU backend of interpolate. Each number is summed in the order of the pixels, whatever the number of threads.
#include "common/cpu_backend.h"
#include "interpolate/interpolate_math.h"
#include "interpolate/interpolate_ops.h"

namespace gcl {
namespace {

using torch::stable::parallel_for;

constexpr int64_t kPixelsAtOnce = 4096;
constexpr int64_t kVertsAtOnce = 2048;

// `Channels` known to the compiler, or 0.
template <int Channels, class T>
void interpolate_range(const InterpolateParams<T>& p, int64_t begin, int64_t end) {
  const int64_t channels = Channels > 0 ? Channels : p.channels;
  for (int64_t pixel = begin; pixel < end; ++pixel) {
    T* out = p.out + pixel * channels;
    if (!drawn(p, pixel)) {
      for (int64_t c = 0; c < channels; ++c) out[c] = T(0);
      continue;
    }
    const T* table = table_of(p, pixel / p.pixels);
    const T* corner[3];
    for (int k = 0; k < 3; ++k) corner[k] = table + corner_row(p, pixel, k) * channels;
    const T* bary = p.bary + 3 * pixel;
    for (int64_t c = 0; c < channels; ++c) out[c] = mix(bary, corner[0][c], corner[1][c], corner[2][c]);
  }
}

template <class T>
void interpolate_pixels(const InterpolateParams<T>& p, int64_t begin, int64_t end) {
  switch (p.channels) {
    case 1:
      return interpolate_range<1>(p, begin, end);
    case 2:
      return interpolate_range<2>(p, begin, end);
    case 3:
      return interpolate_range<3>(p, begin, end);
    case 4:
      return interpolate_range<4>(p, begin, end);
    default:
      return interpolate_range<0>(p, begin, end);
  }
}

template <class T>
void bary_gradient(const InterpolateBackwardParams<T>& p, int64_t begin, int64_t end) {
  const InterpolateParams<T>& f = p.forward;
  for (int64_t pixel = begin; pixel < end; ++pixel) {
    const T* grad = p.grad_out + pixel * f.channels;
    for (int k = 0; k < 3; ++k) {
      T sum = T(0);
      if (drawn(f, pixel)) {
        const T* values = table_of(f, pixel / f.pixels) + corner_row(f, pixel, k) * f.channels;
        for (int64_t c = 0; c < f.channels; ++c) sum += grad[c] * values[c];
      }
      p.grad_bary[3 * pixel + k] = sum;
    }
  }
}

// What the pixels [begin, end) of one table ask of its vertices [first, last).
template <class T>
void add_attribute_gradient(const InterpolateBackwardParams<T>& p, T* table, int64_t begin, int64_t end, int64_t first,
                            int64_t last) {
  const InterpolateParams<T>& f = p.forward;
  for (int64_t n = first * f.channels; n < last * f.channels; ++n) table[n] = T(0);
  for (int64_t pixel = begin; pixel < end; ++pixel) {
    if (!drawn(f, pixel)) continue;
    const T* grad = p.grad_out + pixel * f.channels;
    for (int k = 0; k < 3; ++k) {
      const int64_t row = corner_row(f, pixel, k);
      if (row < first || row >= last) continue;
      const T weight = f.bary[3 * pixel + k];
      for (int64_t c = 0; c < f.channels; ++c) table[row * f.channels + c] += weight * grad[c];
    }
  }
}

struct InterpolateCpu : CpuBackend {
  template <class T>
  void forward(const InterpolateParams<T>& p) const {
    parallel_for(0, p.batch * p.pixels, kPixelsAtOnce, [&](int64_t begin, int64_t end) { interpolate_pixels(p, begin, end); });
  }

  template <class T>
  void backward(const InterpolateBackwardParams<T>& p) const {
    const InterpolateParams<T>& f = p.forward;
    const int64_t pixels = f.batch * f.pixels;
    if (p.grad_bary != nullptr) {
      parallel_for(0, pixels, kPixelsAtOnce, [&](int64_t begin, int64_t end) { bary_gradient(p, begin, end); });
    }
    if (p.grad_attributes == nullptr) return;
    if (f.shared) {  // one table: each thread reads every pixel and keeps to its own vertices
      parallel_for(0, f.num_verts, kVertsAtOnce,
                   [&](int64_t first, int64_t last) { add_attribute_gradient(p, p.grad_attributes, 0, pixels, first, last); });
      return;
    }
    in_parallel(f.batch, 1, [&](int64_t b) {
      T* table = p.grad_attributes + b * f.num_verts * f.channels;
      add_attribute_gradient(p, table, b * f.pixels, (b + 1) * f.pixels, 0, f.num_verts);
    });
  }
};

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(gcl_fast, CPU, m) { register_interpolate<InterpolateCpu>(m); }

}  // namespace gcl
