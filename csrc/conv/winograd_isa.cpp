// The loops of Winograd's convolution, compiled once for each instruction set. Every tile's sums have one order, so the result
// knows nothing of threads, of the batch, or of the panel a tile is in.
#include "conv/winograd.h"

#include <cstring>

#if defined(__AVX2__)
#include <immintrin.h>
#endif

namespace gcl {
namespace GCL_ISA {
namespace {

// A register's worth of lanes: half a panel, or a whole one with AVX-512.
#if defined(__AVX512F__)
constexpr int kWidth = 16;
constexpr int64_t kMostRows = 12;  // of outputs at once: accumulators enough to hide the latency
#else
constexpr int kWidth = 8;
constexpr int64_t kMostRows = 6;
#endif
constexpr int kParts = kPanel / kWidth;
typedef float Vector __attribute__((vector_size(kWidth * 4)));

inline Vector load(const float* from) {
  Vector v;
  std::memcpy(&v, from, sizeof v);
  return v;
}
inline void store(float* to, Vector v) { std::memcpy(to, &v, sizeof v); }
inline Vector splat(float x) { return x - Vector{}; }  // adding 0 would be an addition: -0 + 0 is 0

inline Vector fma(Vector a, Vector b, Vector c) {
#if defined(__AVX512F__)
  return (Vector)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c);
#elif defined(__FMA__)
  return (Vector)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c);
#else
  return a * b + c;
#endif
}

// Neighbours in one row of tiles.
struct Segment {
  int lane, tiles;
  int64_t image, row, column;
};

int segments(const TileGrid& grid, int64_t panel, Segment* found) {
  const int64_t count = grid.batch * grid.rows * grid.columns;
  int lane = 0, n = 0;
  while (lane < kPanel && panel * kPanel + lane < count) {
    const int64_t tile = panel * kPanel + lane, column = tile % grid.columns, line = tile / grid.columns;
    const int64_t room = kPanel - lane, there = grid.columns - column;
    const int tiles = static_cast<int>(room < there ? room : there);
    found[n++] = {lane, tiles, line / grid.rows, line % grid.rows, column};
    lane += tiles;
  }
  return n;
}

bool is_partial(const Segment* s, int n) { return n == 0 || s[n - 1].lane + s[n - 1].tiles < kPanel; }

// The even and the odd ones of 2 * kWidth floats.
inline void split_pairs(const float* from, Vector& even, Vector& odd) {
  const Vector a = load(from), b = load(from + kWidth);
#if defined(__AVX512F__)
  const __m512i first = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
  const __m512i second = _mm512_add_epi32(first, _mm512_set1_epi32(1));
  even = (Vector)_mm512_permutex2var_ps((__m512)a, first, (__m512)b);
  odd = (Vector)_mm512_permutex2var_ps((__m512)a, second, (__m512)b);
#elif defined(__AVX2__)
  const __m256d x = _mm256_castps_pd(_mm256_shuffle_ps((__m256)a, (__m256)b, 0x88));
  const __m256d y = _mm256_castps_pd(_mm256_shuffle_ps((__m256)a, (__m256)b, 0xdd));
  even = (Vector)_mm256_permute4x64_pd(x, 0xd8);
  odd = (Vector)_mm256_permute4x64_pd(y, 0xd8);
#else
  for (int l = 0; l < kWidth; ++l) {
    even[l] = l < kWidth / 2 ? a[2 * l] : b[2 * l - kWidth];
    odd[l] = l < kWidth / 2 ? a[2 * l + 1] : b[2 * l + 1 - kWidth];
  }
#endif
}

// Their inverse.
inline void join_pairs(Vector even, Vector odd, float* to) {
#if defined(__AVX512F__)
  const __m512i first = _mm512_setr_epi32(0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
  const __m512i second = _mm512_add_epi32(first, _mm512_set1_epi32(8));
  store(to, (Vector)_mm512_permutex2var_ps((__m512)even, first, (__m512)odd));
  store(to + kWidth, (Vector)_mm512_permutex2var_ps((__m512)even, second, (__m512)odd));
#elif defined(__AVX2__)
  const __m256 low = _mm256_unpacklo_ps((__m256)even, (__m256)odd), high = _mm256_unpackhi_ps((__m256)even, (__m256)odd);
  store(to, (Vector)_mm256_permute2f128_ps(low, high, 0x20));
  store(to + kWidth, (Vector)_mm256_permute2f128_ps(low, high, 0x31));
#else
  for (int l = 0; l < kWidth; ++l) {
    to[2 * l] = even[l];
    to[2 * l + 1] = odd[l];
  }
#endif
}

// sum [R][16] = u [inputs][R] . v [inputs][16]
template <int R>
void product(const float* u, const float* v, int64_t inputs, float* sum) {
  Vector a[kParts][R];
  for (int h = 0; h < kParts; ++h) {
    for (int r = 0; r < R; ++r) a[h][r] = Vector{};
  }
  for (int64_t c = 0; c < inputs; ++c, u += R, v += kPanel) {
    Vector x[kParts];
    for (int h = 0; h < kParts; ++h) x[h] = load(v + h * kWidth);
#pragma GCC unroll 12
    for (int r = 0; r < R; ++r) {
      const Vector w = splat(u[r]);
      for (int h = 0; h < kParts; ++h) a[h][r] = fma(w, x[h], a[h][r]);
    }
  }
  for (int r = 0; r < R; ++r) {
    for (int h = 0; h < kParts; ++h) store(sum + r * kPanel + h * kWidth, a[h][r]);
  }
}

void output_panel(const WinogradParams& p, int64_t panel, const float* m, int64_t stride) {
  Segment s[kPanel];
  const int n = segments(p.tiles, panel, s);
  const int64_t height = 2 * p.tiles.rows, width = 2 * p.tiles.columns;
  for (int64_t k = 0; k < p.outputs; ++k) {
    alignas(64) float line[2][2 * kPanel];
    const Vector bias = splat(p.bias == nullptr ? 0.0f : p.bias[k]);
    for (int h = 0; h < kPanel; h += kWidth) {
      const float* q = m + k * kPanel + h;
      Vector t[2][4];
      for (int j = 0; j < 4; ++j) {
        const Vector a = load(q + j * stride), b = load(q + (4 + j) * stride);
        const Vector c = load(q + (8 + j) * stride), d = load(q + (12 + j) * stride);
        t[0][j] = a + b + c;
        t[1][j] = b - c - d;
      }
      for (int r = 0; r < 2; ++r) {
        join_pairs(t[r][0] + t[r][1] + t[r][2] + bias, t[r][1] - t[r][2] - t[r][3] + bias, line[r] + 2 * h);
      }
    }
    for (int r = 0; r < 2; ++r) {
      for (int g = 0; g < n; ++g) {
        float* to = p.output + ((s[g].image * p.outputs + k) * height + 2 * s[g].row + r) * width + 2 * s[g].column;
        if (s[g].tiles == kPanel) std::memcpy(to, line[r], sizeof line[r]);
        else std::memcpy(to, line[r] + 2 * s[g].lane, 2 * s[g].tiles * sizeof(float));
      }
    }
  }
}

// sum [R][4] += over panels and lanes of m [R rows] times v [4 rows]; both point at a panel's first row
template <int R>
void correlate_block(const float* m, const float* v, int64_t panels, int64_t outputs, int64_t inputs, float* sum) {
  Vector a[R][4];
  for (int r = 0; r < R; ++r) {
    for (int j = 0; j < 4; ++j) a[r][j] = Vector{};
  }
  for (int64_t p = 0; p < panels; ++p, m += outputs * kPanel, v += inputs * kPanel) {
    for (int h = 0; h < kPanel; h += kWidth) {
      Vector x[R];
      for (int r = 0; r < R; ++r) x[r] = load(m + r * kPanel + h);
#pragma GCC unroll 4
      for (int j = 0; j < 4; ++j) {
        const Vector y = load(v + j * kPanel + h);
        for (int r = 0; r < R; ++r) a[r][j] = fma(x[r], y, a[r][j]);
      }
    }
  }
  for (int r = 0; r < R; ++r) {
    for (int j = 0; j < 4; ++j) {
      alignas(64) float lane[kWidth];
      store(lane, a[r][j]);
      for (int w = kWidth / 2; w > 0; w /= 2) {
        for (int l = 0; l < w; ++l) lane[l] += lane[l + w];
      }
      sum[r * inputs + j] += lane[0];
    }
  }
}

}  // namespace

// A multiple of 4 outputs in blocks of kMostRows and of 4.
int64_t block_rows(int64_t left) {
  if (kMostRows == 6) return left % 6 == 0 || left > 8 ? 6 : 4;
  return left < kMostRows ? left : kMostRows;
}

void transform_taps(const TapParams& p, int64_t first, int64_t rows) {
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t c = 0; c < p.inputs; ++c) {
      const float* from = p.weight + 9 * (p.turned ? c * p.outputs + first + r : (first + r) * p.inputs + c);
      float g[9], t[4][3];
      for (int j = 0; j < 9; ++j) g[j] = from[p.turned ? 8 - j : j];
      for (int j = 0; j < 3; ++j) {
        const float outer = 0.5f * (g[j] + g[6 + j]), inner = 0.5f * g[3 + j];
        t[0][j] = g[j];
        t[1][j] = outer + inner;
        t[2][j] = outer - inner;
        t[3][j] = g[6 + j];
      }
      for (int i = 0; i < 4; ++i) {
        const float outer = 0.5f * (t[i][0] + t[i][2]), inner = 0.5f * t[i][1];
        const float row[4] = {t[i][0], outer + inner, outer - inner, t[i][2]};
        for (int j = 0; j < 4; ++j) p.u[((4 * i + j) * p.outputs + first) * p.inputs + c * rows + r] = row[j];
      }
    }
  }
}

