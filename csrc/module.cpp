// Python module gcl_fast._C: loading it registers the ops; it says what was built and touches no tensor.
#undef TORCH_TARGET_VERSION  // torch's copy of pybind11 refuses stable-ABI sources; this one uses nothing of torch
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <sstream>
#include <string>
#include <vector>

#include "common/isa.h"

namespace {

std::vector<std::string> architectures() {
  std::vector<std::string> names;
  std::istringstream list(GCL_ARCHITECTURES);  // "80-real,90-real,100"
  for (std::string name; std::getline(list, name, ',');) names.push_back(name);
  return names;
}

}  // namespace

PYBIND11_MODULE(_C, m) {
  m.doc() = "Native kernels of gcl_fast; the ops are in torch.ops.gcl_fast.";
  m.def("version", [] { return std::string(GCL_VERSION); }, "Version of the package this was built from.");
  m.def("torch_version", [] { return std::string(GCL_TORCH_VERSION); }, "Version of the torch headers this was built with.");
  m.def("cuda", [] { return GCL_WITH_CUDA != 0; }, "Whether the CUDA kernels are built in.");
  m.def("cuda_version", [] { return std::string(GCL_CUDA_VERSION); }, "Version of the CUDA compiler, empty without CUDA.");
  m.def(
      "isa", [] { return std::string(gcl::isa_name()); },
      "Instruction set of the CPU kernels that this processor runs; GCL_ISA=baseline|avx2|avx512 asks for a lesser one.");
  m.def("architectures", &architectures, "CUDA architectures built in, as CMake writes them.");
}
