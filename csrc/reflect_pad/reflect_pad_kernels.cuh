// GPU kernels of reflect_pad and the order in which they run. No torch header: the same file runs on emulated threads.
#pragma once

#include "common/halves.h"
#include "common/launch.cuh"
#include "reflect_pad/reflect_pad_math.h"

namespace gcl {

constexpr int kVectorBytes = 16;

// What one load or store moves.
template <class T, int kLanes>
struct alignas(kLanes * sizeof(T)) Lanes {
  T v[kLanes];
};

// Whether the numbers of a pixel are whole vectors.
template <class T>
bool whole_vectors(const ReflectPadParams<T>& p) {
  const auto places = reinterpret_cast<uintptr_t>(p.from) | reinterpret_cast<uintptr_t>(p.to);
  return p.inner * static_cast<int64_t>(sizeof(T)) % kVectorBytes == 0 && places % kVectorBytes == 0;
}

// The same memory in units of another size.
template <class U, class T>
ReflectPadParams<U> in_units(const ReflectPadParams<T>& p) {
  ReflectPadParams<U> units{};
  units.from = reinterpret_cast<const U*>(p.from), units.to = reinterpret_cast<U*>(p.to);
  units.outer = p.outer, units.height = p.height, units.width = p.width, units.pad = p.pad;
  units.inner = p.inner * static_cast<int64_t>(sizeof(T)) / static_cast<int64_t>(sizeof(U));
  return units;
}

// One thread a unit of the padded map. N counts units: dividing 64-bit ones would be most of the work.
template <class U, class N>
__global__ void reflect_pad_kernel(ReflectPadParams<U> p) {
  const N height = static_cast<N>(p.height), width = static_cast<N>(p.width), inner = static_cast<N>(p.inner);
  const N pad = static_cast<N>(p.pad), rows = height + 2 * pad, columns = width + 2 * pad;
  GCL_EACH_ITEM(item, padded_numbers(p)) {
    const N n = static_cast<N>(item), pixel = n / inner, line = pixel / columns, outer = line / rows;
    const N y = mirrored(line - outer * rows, height, pad), x = mirrored(pixel - line * columns, width, pad);
    p.to[n] = p.from[((outer * height + y) * width + x) * inner + (n - pixel * inner)];
  }
}

// One thread a unit of the map's gradient adds what its readers ask for, row after row, column after column: no atomics.
template <class T, class N, int kLanes>
__global__ void reflect_pad_backward_kernel(ReflectPadParams<Lanes<T, kLanes>> p) {
  const N height = static_cast<N>(p.height), width = static_cast<N>(p.width), inner = static_cast<N>(p.inner);
  const N pad = static_cast<N>(p.pad), rows = height + 2 * pad, columns = width + 2 * pad;
  GCL_EACH_ITEM(item, p.outer * p.height * p.width * p.inner) {
    const N n = static_cast<N>(item), pixel = n / inner, line = pixel / width, outer = line / height;
    decltype(widen(T{})) sum[kLanes] = {};
    Lanes<T, kLanes> out;  // of one reader the bits
    int readers = 0;
    for (int j = 0; j < kReaders; ++j) {
      const N y = reader(j, line - outer * height, height, pad);
      if (y == kNobody<N>) continue;
      for (int k = 0; k < kReaders; ++k) {
        const N x = reader(k, pixel - line * width, width, pad);
        if (x == kNobody<N>) continue;
        out = p.from[((outer * rows + y) * columns + x) * inner + (n - pixel * inner)];
        for (int l = 0; l < kLanes; ++l) sum[l] += widen(out.v[l]);
        ++readers;
      }
    }
    for (int l = 0; readers > 1 && l < kLanes; ++l) narrow(sum[l], out.v + l);
    p.to[n] = out;
  }
}

template <class U>
void launch_reflect_pad_in(const ReflectPadParams<U>& p, GclStream stream) {
  const int64_t count = padded_numbers(p);
  if (count == 0) return;
  if (count <= GCL_MOST_IN_32_BITS) {
    GCL_LAUNCH((reflect_pad_kernel<U, uint32_t>), blocks_for(count), kThreads, 0, stream, p);
  } else {
    GCL_LAUNCH((reflect_pad_kernel<U, int64_t>), blocks_for(count), kThreads, 0, stream, p);
  }
}

// The numbers only move, so that what they mean is of no account.
template <class T>
void launch_reflect_pad(const ReflectPadParams<T>& p, GclStream stream) {
  if (whole_vectors(p)) launch_reflect_pad_in(in_units<Lanes<uint32_t, 4>>(p), stream);
  else if constexpr (sizeof(T) == 2) launch_reflect_pad_in(in_units<uint16_t>(p), stream);
  else if constexpr (sizeof(T) == 4) launch_reflect_pad_in(in_units<uint32_t>(p), stream);
  else launch_reflect_pad_in(in_units<uint64_t>(p), stream);
}

template <class T, int kLanes>
void launch_reflect_pad_backward_in(const ReflectPadParams<T>& elements, GclStream stream) {
  const auto p = in_units<Lanes<T, kLanes>>(elements);
  const int64_t count = p.outer * p.height * p.width * p.inner;
  if (count == 0) return;
  if (padded_numbers(p) <= GCL_MOST_IN_32_BITS) {
    GCL_LAUNCH((reflect_pad_backward_kernel<T, uint32_t, kLanes>), blocks_for(count), kThreads, 0, stream, p);
  } else {
    GCL_LAUNCH((reflect_pad_backward_kernel<T, int64_t, kLanes>), blocks_for(count), kThreads, 0, stream, p);
  }
}

template <class T>
void launch_reflect_pad_backward(const ReflectPadParams<T>& p, GclStream stream) {
  constexpr int kWide = kVectorBytes / static_cast<int>(sizeof(T));
  if (whole_vectors(p)) launch_reflect_pad_backward_in<T, kWide>(p, stream);
  else launch_reflect_pad_backward_in<T, 1>(p, stream);
}

}  // namespace gcl