void input_panel(const TileGrid& tiles, const Planes& input, int64_t panel, float* v, int64_t stride) {
  Segment s[kPanel];
  const int n = segments(tiles, panel, s);
  constexpr int kRow = 2 * kPanel;  // a segment writes whole vectors, the next one over their rest
  alignas(64) float d[4][4][kRow];  // row, column, lane
  for (int64_t c = 0; c < input.channels; ++c) {
    if (is_partial(s, n)) std::memset(d, 0, sizeof d);
    for (int g = 0; g < n; ++g) {
      const float* from =
          input.data + ((s[g].image * input.channels + c) * input.height + 2 * s[g].row) * input.width + 2 * s[g].column;
      for (int r = 0; r < 4; ++r, from += input.width) {
        for (int l = 0; l < s[g].tiles; l += kWidth) {
          Vector even, odd, next_even, next_odd;
          split_pairs(from + 2 * l, even, odd);
          split_pairs(from + 2 * l + 2, next_even, next_odd);
          float* to = d[r][0] + s[g].lane + l;
          store(to, even);
          store(to + kRow, odd);
          store(to + 2 * kRow, next_even);
          store(to + 3 * kRow, next_odd);
        }
      }
    }
    for (int h = 0; h < kPanel; h += kWidth) {
      Vector t[4][4];
      for (int j = 0; j < 4; ++j) {
        const Vector d0 = load(d[0][j] + h), d1 = load(d[1][j] + h), d2 = load(d[2][j] + h), d3 = load(d[3][j] + h);
        t[0][j] = d0 - d2;
        t[1][j] = d1 + d2;
        t[2][j] = d2 - d1;
        t[3][j] = d1 - d3;
      }
      float* to = v + c * kPanel + h;
      for (int r = 0; r < 4; ++r, to += 4 * stride) {
        store(to, t[r][0] - t[r][2]);
        store(to + stride, t[r][1] + t[r][2]);
        store(to + 2 * stride, t[r][2] - t[r][1]);
        store(to + 3 * stride, t[r][1] - t[r][3]);
      }
    }
  }
}

