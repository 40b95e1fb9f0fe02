// Runs the CUDA kernels of reflect_pad, forward and backward, with the launches that the GPU gets.
#define GCL_MOST_IN_32_BITS 1000  // units of the padded map: some cases have more
#define GCL_MOST_BLOCKS 3
#include "case_io.h"
#include "reflect_pad/reflect_pad_kernels.cuh"

namespace {

// Maps of height x width from `from` [outer, rows, columns, inner]; S is the files' name for T. "shift" elements before the first
// one take a case off whole vectors.
template <class S, class T>
void run(simt::Case& c, bool backward) {
  const int64_t pad = c.integer("pad"), shift = c.integer("shift"), grown = backward ? -2 * pad : 2 * pad;
  const int64_t outer = c.integer("outer"), rows = c.integer("rows"), columns = c.integer("columns"), inner = c.integer("inner");
  S* const to = c.output<S>("to", {shift + outer * (rows + grown) * (columns + grown) * inner});
  gcl::ReflectPadParams<T> p{};
  p.from = reinterpret_cast<const T*>(c.input<S>("from") + shift);
  p.to = reinterpret_cast<T*>(to + shift);
  p.outer = outer, p.inner = inner, p.pad = pad;
  p.height = backward ? rows + grown : rows, p.width = backward ? columns + grown : columns;
  backward ? gcl::launch_reflect_pad_backward(p, GclStream{}) : gcl::launch_reflect_pad(p, GclStream{});
}

void by_type(simt::Case& c, bool backward) {
  if (c.type("from") == "f4") run<float, float>(c, backward);
  else if (c.type("from") == "f8") run<double, double>(c, backward);
  else if (c.integer("bfloat16") != 0) run<uint16_t, gcl::BFloat16>(c, backward);
  else run<uint16_t, gcl::Half>(c, backward);
}

}  // namespace

int main(int argc, char** argv) {
  return simt::drive(
      argc, argv, {{"forward", [](simt::Case& c) { by_type(c, false); }}, {"backward", [](simt::Case& c) { by_type(c, true); }}});
}
