// GPU kernels of interpolate and the order in which they run. No torch header: the same file runs on emulated threads.
#pragma once

#include "common/launch.cuh"
#include "interpolate/interpolate_math.h"

namespace gcl {

// One thread an output number: neighbours write neighbours, and read neighbours of the table.
template <class T>
__global__ void interpolate_kernel(InterpolateParams<T> p) {
  const int64_t count = p.batch * p.pixels * p.channels;
  GCL_EACH_ITEM(n, count) {
    const int64_t pixel = n / p.channels, c = n % p.channels;
    T value = T(0);
    if (drawn(p, pixel)) {
      const T* table = table_of(p, pixel / p.pixels) + c;
      T corner[3];
      for (int k = 0; k < 3; ++k) corner[k] = table[corner_row(p, pixel, k) * p.channels];
      value = mix(p.bary + 3 * pixel, corner[0], corner[1], corner[2]);
    }
    p.out[n] = value;
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

template <class T>
void launch_interpolate(const InterpolateParams<T>& p, GclStream stream) {
  const int64_t count = p.batch * p.pixels * p.channels;
  if (count > 0) GCL_LAUNCH((interpolate_kernel<T>), blocks_for(count), kThreads, 0, stream, p);
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