// A dY At of each tile; 0 in the lanes behind the last one.
void gradient_panel(const TileGrid& tiles, const Planes& grad, int64_t panel, float* m, int64_t stride) {
  Segment s[kPanel];
  const int n = segments(tiles, panel, s);
  alignas(64) float line[2][2 * kPanel] = {};
  for (int64_t k = 0; k < grad.channels; ++k) {
    for (int r = 0; r < 2; ++r) {
      for (int g = 0; g < n; ++g) {
        const float* from =
            grad.data + ((s[g].image * grad.channels + k) * grad.height + 2 * s[g].row + r) * grad.width + 2 * s[g].column;
        std::memcpy(line[r] + 2 * s[g].lane, from, 2 * s[g].tiles * sizeof(float));
      }
    }
    for (int h = 0; h < kPanel; h += kWidth) {
      Vector a, b, c, d;
      split_pairs(line[0] + 2 * h, a, b);
      split_pairs(line[1] + 2 * h, c, d);
      const Vector left[4] = {a, a + c, a - c, -c}, right[4] = {b, b + d, b - d, -d};
      float* to = m + k * kPanel + h;
      for (int r = 0; r < 4; ++r, to += 4 * stride) {
        store(to, left[r]);
        store(to + stride, left[r] + right[r]);
        store(to + 2 * stride, left[r] - right[r]);
        store(to + 3 * stride, -right[r]);
      }
    }
  }
}

