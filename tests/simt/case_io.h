// What a test gives to a driver and gets back: named arrays in one file. Each is a line "name type d0 d1 ...", its bytes, and
// a line end; types are NumPy's short names (f4, f8, i4, i8, u1, u2, u4, u8). A driver is
//   int main(int argc, char** argv) { return simt::drive(argc, argv, {{"kernel", run_kernel}}); }
// with void run_kernel(simt::Case&), called as: PROGRAM KERNEL IN OUT forward|reverse|random|mixed SEED.
#pragma once

#include <fstream>
#include <functional>
#include <iostream>
#include <map>
#include <memory>
#include <sstream>
#include <string>
#include <type_traits>
#include <vector>

#include "scheduler.h"
#if defined(SIMT_RACE)
#include "race.h"
#endif

namespace simt {

template <class T>
constexpr const char* type_name() {
  if constexpr (std::is_same_v<T, float>) return "f4";
  else if constexpr (std::is_same_v<T, double>) return "f8";
  else if constexpr (std::is_same_v<T, int32_t>) return "i4";
  else if constexpr (std::is_same_v<T, int64_t>) return "i8";
  else if constexpr (std::is_same_v<T, uint8_t>) return "u1";
  else if constexpr (std::is_same_v<T, uint16_t>) return "u2";
  else if constexpr (std::is_same_v<T, uint32_t>) return "u4";
  else if constexpr (std::is_same_v<T, uint64_t>) return "u8";
  else static_assert(!sizeof(T), "a type that the files do not have");
}

struct Array {
  std::string type;
  std::vector<int64_t> shape;
  size_t bytes = 0;
  std::unique_ptr<char[]> data;  // exactly as long as the array, so that the sanitizer sees its end

  Array(std::string type_, std::vector<int64_t> shape_) : type(std::move(type_)), shape(std::move(shape_)) {
    bytes = static_cast<size_t>(type.back() - '0');
    for (const int64_t d : shape) bytes *= static_cast<size_t>(d);
    data.reset(new char[bytes]);
  }
};

class Case {
 public:
  explicit Case(const char* path) {
    std::ifstream file(path, std::ios::binary);
    for (std::string line; std::getline(file, line);) {
      std::istringstream words(line);
      std::string name, type;
      words >> name >> type;
      std::vector<int64_t> shape;
      for (int64_t d; words >> d;) shape.push_back(d);
      Array array(type, shape);
      file.read(array.data.get(), static_cast<std::streamsize>(array.bytes));
      if (!file || file.get() != '\n') stop(std::string(path) + ": array " + name + " is cut off");
      inputs_.emplace(name, std::move(array));
    }
  }

  const std::string& type(const std::string& name) const { return find(name).type; }
  int64_t size(const std::string& name, size_t dimension) const { return find(name).shape.at(dimension); }

  template <class T>
  const T* input(const std::string& name) const {
    const Array& array = find(name);
    if (array.type != type_name<T>()) stop(name + " is " + array.type + ", wanted " + type_name<T>());
    return reinterpret_cast<const T*>(array.data.get());
  }
  int64_t integer(const std::string& name) const { return *input<int64_t>(name); }

  // Memory for a result: filled with the schedule's pattern, because a kernel may not trust in anything else.
  template <class T>
  T* output(const std::string& name, std::vector<int64_t> shape) {
    Array array(type_name<T>(), std::move(shape));
    std::fill_n(array.data.get(), array.bytes, static_cast<char>(schedule().poison()));
    outputs_.emplace_back(name, std::move(array));
    return reinterpret_cast<T*>(outputs_.back().second.data.get());
  }
  // The same, not handed back.
  template <class T>
  T* workspace(std::vector<int64_t> shape) {
    return output<T>("", std::move(shape));
  }

  void write(const char* path) const {
    std::ofstream file(path, std::ios::binary);
    for (const auto& [name, array] : outputs_) {
      if (name.empty()) continue;
      file << name << ' ' << array.type;
      for (const int64_t d : array.shape) file << ' ' << d;
      file << '\n';
      file.write(array.data.get(), static_cast<std::streamsize>(array.bytes)) << '\n';
    }
    if (!file.flush()) stop(std::string("cannot write ") + path);
  }

  [[noreturn]] static void stop(const std::string& what) {
    std::cerr << "simt: " << what << std::endl;
    std::_Exit(2);
  }

 private:
  const Array& find(const std::string& name) const {
    const auto input = inputs_.find(name);
    if (input == inputs_.end()) stop("the case has no array " + name);
    return input->second;
  }

  std::map<std::string, Array> inputs_;
  std::vector<std::pair<std::string, Array>> outputs_;
};

// Calls f(T{}) with the type of a named array of reals, or of indices.
template <class F>
void with_real(const Case& c, const char* name, F&& f) {
  c.type(name) == "f8" ? f(double{}) : f(float{});
}
template <class F>
void with_index(const Case& c, const char* name, F&& f) {
  c.type(name) == "i8" ? f(int64_t{}) : f(int32_t{});
}

inline int drive(int argc, char** argv, const std::map<std::string, std::function<void(Case&)>>& kernels) {
  if (argc != 6) Case::stop("usage: PROGRAM KERNEL IN OUT forward|reverse|random|mixed SEED");
  if (!set_order(argv[4])) Case::stop(std::string("no order ") + argv[4]);
  schedule().seed = std::stoull(argv[5]);
  const auto kernel = kernels.find(argv[1]);
  if (kernel == kernels.end()) Case::stop(std::string("no kernel ") + argv[1]);
  Case input(argv[2]);
  kernel->second(input);
  input.write(argv[3]);
  return 0;
}

}  // namespace simt
