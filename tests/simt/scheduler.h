// Runs a grid: one block at a time (several in mixed order), its threads as fibers, in a chosen order; releases barriers and
// warp operations when all who must be there are there, and says who is not when nobody can go on.
#pragma once

#include <algorithm>
#include <utility>
#include <vector>

#include "shared_memory.h"

namespace simt {

constexpr unsigned kBlocksAtOnce = 4;  // in mixed order

inline uint64_t draw() {  // splitmix64
  uint64_t z = schedule().seed += 0x9e3779b97f4a7c15ull;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
  return z ^ (z >> 31);
}

class Permutation {
 public:
  // Numbers 0 .. n-1 in the order of the schedule; each call of a random schedule gives another one.
  const std::vector<unsigned>& next(unsigned n) {
    numbers_.resize(n);
    for (unsigned i = 0; i < n; ++i) numbers_[i] = i;
    if (schedule().order == Order::reverse) std::reverse(numbers_.begin(), numbers_.end());
    if (schedule().shuffles()) {
      for (unsigned i = n; i > 1; --i) std::swap(numbers_[i - 1], numbers_[draw() % i]);
    }
    return numbers_;
  }

 private:
  std::vector<unsigned> numbers_;
};

// One block on the emulated processor: its threads, and its shared memory while another block has the processor.
class Resident {
 public:
  void begin(uint64_t n, const dim3& grid) {
    Block& b = block();
    linear_ = n;
    index_ = {static_cast<unsigned>(n % grid.x), static_cast<unsigned>(n / grid.x % grid.y),
              static_cast<unsigned>(n / grid.x / grid.y)};
    count_ = b.threads.x * b.threads.y * b.threads.z;
    finished_ = 0;
    while (threads_.size() < count_) threads_.push_back(std::make_unique<Thread>());
    const auto [shared, bytes] = static_shared();
    if (bytes > 0) std::memset(shared, schedule().poison(), bytes);
    b.dynamic.reset(b.dynamic_bytes > 0 ? new unsigned char[b.dynamic_bytes] : nullptr);  // no more: the sanitizer sees its end
    if (b.dynamic_bytes > 0) std::memset(b.dynamic.get(), schedule().poison(), b.dynamic_bytes);
    enter();
    hooks().block_begins();
    for (unsigned i = 0; i < count_; ++i) {
      Thread& t = *threads_[i];
      t.linear = i;
      t.block_phase = t.warp_phase = 0;
      t.index = {i % b.threads.x, i / b.threads.x % b.threads.y, i / b.threads.x / b.threads.y};
      t.state = State::ready;
      t.fiber.start(b.body, b.argument);
    }
  }

  bool finished() const { return finished_ == count_; }

  // Lets each thread that can go on do so once, in mixed order only about half of them.
  void round() {
    const bool mixed = schedule().order == Order::mixed;
    bool moved = false;
    for (const unsigned n : order_.next(count_)) {
      Thread& t = *threads_[n];
      if (t.state != State::ready) continue;
      moved = true;
      if (mixed && draw() % 2 == 0) continue;
      current() = &t;
      hooks().threads_run(true);
      t.fiber.resume();
      hooks().threads_run(false);
      current() = nullptr;
      if (t.fiber.finished()) {
        t.state = State::finished;
        ++finished_;
      } else if (t.state == State::at_warp_operation) {
        release_warp(t);
      }
    }
    if (!release_block() && !moved) fail("its threads wait for each other:" + who_waits());
  }

  void enter() const {
    block().linear = linear_;
    block().index = index_;
  }
  // Another block takes the processor, and gives it back.
  void put_aside() {
    const auto [shared, bytes] = static_shared();
    const auto* first = static_cast<const unsigned char*>(shared);
    kept_static_.assign(first, first + bytes);
    kept_dynamic_ = std::move(block().dynamic);
  }
  void take_up() {
    const auto [shared, bytes] = static_shared();
    if (bytes > 0) std::memcpy(shared, kept_static_.data(), bytes);
    block().dynamic = std::move(kept_dynamic_);
    enter();
  }

