// GPU kernels of interpolate and the order in which they run. No torch header: the same file runs on emulated threads.
#pragma once

#include "common/launch.cuh"
#include "interpolate/interpolate_math.h"

namespace gcl {

constexpr int64_t kFewChannels = 4;

// One thread a pixel where channels are few; else one an output number, so that neighbours write neighbours and read neighbours
// of the table. N counts output numbers: dividing 64-bit ones would be most of the work.
template <class T, class N, bool kFew>
__global__ void interpolate_kernel(InterpolateParams<T> p) {
  const N channels = static_cast<N>(p.channels), pixels = static_cast<N>(p.pixels);
  GCL_EACH_ITEM(item, p.batch * p.pixels * (kFew ? 1 : p.channels)) {
    const N n = static_cast<N>(item), pixel = kFew ? n : n / channels;
    const N first = kFew ? 0 : n - pixel * channels, end = kFew ? channels : first + 1;
    T* const out = p.out + static_cast<int64_t>(pixel) * p.channels;
    if (!drawn(p, pixel)) {
      for (N c = first; c < end; ++c) out[c] = T(0);
      continue;
    }
    const T* table = table_of(p, pixel / pixels);
    const T* corner[3];
    for (int k = 0; k < 3; ++k) corner[k] = table + corner_row(p, pixel, k) * p.channels;
    const T* bary = p.bary + 3 * static_cast<int64_t>(pixel);
    for (N c = first; c < end; ++c) out[c] = mix(bary, corner[0][c], corner[1][c], corner[2][c]);
  }
}

// One thread a corner of a pixel.
template <class T>
__global__ void interpolate_backward_bary_kernel(InterpolateBackwardParams<T> p) {
  const InterpolateParams<T>& f = p.forward;
  GCL_EACH_ITEM(e, 3 * f.batch * f.pixels) {
    const int64_t pixel = e / 3;
    T sum = T(0);
    if (drawn(f, pixel)) {
      const T* values = table_of(f, pixel / f.pixels) + corner_row(f, pixel, static_cast<int>(e % 3)) * f.channels;
      for (int64_t c = 0; c < f.channels; ++c) sum += p.grad_out[pixel * f.channels + c] * values[c];
    }
    p.grad_bary[e] = sum;
  }
}

// One thread a number of the table adds what its pixels ask for, in their order: no atomics.
template <class T>
__global__ void interpolate_backward_attributes_kernel(InterpolateBackwardParams<T> p) {
  const InterpolateParams<T>& f = p.forward;
  const int64_t count = (f.shared ? 1 : f.batch) * f.num_verts * f.channels;
  GCL_EACH_ITEM(n, count) {
    const int64_t row = n / f.channels, c = n % f.channels;
    T sum = T(0);
    for (int64_t i = p.entry_begin[row]; i < p.entry_begin[row + 1]; ++i) {
      const int64_t e = p.entry_order[i];
      sum += f.bary[e] * p.grad_out[e / 3 * f.channels + c];
    }
    p.grad_attributes[n] = sum;
  }
}

template <class T, class N>
void launch_interpolate_in(const InterpolateParams<T>& p, GclStream stream) {
  const int64_t pixels = p.batch * p.pixels, numbers = pixels * p.channels;
  if (numbers == 0) return;
  if (p.channels <= kFewChannels) {
    GCL_LAUNCH((interpolate_kernel<T, N, true>), blocks_for(pixels), kThreads, 0, stream, p);
  } else {
    GCL_LAUNCH((interpolate_kernel<T, N, false>), blocks_for(numbers), kThreads, 0, stream, p);
  }
}

template <class T>
void launch_interpolate(const InterpolateParams<T>& p, GclStream stream) {
  const bool small = p.batch * p.pixels * p.channels <= GCL_MOST_IN_32_BITS;
  small ? launch_interpolate_in<T, uint32_t>(p, stream) : launch_interpolate_in<T, int64_t>(p, stream);
}

template <class T>
void launch_interpolate_backward(const InterpolateBackwardParams<T>& p, GclStream stream) {
  const InterpolateParams<T>& f = p.forward;
  const int64_t entries = 3 * f.batch * f.pixels, numbers = (f.shared ? 1 : f.batch) * f.num_verts * f.channels;
  if (p.grad_bary != nullptr && entries > 0) {
    GCL_LAUNCH((interpolate_backward_bary_kernel<T>), blocks_for(entries), kThreads, 0, stream, p);
  }
  if (p.grad_attributes != nullptr && numbers > 0) {
    GCL_LAUNCH((interpolate_backward_attributes_kernel<T>), blocks_for(numbers), kThreads, 0, stream, p);
  }
}

}  // namespace gcl
