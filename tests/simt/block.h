// The block that runs and its threads, the order in which they run, and how the emulation says that something is wrong.
#pragma once

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <source_location>
#include <string>

#include "fiber.h"

struct uint3 {
  unsigned x = 0, y = 0, z = 0;
};

struct dim3 {
  unsigned x = 1, y = 1, z = 1;
  dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_) {}
};

namespace simt {

constexpr unsigned kWarp = 32;
constexpr unsigned kMaxThreads = 1024;

// mixed: several blocks at once, threads in random order, changed after every atomic (race.h cannot watch it).
enum class Order { forward, reverse, random, mixed };

struct Schedule {
  Order order = Order::forward;
  uint64_t seed = 0;
  bool shuffles() const { return order == Order::random || order == Order::mixed; }
  // What uninitialised memory holds: another pattern in each order, so that reading it changes results.
  unsigned char poison() const { return order == Order::forward ? 0xcb : order == Order::reverse ? 0x7f : 0xff; }
};

inline Schedule& schedule() {
  static Schedule value;
  return value;
}

enum class State { ready, at_block_barrier, at_warp_operation, finished };

struct Thread {
  Fiber fiber;
  uint3 index;
  unsigned linear = 0;
  State state = State::ready;
  const char* operation = "";  // what it waits at
  std::source_location where;
  unsigned mask = 0;        // lanes that take part
  uint64_t value = 0;       // given to the others
  uint64_t seen[kWarp] = {};  // what each lane gave
  int block_sum = 0;          // of a block barrier: how many threads gave a non-zero value
  unsigned block_phase = 0, warp_phase = 0;  // grow where a barrier or warp operation orders what is before and after it
};

struct Block {
  uint3 index;
  uint64_t linear = 0;
  dim3 threads, grid;
  const char* kernel = "";
  std::unique_ptr<unsigned char[]> dynamic;
  size_t dynamic_bytes = 0;
  void (*body)(void*) = nullptr;
  void* argument = nullptr;
};

inline Block& block() {
  static Block value;
  return value;
}

inline bool set_order(const std::string& name) {
  if (name == "forward") schedule().order = Order::forward;
  else if (name == "reverse") schedule().order = Order::reverse;
  else if (name == "random") schedule().order = Order::random;
  else if (name == "mixed") schedule().order = Order::mixed;
  else return false;
  return true;
}

inline Thread*& current() {
  static Thread* value = nullptr;
  return value;
}
inline Thread& here() { return *current(); }

// Told to a race detector (race.h) or to a record of the host's calls (host/cuda_runtime.h), where there is one.
struct Hooks {
  void (*launches)(void* stream) = [](void*) {};
  void (*kernel_begins)() = [] {};
  void (*block_begins)() = [] {};
  void (*threads_run)(bool) = [](bool) {};
  void (*atomic)(const volatile void*, size_t) = [](const volatile void*, size_t) {};
};

inline Hooks& hooks() {
  static Hooks value;
  return value;
}

[[noreturn]] inline void fail(const std::string& what) {
  const Block& b = block();
  std::fprintf(stderr, "simt: kernel %s, block (%u, %u, %u): %s\n", b.kernel, b.index.x, b.index.y, b.index.z, what.c_str());
  std::fflush(stderr);
  std::_Exit(3);
}

inline std::string at(const std::source_location& where) {
  return std::string(where.file_name()) + ":" + std::to_string(where.line());
}

}  // namespace simt