void convolve(const WinogradParams& p, int64_t first_panel, int64_t panels, float* v, float* m) {
  const int64_t inputs = p.input.channels, in = inputs * kPanel, out = p.outputs * kPanel;  // floats of a panel
  for (int64_t n = 0; n < panels; ++n) input_panel(p.tiles, p.input, first_panel + n, v + n * in, panels * in);
  for (int i = 0; i < kProducts; ++i) {
    for (int64_t k = 0, rows = 0; k < p.outputs; k += rows) {
      rows = block_rows(p.outputs - k);
      const float* u = p.u + (i * p.outputs + k) * inputs;
      for (int64_t n = 0; n < panels; ++n) {
        const float* from = v + (i * panels + n) * in;
        float* to = m + (i * panels + n) * out + k * kPanel;
        if (rows == 4) product<4>(u, from, inputs, to);
        else if (rows == 8) product<8>(u, from, inputs, to);
        else product<kMostRows>(u, from, inputs, to);
      }
    }
  }
  for (int64_t n = 0; n < panels; ++n) output_panel(p, first_panel + n, m + n * out, panels * out);
}

void correlate(const float* m, const float* v, int64_t panels, int64_t outputs, int64_t inputs, int64_t first, float* sum) {
  const int64_t rows = outputs - first < 3 ? outputs - first : 3;
  m += first * kPanel;
  sum += first * inputs;
  for (int64_t c = 0; c < inputs; c += 4) {
    const float* from = v + c * kPanel;
    if (rows == 3) correlate_block<3>(m, from, panels, outputs, inputs, sum + c);
    else if (rows == 2) correlate_block<2>(m, from, panels, outputs, inputs, sum + c);
    else correlate_block<1>(m, from, panels, outputs, inputs, sum + c);
  }
}

// Gt S G of one output's sums [16][outputs][inputs] -> grad_weight [inputs][3][3].
void taps_of(const float* sums, int64_t outputs, int64_t inputs, int64_t output, float* grad_weight) {
  for (int64_t c = 0; c < inputs; ++c) {
    float s[4][4], t[3][4];
    for (int i = 0; i < kProducts; ++i) s[i / 4][i % 4] = sums[(i * outputs + output) * inputs + c];
    for (int j = 0; j < 4; ++j) {
      const float both = 0.5f * (s[1][j] + s[2][j]);
      t[0][j] = s[0][j] + both;
      t[1][j] = 0.5f * (s[1][j] - s[2][j]);
      t[2][j] = both + s[3][j];
    }
    for (int i = 0; i < 3; ++i) {
      const float both = 0.5f * (t[i][1] + t[i][2]);
      float* to = grad_weight + 9 * c + 3 * i;
      to[0] = t[i][0] + both;
      to[1] = 0.5f * (t[i][1] - t[i][2]);
      to[2] = both + t[i][3];
    }
  }
}

}  // namespace GCL_ISA
}  // namespace gcl
