// Hot loops of the CPU backend are compiled once for each instruction set and picked when the program runs.
//
// A source named <op>_isa.cpp is compiled once for each name in GCL_EACH_ISA, with GCL_ISA defined as that name; what it holds
// lives in namespace gcl::GCL_ISA, so that no copy meets another. A header declares its entry points for all of them:
//   #define GCL_DECLARE(isa) namespace isa { void sweep(const SweepParams& p); }
//   GCL_EACH_ISA(GCL_DECLARE)
// and the launch layer calls GCL_PICK(sweep)(p). No torch header is included there: an inline function of one, compiled for a
// newer processor, could become the copy that an older one runs. The same goes for the templates of the standard library.
#pragma once

#if defined(__x86_64__)
#define GCL_EACH_ISA(X) X(baseline) X(avx2) X(avx512)
#define GCL_PICK(function)                                      \
  (::gcl::isa() == ::gcl::Isa::avx512 ? ::gcl::avx512::function \
   : ::gcl::isa() == ::gcl::Isa::avx2 ? ::gcl::avx2::function   \
                                      : ::gcl::baseline::function)
#else
#define GCL_EACH_ISA(X) X(baseline)
#define GCL_PICK(function) (::gcl::baseline::function)
#endif

namespace gcl {

enum class Isa { baseline, avx2, avx512 };

// The best one of this processor, or the one that the environment variable GCL_ISA names if the processor has it.
Isa isa();
const char* isa_name();

}  // namespace gcl