 private:
  // A block barrier opens when every thread of the block stands at it.
  bool release_block() {
    int sum = 0;
    for (unsigned n = 0; n < count_; ++n) {
      if (threads_[n]->state != State::at_block_barrier) return false;
      const auto &here = threads_[n]->where, &first = threads_[0]->where;
      const bool same = here.line() == first.line() && std::strcmp(here.file_name(), first.file_name()) == 0;
      if (!same) fail("its threads stand at different barriers:" + who_waits());
      sum += threads_[n]->value != 0;
    }
    for (unsigned n = 0; n < count_; ++n) {
      threads_[n]->block_sum = sum;
      ++threads_[n]->block_phase;
      threads_[n]->state = State::ready;
    }
    return true;
  }

  // A warp operation is done when every lane of its mask has come to the same operation with the same mask.
  void release_warp(const Thread& t) {
    const unsigned first = t.linear / kWarp * kWarp;
    for (unsigned lane = 0; lane < kWarp; ++lane) {
      if ((t.mask >> lane & 1) == 0) continue;
      if (first + lane >= count_) fail(waits_at(t) + ", which names a lane that the block does not have");
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

  std::string who_waits() const {
    std::string text;
    for (unsigned n = 0, begin = 0; n < count_; ++n) {
      if (n + 1 < count_ && waits_at(*threads_[n + 1]) == waits_at(*threads_[begin])) continue;
      const std::string range = "\n  threads " + std::to_string(begin) + " to " + std::to_string(n) + " ";
      if (text.size() < 2000) text += range + waits_at(*threads_[begin]);
      begin = n + 1;
    }
    return text;
  }

  std::vector<std::unique_ptr<Thread>> threads_;
  Permutation order_;
  unsigned count_ = 0, finished_ = 0, warp_operations_ = 0;
  uint64_t linear_ = 0;
  uint3 index_;
  std::vector<unsigned char> kept_static_;
  std::unique_ptr<unsigned char[]> kept_dynamic_;
};

class Runner {
 public:
  void run_grid(dim3 grid) {
    block().grid = grid;
    const uint64_t count = uint64_t{grid.x} * grid.y * grid.z;
    hooks().kernel_begins();
    const std::vector<unsigned> order = order_.next(static_cast<unsigned>(count));
    const size_t at_once = schedule().order == Order::mixed ? kBlocksAtOnce : 1;
    while (places_.size() < at_once) places_.push_back(std::make_unique<Resident>());
    std::vector<Resident*> running;
    for (size_t next = 0; next < order.size() || !running.empty();) {
      while (running.size() < at_once && next < order.size()) {  // a place is free
        running.push_back(free_place(running));
        running.back()->begin(order[next++], grid);
        running.back()->put_aside();
      }
      for (Resident* r : running) {
        r->take_up();
        do r->round();
        while (at_once == 1 && !r->finished());
        r->put_aside();
      }
      std::erase_if(running, [](const Resident* r) { return r->finished(); });
    }
  }

 private:
  Resident* free_place(const std::vector<Resident*>& running) {
    for (const auto& place : places_) {
      if (std::find(running.begin(), running.end(), place.get()) == running.end()) return place.get();
    }
    return nullptr;  // never: there are as many places as may run
  }

  std::vector<std::unique_ptr<Resident>> places_;
  Permutation order_;
};

inline dim3 extent(dim3 value) { return value; }
inline dim3 extent(int64_t value) { return dim3(static_cast<unsigned>(value)); }
inline dim3 extent(int value) { return dim3(static_cast<unsigned>(value)); }
inline dim3 extent(unsigned value) { return dim3(value); }

template <class... Parameters, class... Arguments>
void launch(const char* name, dim3 grid, dim3 threads, size_t bytes, void* stream, void (*kernel)(Parameters...),
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
  check_shared(reinterpret_cast<uintptr_t>(kernel), bytes);
  hooks().launches(stream);
  runner.run_grid(grid);
}

}  // namespace simt
