// A race detector for the emulated threads, in programs compiled with -fsanitize=thread but linked without its library: each
// access to memory comes here, and two accesses to one byte are a race if they are by different threads, one of them writes,
// not both are atomic, and nothing orders them. Ordered are: kernels; threads of a block, by a barrier in between; lanes of a
// warp, by a warp operation in between. Threads of different blocks never are, so a hand-over between blocks by a counter
// and a fence is reported too. A value that two threads write alike is reported. What it reports is real otherwise; of many
// readers it remembers four, so it may miss some.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <string>
#include <unordered_map>
#include <utility>

#include "scheduler.h"

namespace simt::race {

enum class Kind : uint8_t { none, read, write, atomic };

struct Access {
  Kind kind = Kind::none;
  uint64_t block = 0;
  unsigned thread = 0;
  unsigned block_phase = 0, warp_phase = 0;
};

struct Cell {
  Access write, atomic;
  std::array<Access, 4> reads;  // the latest of different threads
};

struct State {
  std::unordered_map<uintptr_t, Cell> global, shared;
  std::pair<uintptr_t, uintptr_t> static_shared, dynamic_shared;
};

inline bool watching = false;  // only while a thread runs: the emulation itself is instrumented as well
inline State* state = nullptr;

inline bool concurrent(const Access& before, const Access& now) {
  if (before.kind == Kind::none) return false;
  if (before.block != now.block) return true;
  if (before.thread == now.thread || before.block_phase != now.block_phase) return false;
  return before.thread / kWarp != now.thread / kWarp || before.warp_phase >= now.warp_phase;
}

inline std::string what(const Access& access) {
  const char* kind = access.kind == Kind::read ? "reads" : access.kind == Kind::write ? "writes" : "updates atomically";
  return "thread " + std::to_string(access.thread) + " of block " + std::to_string(access.block) + " " + kind;
}

inline bool within(uintptr_t address, const std::pair<uintptr_t, uintptr_t>& range) {
  return address >= range.first && address < range.second;
}

inline void check(const Access& before, const Access& now, const std::string& place) {
  if (concurrent(before, now)) fail("race: " + what(before) + " " + place + " and " + what(now) + " it");
}

inline void note_in(uintptr_t address, size_t bytes, Kind kind) {
  const Thread& t = here();
  const auto record = reinterpret_cast<uintptr_t>(&t);
  if (t.fiber.owns(address) || within(address, {record, record + sizeof t})) return;
  const Access now{kind, block().linear, t.linear, t.block_phase, t.warp_phase};
  const bool shared = within(address, state->static_shared) || within(address, state->dynamic_shared);
  const std::string place = shared ? "shared memory" : "global memory";
  for (uintptr_t byte = address; byte < address + bytes; ++byte) {
    Cell& cell = (shared ? state->shared : state->global)[byte];
    check(cell.write, now, place);
    if (kind != Kind::atomic) check(cell.atomic, now, place);
    if (kind != Kind::read) {
      for (const Access& read : cell.reads) check(read, now, place);
    }
    if (kind == Kind::write) cell.write = now;
    if (kind == Kind::atomic) cell.atomic = now;
    if (kind == Kind::read) {  // the latest first
      auto slot = std::find_if(cell.reads.begin(), cell.reads.end() - 1, [&](const Access& read) {
        return read.kind == Kind::none || (read.thread == now.thread && read.block == now.block);
      });
      std::rotate(cell.reads.begin(), slot, slot + 1);
      cell.reads.front() = now;
    }
  }
}

__attribute__((no_sanitize("thread"))) inline void note(const volatile void* pointer, size_t bytes, Kind kind) {
  if (!watching) return;
  watching = false;
  note_in(reinterpret_cast<uintptr_t>(pointer), bytes, kind);
  watching = true;
}

__attribute__((no_sanitize("thread"))) inline void watch(bool on) { watching = on; }

inline const bool installed = [] {
  state = new State;
  hooks().kernel_begins = [] { state->global.clear(); };
  hooks().block_begins = [] {
    const auto [begin, bytes] = static_shared();
    const auto first = reinterpret_cast<uintptr_t>(begin), dynamic = reinterpret_cast<uintptr_t>(block().dynamic.get());
    state->static_shared = {first, first + bytes};
    state->dynamic_shared = {dynamic, dynamic + block().dynamic_bytes};
    state->shared.clear();
  };
  hooks().threads_run = watch;
  hooks().atomic = [](const volatile void* pointer, size_t bytes) { note(pointer, bytes, Kind::atomic); };
  return true;
}();

}  // namespace simt::race

// What the compiler calls.
#define SIMT_ACCESS(bytes)                                                                                        \
  extern "C" void __tsan_read##bytes(void* p) { simt::race::note(p, bytes, simt::race::Kind::read); }             \
  extern "C" void __tsan_write##bytes(void* p) { simt::race::note(p, bytes, simt::race::Kind::write); }           \
  extern "C" void __tsan_unaligned_read##bytes(void* p) { simt::race::note(p, bytes, simt::race::Kind::read); }   \
  extern "C" void __tsan_unaligned_write##bytes(void* p) { simt::race::note(p, bytes, simt::race::Kind::write); } \
  extern "C" void __tsan_volatile_read##bytes(void* p) { simt::race::note(p, bytes, simt::race::Kind::read); }    \
  extern "C" void __tsan_volatile_write##bytes(void* p) { simt::race::note(p, bytes, simt::race::Kind::write); }
SIMT_ACCESS(1)
SIMT_ACCESS(2)
SIMT_ACCESS(4)
SIMT_ACCESS(8)
SIMT_ACCESS(16)
#undef SIMT_ACCESS
extern "C" void __tsan_read_range(void* p, size_t bytes) { simt::race::note(p, bytes, simt::race::Kind::read); }
extern "C" void __tsan_write_range(void* p, size_t bytes) { simt::race::note(p, bytes, simt::race::Kind::write); }
extern "C" void __tsan_init() {}
extern "C" void __tsan_func_entry(void*) {}
extern "C" void __tsan_func_exit() {}
extern "C" void __tsan_vptr_update(void**, void*) {}
extern "C" void __tsan_vptr_read(void**) {}
extern "C" char __tsan_atomic8_load(const volatile char* p, int) { return *p; }
