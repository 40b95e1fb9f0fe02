// Shared memory as CUDA gives it out: what a launch asks for, what a kernel declares, and how much it may have in all.
#pragma once

#include <elf.h>
#include <link.h>

#include <fstream>
#include <iterator>
#include <map>
#include <set>
#include <utility>
#include <vector>

#include "block.h"

namespace simt {

constexpr size_t kMaxSharedBytes = 227 * 1024;     // of a block on an H100 or H200, for kernels that were allowed it
constexpr size_t kUnaskedSharedBytes = 48 * 1024;  // for all others, static and dynamic together

inline void* dynamic_shared(size_t alignment) {
  void* memory = block().dynamic.get();
  if (memory == nullptr) fail("uses dynamic shared memory, but was launched with 0 bytes of it");
  if (reinterpret_cast<uintptr_t>(memory) % alignment != 0) fail("dynamic shared memory of an alignment that it does not have");
  return memory;
}

// What the dynamic loader knows of the program or library that this code is in.
struct Module {
  uintptr_t base = 0;
  std::string path;
  std::pair<void*, size_t> thread_local_storage{nullptr, 0};
};

inline Module find_module() {
  static thread_local unsigned char here;  // loaded libraries get their storage at the first use
  here = 1;
  Module found;
  dl_iterate_phdr(
      [](dl_phdr_info* info, size_t, void* out) {
        auto* m = static_cast<Module*>(out);
        for (int i = 0; i < info->dlpi_phnum; ++i) {
          const auto& part = info->dlpi_phdr[i];
          if (part.p_type != PT_TLS) continue;
          const auto* first = static_cast<const unsigned char*>(info->dlpi_tls_data);
          if (first == nullptr || &here < first || &here >= first + part.p_memsz) continue;
          m->base = info->dlpi_addr;
          m->path = info->dlpi_name[0] != 0 ? info->dlpi_name : "/proc/self/exe";
          m->thread_local_storage = {info->dlpi_tls_data, part.p_memsz};
        }
        return 0;
      },
      &found);
  if (found.path.empty()) fail("the emulation does not find its own shared variables");
  return found;
}

inline const Module& module() {
  static const Module value = find_module();
  return value;
}

// The thread-local variables of this program or library, all of them __shared__ but for one byte.
inline std::pair<void*, size_t> static_shared() { return module().thread_local_storage; }

// Bytes that each kernel declares __shared__, by its address: the names of its variables begin with its own.
class DeclaredShared {
 public:
  DeclaredShared() {
    std::ifstream file(module().path, std::ios::binary);
    const std::string image((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
    const auto* header = reinterpret_cast<const ElfW(Ehdr)*>(image.data());
    const auto* sections = reinterpret_cast<const ElfW(Shdr)*>(image.data() + header->e_shoff);
    for (int s = 0; s < header->e_shnum; ++s) {
      if (sections[s].sh_type == SHT_SYMTAB) read(image, sections[s], sections[sections[s].sh_link]);
    }
  }

  size_t of(uintptr_t kernel) const {
    std::map<uint64_t, uint64_t> variables;  // where -> bytes
    const auto [first, last] = functions_.equal_range(kernel - module().base);
    for (auto function = first; function != last; ++function) {
      const std::string begin = "_ZZ" + function->second.substr(2) + "E";
      for (auto v = variables_.lower_bound(begin); v != variables_.end() && v->first.starts_with(begin); ++v) {
        variables[v->second.first] = v->second.second;
      }
    }
    size_t bytes = 0;
    for (const auto& [where, size] : variables) bytes += size;
    return bytes;
  }

 private:
  void read(const std::string& image, const ElfW(Shdr) & symbols, const ElfW(Shdr) & names) {
    const auto* symbol = reinterpret_cast<const ElfW(Sym)*>(image.data() + symbols.sh_offset);
    for (size_t n = 0; n < symbols.sh_size / sizeof *symbol; ++n) {
      const char* name = image.data() + names.sh_offset + symbol[n].st_name;
      const int type = ELF64_ST_TYPE(symbol[n].st_info);
      if (type == STT_TLS) variables_[name] = {symbol[n].st_value, symbol[n].st_size};
      if (type == STT_FUNC && std::strncmp(name, "_Z", 2) == 0) functions_.emplace(symbol[n].st_value, name);
    }
  }

  std::multimap<uint64_t, std::string> functions_;
  std::map<std::string, std::pair<uint64_t, uint64_t>> variables_;
};

inline std::map<uintptr_t, size_t>& allowed_shared() {  // by kernel; CUDA keeps it until the program ends
  static std::map<uintptr_t, size_t> value;
  return value;
}

template <class Kernel>
int allow_shared(Kernel* kernel, size_t bytes) {
  allowed_shared()[reinterpret_cast<uintptr_t>(kernel)] = bytes;
  return 0;
}

// Fails where CUDA refuses the launch.
inline void check_shared(uintptr_t kernel, size_t dynamic) {
  static const DeclaredShared declared;
  const size_t fixed = declared.of(kernel), all = fixed + dynamic;
  const std::string needs = "launched with " + std::to_string(dynamic) + " bytes of dynamic shared memory beside " +
                            std::to_string(fixed) + " declared ones";
  if (all > kMaxSharedBytes) fail(needs + ", more than the " + std::to_string(kMaxSharedBytes) + " of a GPU");
  const auto allowed = allowed_shared().find(kernel);
  const size_t most = allowed == allowed_shared().end() ? 0 : allowed->second;
  if (all > kUnaskedSharedBytes && dynamic > most) {
    fail(needs + ", more than the " + std::to_string(kUnaskedSharedBytes) + " that need no GCL_ALLOW_SHARED; it allowed " +
         std::to_string(most));
  }
}

}  // namespace simt
