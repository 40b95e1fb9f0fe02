// Runs a grid: one block at a time, its threads as fibers, in a chosen order; releases barriers and warp operations when all
// who must be there are there, and says who is not when nobody can go on.
#pragma once

#include <link.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <source_location>
#include <string>
#include <utility>
#include <vector>

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
constexpr size_t kMaxSharedBytes = 227 * 1024;  // of a block on an H100 or H200

enum class Order { forward, reverse, random };

struct Schedule {
  Order order = Order::forward;
  uint64_t seed = 0;
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

inline Thread*& current() {
  static Thread* value = nullptr;
  return value;
}
inline Thread& here() { return *current(); }

// Told to a race detector, where there is one (race.h).
struct Hooks {
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

inline void* dynamic_shared(size_t alignment) {
  void* memory = block().dynamic.get();
  if (memory == nullptr) fail("uses dynamic shared memory, but was launched with 0 bytes of it");
  if (reinterpret_cast<uintptr_t>(memory) % alignment != 0) fail("dynamic shared memory of an alignment that it does not have");
  return memory;
}

// The thread-local variables of this program, all of them __shared__.
inline std::pair<void*, size_t> static_shared() {
  std::pair<void*, size_t> found{nullptr, 0};
  dl_iterate_phdr(
      [](dl_phdr_info* info, size_t, void* out) {
        for (int i = 0; i < info->dlpi_phnum; ++i) {
          if (info->dlpi_phdr[i].p_type != PT_TLS) continue;
          *static_cast<std::pair<void*, size_t>*>(out) = {info->dlpi_tls_data, info->dlpi_phdr[i].p_memsz};
        }
        return 1;  // only the first object, the program itself
      },
      &found);
  return found;
}

class Permutation {
 public:
  // Numbers 0 .. n-1 in the order of the schedule; each call of a random schedule gives another one.
  const std::vector<unsigned>& next(unsigned n) {
    numbers_.resize(n);
    for (unsigned i = 0; i < n; ++i) numbers_[i] = i;
    if (schedule().order == Order::reverse) std::reverse(numbers_.begin(), numbers_.end());
    if (schedule().order == Order::random) {
      for (unsigned i = n; i > 1; --i) std::swap(numbers_[i - 1], numbers_[draw() % i]);
    }
    return numbers_;
  }

 private:
  uint64_t draw() {  // splitmix64
    uint64_t z = schedule().seed += 0x9e3779b97f4a7c15ull;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
    return z ^ (z >> 31);
  }
  std::vector<unsigned> numbers_;
};

class Runner {
 public:
  void run_grid(dim3 grid) {
    Block& b = block();
    b.grid = grid;
    const uint64_t count = uint64_t{grid.x} * grid.y * grid.z;
    Permutation order;
    hooks().kernel_begins();
    for (const unsigned n : order.next(static_cast<unsigned>(count))) {
      b.linear = n;
      b.index = {n % grid.x, n / grid.x % grid.y, n / grid.x / grid.y};
      run_block();
    }
  }

 private:
  void run_block() {
    Block& b = block();
    const unsigned count = b.threads.x * b.threads.y * b.threads.z;
    while (threads_.size() < count) threads_.push_back(std::make_unique<Thread>());
    const auto [shared, bytes] = static_shared();
    if (bytes > 0) std::memset(shared, schedule().poison(), bytes);
    b.dynamic.reset(b.dynamic_bytes > 0 ? new unsigned char[b.dynamic_bytes] : nullptr);  // no more: the sanitizer sees its end
    if (b.dynamic_bytes > 0) std::memset(b.dynamic.get(), schedule().poison(), b.dynamic_bytes);
    hooks().block_begins();
    for (unsigned n = 0; n < count; ++n) {
      Thread& t = *threads_[n];
      t.linear = n;
      t.block_phase = t.warp_phase = 0;
      t.index = {n % b.threads.x, n / b.threads.x % b.threads.y, n / b.threads.x / b.threads.y};
      t.state = State::ready;
      t.fiber.start(b.body, b.argument);
    }
    unsigned finished = 0;
    Permutation order;
    while (finished < count) {
      bool moved = false;
      for (const unsigned n : order.next(count)) {
        Thread& t = *threads_[n];
        if (t.state != State::ready) continue;
        moved = true;
        current() = &t;
        hooks().threads_run(true);
        t.fiber.resume();
        hooks().threads_run(false);
        current() = nullptr;
        if (t.fiber.finished()) {
          t.state = State::finished;
          ++finished;
        } else if (t.state == State::at_warp_operation) {
          release_warp(t, count);
        }
      }
      if (!release_block(count) && !moved) fail("its threads wait for each other:" + who_waits(count));
    }
    b.dynamic.reset();
  }

