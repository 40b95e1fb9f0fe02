// One emulated thread: a function on its own stack that can stop in the middle and go on later. AddressSanitizer is told of
// each change of stack. Linux (ucontext).
#pragma once

#include <sys/mman.h>
#include <ucontext.h>
#include <unistd.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>

#if defined(__SANITIZE_ADDRESS__)
#define SIMT_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define SIMT_ASAN 1
#endif
#endif
#if defined(SIMT_ASAN)
#include <sanitizer/common_interface_defs.h>
#endif

namespace simt {

class Fiber {
 public:
  using Entry = void (*)(void*);

  Fiber() {
    const size_t page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
    mapped_ = kStackBytes + page;
    void* memory = mmap(nullptr, mapped_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED || mprotect(memory, page, PROT_NONE) != 0) {  // a guard page below the stack
      std::perror("simt: no memory for the stack of a thread");
      std::_Exit(4);
    }
    map_ = memory;
    stack_ = static_cast<char*>(memory) + page;
  }
  ~Fiber() { munmap(map_, mapped_); }
  Fiber(const Fiber&) = delete;
  Fiber& operator=(const Fiber&) = delete;

  // Makes ready to run entry(argument) from its beginning; the stack is used again.
  void start(Entry entry, void* argument) {
    entry_ = entry;
    argument_ = argument;
    finished_ = false;
    getcontext(&context_);
    context_.uc_stack.ss_sp = stack_;
    context_.uc_stack.ss_size = kStackBytes;
    context_.uc_link = nullptr;
    const auto self = reinterpret_cast<uintptr_t>(this);  // makecontext passes ints
    makecontext(&context_, reinterpret_cast<void (*)()>(&Fiber::trampoline), 2, static_cast<unsigned>(self >> 32),
                static_cast<unsigned>(self & 0xffffffffu));
  }

  // Called outside: runs until the function yields or returns.
  void resume() {
#if defined(SIMT_ASAN)
    void* fake_stack = nullptr;
    __sanitizer_start_switch_fiber(&fake_stack, stack_, kStackBytes);
#endif
    swapcontext(&caller_, &context_);
#if defined(SIMT_ASAN)
    __sanitizer_finish_switch_fiber(fake_stack, nullptr, nullptr);
#endif
  }

  // Called inside: back to whoever resumed.
  void yield() {
#if defined(SIMT_ASAN)
    void* fake_stack = nullptr;
    __sanitizer_start_switch_fiber(&fake_stack, caller_stack_, caller_bytes_);
#endif
    swapcontext(&context_, &caller_);
#if defined(SIMT_ASAN)
    __sanitizer_finish_switch_fiber(fake_stack, &caller_stack_, &caller_bytes_);
#endif
  }

  bool finished() const { return finished_; }
  bool owns(uintptr_t address) const { return address - reinterpret_cast<uintptr_t>(stack_) < kStackBytes; }

 private:
  static constexpr size_t kStackBytes = 256 * 1024;

  static void trampoline(unsigned high, unsigned low) {
    auto* self = reinterpret_cast<Fiber*>((static_cast<uintptr_t>(high) << 32) | low);
#if defined(SIMT_ASAN)
    __sanitizer_finish_switch_fiber(nullptr, &self->caller_stack_, &self->caller_bytes_);
#endif
    self->entry_(self->argument_);
    self->finished_ = true;
#if defined(SIMT_ASAN)
    __sanitizer_start_switch_fiber(nullptr, self->caller_stack_, self->caller_bytes_);
#endif
    setcontext(&self->caller_);
  }

  void* map_ = nullptr;
  size_t mapped_ = 0;
  char* stack_ = nullptr;
  ucontext_t context_{}, caller_{};
  Entry entry_ = nullptr;
  void* argument_ = nullptr;
  bool finished_ = true;
  const void* caller_stack_ = nullptr;
  size_t caller_bytes_ = 0;
};

}  // namespace simt
