// CPU backend of conv3x3, its gradient to the input and its gradient to the taps: float32, even height and width, channels in
// fours. Sums are cut by the sizes alone, so no result depends on the number of threads.
#include <cstring>
#include <optional>
#include <vector>

#include "common/parallel.h"
#include "common/tensor.h"
#include "conv/winograd.h"

namespace gcl {
namespace {

enum Padding : int64_t { kZeros, kReflect, kReplicate };

constexpr int64_t kCacheFloats = int64_t{1} << 16;   // of a thread's panels
constexpr int64_t kSharedFloats = int64_t{1} << 20;  // of the panels that all threads correlate

int64_t clamp(int64_t x, int64_t low, int64_t high) { return x < low ? low : x < high ? x : high; }
int64_t divide_up(int64_t a, int64_t b) { return (a + b - 1) / b; }

// Which of `size` rows a margin's row copies: `at` is -1 or size.
int64_t mirrored(int64_t at, int64_t size, int64_t padding) {
  if (padding == kReflect) return at < 0 ? 1 : size - 2;
  return at < 0 ? 0 : size - 1;
}

void pad_plane(const float* from, int64_t height, int64_t width, int64_t margin, int64_t padding, float* to) {
  const int64_t wide = width + 2 * margin;
  for (int64_t r = -margin; r < height + margin; ++r, to += wide) {
    const bool outside = r < 0 || r >= height;
    if (outside && padding == kZeros) {
      std::memset(to, 0, wide * sizeof(float));
      continue;
    }
    const float* row = from + (outside ? mirrored(r, height, padding) : r) * width;
    std::memcpy(to + margin, row, width * sizeof(float));
    for (int64_t k = 0; k < margin; ++k) {
      to[k] = padding == kZeros ? 0.0f : row[mirrored(-1, width, padding)];
      to[wide - 1 - k] = padding == kZeros ? 0.0f : row[mirrored(width, width, padding)];
    }
  }
}

// The gradient of a padded plane (margin 1) to the plane.
void fold_plane(const float* from, int64_t height, int64_t width, int64_t padding, float* to) {
  const int64_t wide = width + 2, left = mirrored(-1, width, padding), right = mirrored(width, width, padding);
  const auto add_margins = [&](const float* row, float* sum) {
    sum[left] += row[0];
    sum[right] += row[wide - 1];
  };
  for (int64_t r = 0; r < height; ++r) {
    const float* row = from + (r + 1) * wide;
    std::memcpy(to + r * width, row + 1, width * sizeof(float));
    add_margins(row, to + r * width);
  }
  for (const int64_t r : {int64_t{-1}, height}) {
    const float* row = from + (r + 1) * wide;
    float* sum = to + mirrored(r, height, padding) * width;
    for (int64_t c = 0; c < width; ++c) sum[c] += row[c + 1];
    add_margins(row, sum);
  }
}

void check(const char* op, const char* name, const Tensor& image, int64_t padding) {
  STD_TORCH_CHECK(is_float(image) && image.dim() == 4, op, ": ", name, " must be float32 [B, C, H, W]");
  STD_TORCH_CHECK(image.size(1) % 4 == 0 && image.size(2) % 2 == 0 && image.size(3) % 2 == 0, op, ": ", name,
                  " must have channels in fours, and even height and width");
  STD_TORCH_CHECK(padding >= kZeros && padding <= kReplicate, op, ": padding must be 0, 1 or 2");
}

// image with its margin; kSlack floats behind it
Tensor padded(const Tensor& image, int64_t margin, int64_t padding) {
  const int64_t planes = image.size(0) * image.size(1), height = image.size(2), width = image.size(3);
  const int64_t size = (height + 2 * margin) * (width + 2 * margin);
  Tensor out = torch::stable::new_empty(image, {planes * size + kSlack});
  const float* from = image.const_data_ptr<float>();
  float* to = out.mutable_data_ptr<float>();
  in_parallel(planes, [&](int64_t n) { pad_plane(from + n * height * width, height, width, margin, padding, to + n * size); });
  std::memset(to + planes * size, 0, kSlack * sizeof(float));
  return out;
}

Planes planes_of(const Tensor& data, int64_t channels, int64_t height, int64_t width) {
  return {data.const_data_ptr<float>(), channels, height, width};
}

// image [B, C, H, W] * taps -> [B, outputs, H + 2 margin - 2, W + 2 margin - 2]
Tensor convolve(const Tensor& image, const Tensor& weight, const float* bias, int64_t outputs, bool turned, int64_t margin,
                int64_t padding) {
  const int64_t batch = image.size(0), inputs = image.size(1);
  const int64_t height = image.size(2) + 2 * margin, width = image.size(3) + 2 * margin;
  Tensor output = torch::stable::new_empty(image, {batch, outputs, height - 2, width - 2});
  if (output.numel() == 0) return output;
  const Tensor input = padded(image, margin, padding);
  Tensor u = torch::stable::new_empty(image, {kProducts, outputs, inputs});
  const TapParams taps{weight.const_data_ptr<float>(), outputs, inputs, turned, u.mutable_data_ptr<float>()};
  std::vector<int64_t> blocks{0};
  while (blocks.back() < outputs) blocks.push_back(blocks.back() + GCL_PICK(block_rows)(outputs - blocks.back()));
  in_parallel(static_cast<int64_t>(blocks.size()) - 1,
              [&](int64_t n) { GCL_PICK(transform_taps)(taps, blocks[n], blocks[n + 1] - blocks[n]); });

  const TileGrid tiles{batch, (height - 2) / 2, (width - 2) / 2};
  const WinogradParams p{tiles, planes_of(input, inputs, height, width), taps.u, bias, output.mutable_data_ptr<float>(), outputs};
  const int64_t panels = divide_up(tiles.batch * tiles.rows * tiles.columns, kPanel);
  const int64_t floats = kProducts * kPanel * (inputs + outputs);  // of one panel
  const int64_t at_once = clamp(kCacheFloats / floats, 2, 8), chunks = divide_up(panels, at_once);
  const int64_t workers = clamp(torch::stable::get_num_threads(), 1, chunks);
  Tensor scratch = torch::stable::new_empty(image, {workers, at_once * floats});
  float* own = scratch.mutable_data_ptr<float>();
  in_parallel(workers, [&](int64_t w) {
    float* v = own + w * at_once * floats;
    float* m = v + at_once * kProducts * kPanel * inputs;
    for (int64_t n = w; n < chunks; n += workers) {
      const int64_t first = n * at_once, count = panels - first < at_once ? panels - first : at_once;
      GCL_PICK(convolve)(p, first, count, v, m);
    }
  });
  return output;
}

Tensor conv3x3_cpu(Tensor x, Tensor weight, std::optional<Tensor> bias, int64_t padding) {
  check("conv3x3", "x", x, padding);
  check_shape("conv3x3", "weight", weight, {kAnySize, x.size(1), 3, 3});
  STD_TORCH_CHECK(is_float(weight) && weight.size(0) % 4 == 0, "conv3x3: weight must be float32, its outputs in fours");
  const bool biased = bias.has_value();
  if (biased) {
    check_shape("conv3x3", "bias", *bias, {weight.size(0)});
    STD_TORCH_CHECK(is_float(*bias), "conv3x3: bias must be float32");
    bias = torch::stable::contiguous(*bias);
  }
  const Tensor image = torch::stable::contiguous(x), taps = torch::stable::contiguous(weight);
  return convolve(image, taps, biased ? bias->const_data_ptr<float>() : nullptr, taps.size(0), false, 1, padding);
}

Tensor conv3x3_input_cpu(Tensor grad, Tensor weight, int64_t padding) {
  check("conv3x3_input", "grad", grad, padding);
  check_shape("conv3x3_input", "weight", weight, {grad.size(1), kAnySize, 3, 3});
  STD_TORCH_CHECK(is_float(weight) && weight.size(1) % 4 == 0, "conv3x3_input: weight must be float32, its inputs in fours");
  const Tensor image = torch::stable::contiguous(grad), taps = torch::stable::contiguous(weight);
  const int64_t inputs = taps.size(1), height = grad.size(2), width = grad.size(3);
  if (padding == kZeros) return convolve(image, taps, nullptr, inputs, true, 1, kZeros);
  const Tensor wide = convolve(image, taps, nullptr, inputs, true, 2, kZeros);
  Tensor out = torch::stable::new_empty(image, {grad.size(0), inputs, height, width});
  const float* from = wide.const_data_ptr<float>();
  float* to = out.mutable_data_ptr<float>();
  const int64_t planes = out.numel() == 0 ? 0 : grad.size(0) * inputs;
  in_parallel(planes, [&](int64_t n) {
    fold_plane(from + n * (height + 2) * (width + 2), height, width, padding, to + n * height * width);
  });
  return out;
}

Tensor conv3x3_weight_cpu(Tensor x, Tensor grad, int64_t padding) {
  check("conv3x3_weight", "x", x, padding);
  check("conv3x3_weight", "grad", grad, padding);
  check_shape("conv3x3_weight", "grad", grad, {x.size(0), kAnySize, x.size(2), x.size(3)});
  const int64_t inputs = x.size(1), outputs = grad.size(1), height = x.size(2), width = x.size(3);
  const Tensor image = torch::stable::contiguous(x), change = torch::stable::contiguous(grad);
  Tensor out = torch::stable::new_empty(image, {outputs, inputs, 3, 3});
  Tensor sums = torch::stable::new_zeros(image, {kProducts, outputs, inputs});
  float* sum = sums.mutable_data_ptr<float>();
  if (image.numel() > 0 && change.numel() > 0) {
    const Tensor margined = padded(image, 1, padding);
    const TileGrid tiles{x.size(0), height / 2, width / 2};
    const Planes input = planes_of(margined, inputs, height + 2, width + 2), from = planes_of(change, outputs, height, width);
    const int64_t panels = divide_up(tiles.batch * tiles.rows * tiles.columns, kPanel);
    const int64_t floats = kProducts * kPanel * (inputs + outputs);
    const int64_t at_once = clamp(kSharedFloats / floats, 4, panels < 4 ? 4 : panels);
    Tensor space = torch::stable::new_empty(image, {at_once * floats});
    float* v = space.mutable_data_ptr<float>();
    float* m = v + at_once * kProducts * kPanel * inputs;
    for (int64_t first = 0; first < panels; first += at_once) {
      const int64_t count = panels - first < at_once ? panels - first : at_once;
      const int64_t in = count * kPanel * inputs, change_floats = count * kPanel * outputs;  // of one product
      in_parallel(count, [&](int64_t n) {
        GCL_PICK(input_panel)(tiles, input, first + n, v + n * kPanel * inputs, in);
        GCL_PICK(gradient_panel)(tiles, from, first + n, m + n * kPanel * outputs, change_floats);
      });
      const int64_t blocks = divide_up(outputs, 3);
      in_parallel(kProducts * blocks, [&](int64_t n) {
        const int64_t i = n / blocks, k = n % blocks * 3;
        GCL_PICK(correlate)(m + i * change_floats, v + i * in, count, outputs, inputs, k, sum + i * outputs * inputs);
      });
    }
  }
  float* to = out.mutable_data_ptr<float>();
  in_parallel(outputs, [&](int64_t k) { GCL_PICK(taps_of)(sum, outputs, inputs, k, to + 9 * k * inputs); });
  return out;
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(gcl_fast, CPU, m) {
  m.impl("conv3x3", TORCH_BOX(&conv3x3_cpu));
  m.impl("conv3x3_input", TORCH_BOX(&conv3x3_input_cpu));
  m.impl("conv3x3_weight", TORCH_BOX(&conv3x3_weight_cpu));
}

}  // namespace gcl
