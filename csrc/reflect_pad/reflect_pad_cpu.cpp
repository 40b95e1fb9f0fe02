// CPU backend of reflect_pad: row after row, each number by one thread, sums in the order of the GPU's.
#include <algorithm>

#include "common/cpu_backend.h"
#include "reflect_pad/reflect_pad_math.h"
#include "reflect_pad/reflect_pad_ops.h"

namespace gcl {
namespace {

constexpr int64_t kNumbersAtOnce = 32768;

// f(outer, y) for each row y of each of `outer` maps, on torch's threads, those of a thread in their order.
template <class F>
void each_row(int64_t outer, int64_t rows, int64_t numbers, F&& f) {
  const int64_t together = std::max<int64_t>(1, kNumbersAtOnce / std::max<int64_t>(1, numbers));
  torch::stable::parallel_for(0, outer * rows, together, [&](int64_t begin, int64_t end) {
    int64_t o = begin / rows, y = begin % rows;  // a division for each row would take as long as a short row
    for (int64_t row = begin; row < end; ++row) {
      f(o, y);
      if (++y == rows) ++o, y = 0;
    }
  });
}

// A row [W, inner] to [W + 2 pad, inner].
template <class T>
void pad_row(const ReflectPadParams<T>& p, const T* from, T* to) {
  const int64_t inner = p.inner;
  const auto edge = [&](int64_t first, int64_t end) {
    for (int64_t x = first; x < end; ++x) {
      const T* pixel = from + mirrored(x, p.width, p.pad) * inner;
      if (inner == 1) to[x] = *pixel;
      else std::copy_n(pixel, inner, to + x * inner);
    }
  };
  edge(0, p.pad);
  std::copy_n(from, p.width * inner, to + p.pad * inner);
  edge(p.pad + p.width, p.width + 2 * p.pad);
}

// out[n] = sum over k of from[k][n], in float for 16 bits; of one reader the bits.
template <int kCount, class T>
void add_spans(const T* const* from, int64_t length, T* out) {
  const T* span[kCount];
  for (int k = 0; k < kCount; ++k) span[k] = from[k];
  for (int64_t n = 0; n < length; ++n) {
    decltype(widen(T{})) sum = 0;
    for (int k = 0; k < kCount; ++k) sum += widen(span[k][n]);
    narrow(sum, out + n);
  }
}

template <class T>
void add_spans(const T* const* from, int count, int64_t length, T* out) {
  switch (count) {  // one, two or three rows, times as many columns
    case 1:
      std::copy_n(from[0], length, out);
      return;
    case 2:
      return add_spans<2>(from, length, out);
    case 3:
      return add_spans<3>(from, length, out);
    case 4:
      return add_spans<4>(from, length, out);
    case 6:
      return add_spans<6>(from, length, out);
    default:
      return add_spans<9>(from, length, out);
  }
}

// A row of the map's gradient [W, inner], from those rows of the padded one that read it.
template <class T>
void gather_row(const ReflectPadParams<T>& p, const T* const* rows, int num_rows, T* to) {
  const int64_t inner = p.inner, last = p.width - 1;
  const T* from[kReaders * kReaders];
  for (int64_t x = 0, end; x <= last; x = end) {
    int64_t columns[kReaders];
    int num_columns = 0, count = 0;
    for (int k = 0; k < kReaders; ++k) {
      const int64_t column = reader(k, x, p.width, p.pad);
      if (column != kNobody<int64_t>) columns[num_columns++] = column;
    }
    end = x > p.pad && x < last - p.pad ? last - p.pad : x + 1;  // what the middle reads lies together
    for (int j = 0; j < num_rows; ++j) {
      for (int k = 0; k < num_columns; ++k) from[count++] = rows[j] + columns[k] * inner;
    }
    add_spans(from, count, (end - x) * inner, to + x * inner);
  }
}

struct ReflectPadCpu : CpuBackend {
  template <class T>
  void forward(const ReflectPadParams<T>& p) const {
    const int64_t rows = p.height + 2 * p.pad, line = p.width * p.inner, padded = line + 2 * p.pad * p.inner;
    each_row(p.outer, rows, padded, [&](int64_t o, int64_t y) {
      pad_row(p, p.from + (o * p.height + mirrored(y, p.height, p.pad)) * line, p.to + (o * rows + y) * padded);
    });
  }

  template <class T>
  void backward(const ReflectPadParams<T>& p) const {
    const int64_t rows = p.height + 2 * p.pad, line = p.width * p.inner, padded = line + 2 * p.pad * p.inner;
    each_row(p.outer, p.height, padded, [&](int64_t o, int64_t y) {
      const T* from[kReaders];
      int count = 0;
      for (int k = 0; k < kReaders; ++k) {
        const int64_t row = reader(k, y, p.height, p.pad);
        if (row != kNobody<int64_t>) from[count++] = p.from + (o * rows + row) * padded;
      }
      gather_row(p, from, count, p.to + (o * p.height + y) * line);
    });
  }
};

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(gcl_fast, CPU, m) { register_reflect_pad<ReflectPadCpu>(m); }

}  // namespace gcl
