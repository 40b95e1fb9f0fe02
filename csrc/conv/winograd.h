// 3x3 convolution, stride 1, by Winograd's F(2x2, 3x3): a tile of 2x2 outputs from 16 products a channel instead of 36, and its
// gradients by the same transforms. Source: Lavin & Gray, "Fast Algorithms for Convolutional Neural Networks", CVPR 2016.
//
//   Y = At [ (G g Gt) * (Bt d B) ] A,   d a 4x4 piece of the input, g the 3x3 taps, * summed over the input's channels
//
// Tiles are taken in panels of 16, one a lane, in the order image, row, column. Arrays hold, for each of the 16 products:
//   v, m   [panel][channel][16 lanes]
//   u      [rows of outputs][input channel][row], rows as block_rows() cuts them
#pragma once

#include <cstdint>

#include "common/isa.h"

namespace gcl {

constexpr int kPanel = 16;     // tiles
constexpr int kProducts = 16;  // of a tile

struct TileGrid {
  int64_t batch, rows, columns;  // tiles of an image
};

// Planes [batch][channels][height][width]; what is read as 4x4 pieces has a margin around it and kSlack floats behind it.
struct Planes {
  const float* data;
  int64_t channels, height, width;
};
constexpr int64_t kSlack = 64;

struct WinogradParams {
  TileGrid tiles;
  Planes input;  // with its margin
  const float* u;
  const float* bias;  // or null
  float* output;      // [batch][outputs][2 * tiles.rows][2 * tiles.columns]
  int64_t outputs;
};

// Taps [outputs][inputs][3][3] to u; turned: the taps of the gradient to the input, from [inputs][outputs][3][3].
struct TapParams {
  const float* weight;
  int64_t outputs, inputs;
  bool turned;
  float* u;
};

#define GCL_DECLARE(isa)                                                                                                      \
  namespace isa {                                                                                                             \
  int64_t block_rows(int64_t left);                                                                                           \
  void transform_taps(const TapParams& p, int64_t first, int64_t rows);                                                       \
  void convolve(const WinogradParams& p, int64_t first_panel, int64_t panels, float* v, float* m);                            \
  void input_panel(const TileGrid& tiles, const Planes& input, int64_t panel, float* v, int64_t product_stride);              \
  void gradient_panel(const TileGrid& tiles, const Planes& grad, int64_t panel, float* m, int64_t product_stride);            \
  void correlate(const float* m, const float* v, int64_t panels, int64_t outputs, int64_t inputs, int64_t first, float* sum); \
  void taps_of(const float* sums, int64_t outputs, int64_t inputs, int64_t output, float* grad_weight);                       \
  }
GCL_EACH_ISA(GCL_DECLARE)
#undef GCL_DECLARE

}  // namespace gcl