  // A block barrier opens when every thread of the block stands at it.
  bool release_block(unsigned count) {
    int sum = 0;
    for (unsigned n = 0; n < count; ++n) {
      if (threads_[n]->state != State::at_block_barrier) return false;
      const auto &here = threads_[n]->where, &first = threads_[0]->where;
      const bool same = here.line() == first.line() && std::strcmp(here.file_name(), first.file_name()) == 0;
      if (!same) fail("its threads stand at different barriers:" + who_waits(count));
      sum += threads_[n]->value != 0;
    }
    for (unsigned n = 0; n < count; ++n) {
      threads_[n]->block_sum = sum;
      ++threads_[n]->block_phase;
      threads_[n]->state = State::ready;
    }
    return true;
  }

  // A warp operation is done when every lane of its mask has come to the same operation with the same mask.
  void release_warp(const Thread& t, unsigned count) {
    const unsigned first = t.linear / kWarp * kWarp;
    for (unsigned lane = 0; lane < kWarp; ++lane) {
      if ((t.mask >> lane & 1) == 0) continue;
      if (first + lane >= count) fail(waits_at(t) + ", which names a lane that the block does not have");
      const Thread& other = *threads_[first + lane];
      const bool same = other.mask == t.mask && std::strcmp(other.operation, t.operation) == 0;
      if (other.state != State::at_warp_operation || !same) return;
    }
    const unsigned mask = t.mask;
    for (unsigned lane = 0; lane < kWarp; ++lane) {
      if ((mask >> lane & 1) == 0) continue;
      for (unsigned k = 0; k < kWarp; ++k) {
        if (mask >> k & 1) threads_[first + lane]->seen[k] = threads_[first + k]->value;
      }
    }
    ++warp_operations_;
    for (unsigned lane = 0; lane < kWarp; ++lane) {
      if ((mask >> lane & 1) == 0) continue;
      threads_[first + lane]->state = State::ready;
      threads_[first + lane]->warp_phase = warp_operations_;
    }
  }

  static std::string waits_at(const Thread& t) {
    if (t.state == State::finished) return "have finished";
    std::string text = std::string("wait at ") + t.operation + " (" + at(t.where) + ")";
    char mask[32];
    std::snprintf(mask, sizeof mask, " with mask 0x%08x", t.mask);
    return t.state == State::at_warp_operation ? text + mask : text;
  }

  std::string who_waits(unsigned count) const {
    std::string text;
    for (unsigned n = 0, begin = 0; n < count; ++n) {
      if (n + 1 < count && waits_at(*threads_[n + 1]) == waits_at(*threads_[begin])) continue;
      const std::string range = "\n  threads " + std::to_string(begin) + " to " + std::to_string(n) + " ";
      if (text.size() < 2000) text += range + waits_at(*threads_[begin]);
      begin = n + 1;
    }
    return text;
  }

  std::vector<std::unique_ptr<Thread>> threads_;
  unsigned warp_operations_ = 0;
};

inline dim3 extent(dim3 value) { return value; }
inline dim3 extent(int64_t value) { return dim3(static_cast<unsigned>(value)); }
inline dim3 extent(int value) { return dim3(static_cast<unsigned>(value)); }
inline dim3 extent(unsigned value) { return dim3(value); }

template <class... Parameters, class... Arguments>
void launch(const char* name, dim3 grid, dim3 threads, size_t bytes, void* /*stream*/, void (*kernel)(Parameters...),
            const Arguments&... arguments) {
  static Runner runner;
  auto call = [&] { kernel(static_cast<Parameters>(arguments)...); };  // by value: each thread has its own copy
  Block& b = block();
  b.kernel = name;
  b.threads = threads;
  b.dynamic_bytes = bytes;
  b.body = [](void* argument) { (*static_cast<decltype(call)*>(argument))(); };
  b.argument = &call;
  b.index = {};
  const uint64_t count = uint64_t{threads.x} * threads.y * threads.z;
  if (count == 0 || count > kMaxThreads) fail("launched with " + std::to_string(count) + " threads a block, of 1 to 1024");
  if (uint64_t{grid.x} * grid.y * grid.z == 0) fail("launched with an empty grid");
  if (grid.x > 0x7fffffffu || grid.y > 65535 || grid.z > 65535) fail("launched with a grid beyond CUDA's limits");
  if (bytes > kMaxSharedBytes) fail("launched with " + std::to_string(bytes) + " bytes of shared memory, more than a GPU has");
  runner.run_grid(grid);
}

}  // namespace simt
