// Small kernels, right ones and ones with a planted fault, to show what the emulation computes and what it finds.
#include "case_io.h"
#include "simt.h"

namespace {

constexpr int kThreads = 64;

// Sum of each block by halving in shared memory.
__global__ void block_sum(const int* x, int* sums) {
  __shared__ int part[kThreads];
  part[threadIdx.x] = x[blockIdx.x * blockDim.x + threadIdx.x];
  __syncthreads();
  for (unsigned half = kThreads / 2; half > 0; half /= 2) {
    if (threadIdx.x < half) part[threadIdx.x] += part[threadIdx.x + half];
    __syncthreads();
  }
  if (threadIdx.x == 0) sums[blockIdx.x] = part[0];
}

__global__ void missing_barrier(const int* x, int* out) {
  __shared__ int part[kThreads];
  part[threadIdx.x] = x[threadIdx.x];
  out[threadIdx.x] = part[kThreads - 1 - threadIdx.x];  // written by another thread
}

// The same through dynamic shared memory and a template.
template <class T>
__global__ void reversed(const T* x, T* out) {
  GCL_DYNAMIC_SHARED(T, part);
  part[threadIdx.x] = x[threadIdx.x];
  __syncthreads();
  out[threadIdx.x] = part[kThreads - 1 - threadIdx.x];
}

// The sum of all blocks without an atomic: the result is right in every order here, and wrong on a GPU.
__global__ void plain_sum(const int* x, int* out) { out[0] += x[blockIdx.x * blockDim.x + threadIdx.x]; }

// Lanes hand over through shared memory, ordered by the warp alone.
__global__ void neighbour(const int* x, int* out, bool ordered) {
  __shared__ int part[kThreads];
  part[threadIdx.x] = x[threadIdx.x];
  if (ordered) __syncwarp();
  out[threadIdx.x] = part[threadIdx.x ^ 1];
}

template <class T>
__global__ void unwritten_shared(T* out) {
  __shared__ T part[kThreads];
  if (threadIdx.x > 0) part[threadIdx.x] = T(1);
  __syncthreads();
  out[threadIdx.x] = part[threadIdx.x];
}

__global__ void one_too_far(const int* x, int* out) { out[threadIdx.x + 1] = x[threadIdx.x]; }

__global__ void one_too_far_shared(const int* x, int* out) {
  __shared__ int part[kThreads];
  part[threadIdx.x + 1] = x[threadIdx.x];
  __syncthreads();
  out[threadIdx.x] = part[threadIdx.x];
}

__global__ void divergent_barrier(int* out) {
  if (threadIdx.x < 32) __syncthreads();
  out[threadIdx.x] = 1;
}

__global__ void two_barriers(int* out) {
  if (threadIdx.x < 32) __syncthreads();
  else __syncthreads();
  out[threadIdx.x] = 1;
}

__global__ void lost_lane(int* out) {
  if (threadIdx.x == 5) return;
  out[threadIdx.x] = __shfl_sync(0xffffffffu, static_cast<int>(threadIdx.x), 0);
}

__global__ void warp_operations(const int* x, int* out) {
  const int value = x[threadIdx.x], lane = static_cast<int>(threadIdx.x % 32);
  int sum = value;
  for (int flip = 16; flip > 0; flip /= 2) sum += __shfl_xor_sync(0xffffffffu, sum, flip);
  int tail = value;  // of this lane and those above it
  for (int delta = 1; delta < 32; delta *= 2) {
    const int other = __shfl_down_sync(0xffffffffu, tail, delta);
    if (lane + delta < 32) tail += other;
  }
  int half = -1;
  if (lane < 16) half = __reduce_max_sync(0x0000ffffu, value);
  __syncwarp();
  int* row = out + 10 * threadIdx.x;
  row[0] = sum;
  row[1] = tail;
  row[2] = half;
  row[3] = static_cast<int>(__ballot_sync(0xffffffffu, value > 0));
  row[4] = __any_sync(0xffffffffu, value == 7);
  row[5] = __all_sync(0xffffffffu, value < 1000);
  row[6] = __shfl_sync(0xffffffffu, value, lane + 1, 8);
  row[7] = __shfl_up_sync(0xffffffffu, value, 2, 16);
  row[8] = __syncthreads_count(value > 0);
  row[9] = __reduce_add_sync(0xffffffffu, value);
}

__global__ void atomics(const int* x, int* small, unsigned long long* large) {
  const int value = x[blockIdx.x * blockDim.x + threadIdx.x];
  atomicAdd(small + 0, value);
  atomicMin(small + 1, value);
  atomicMax(small + 2, value);
  for (int seen = 0;;) {  // a sum by compare and swap; reading small[3] plainly would be a race
    const int old = atomicCAS(small + 3, seen, seen + value);
    if (old == seen) break;
    seen = old;
  }
  atomicMin(large + 0, static_cast<unsigned long long>(value) << 32);
  atomicAdd(large + 1, 1ull << 40);
}

// A count by two atomics: right as long as nobody comes between them.
__global__ void lost_update(int* out) {
  const int seen = atomicAdd(out, 0);
  atomicExch(out, seen + 1);
}

// The same by one, and each thread's number: 0, 1, 2, ... in the order in which they came.
__global__ void ticket(int* out) { out[1 + blockIdx.x * blockDim.x + threadIdx.x] = atomicAdd(out, 1); }

// 2 KiB of its own beside what the launch brings.
__global__ void declared_and_dynamic(int* out) {
  __shared__ int declared[512];
  GCL_DYNAMIC_SHARED(int, brought);
  declared[threadIdx.x] = brought[threadIdx.x] = static_cast<int>(threadIdx.x);
  __syncthreads();
  out[threadIdx.x] = declared[kThreads - 1 - threadIdx.x] + brought[threadIdx.x];
}

void bits(simt::Case& c) {
  const int32_t* x = c.input<int32_t>("x");
  const int64_t n = c.size("x", 0);
  int32_t* row = c.output<int32_t>("out", {n, 6});
  for (int64_t i = 0; i < n; ++i, row += 6) {
    row[0] = __popc(static_cast<unsigned>(x[i]));
    row[1] = __clz(x[i]);
    row[2] = __ffs(x[i]);
    row[3] = __ffsll(static_cast<long long>(x[i]) << 20);
    row[4] = __float_as_int(__int_as_float(x[i]));
    row[5] = static_cast<int32_t>(__brev(static_cast<unsigned>(x[i])));
  }
}

template <class Kernel>
void one_block(simt::Case& c, Kernel kernel, size_t bytes = 0) {
  GCL_LAUNCH(kernel, 1, kThreads, bytes, nullptr, c.input<int32_t>("x"), c.output<int32_t>("out", {kThreads}));
}

template <class Kernel>
void no_input(simt::Case& c, Kernel kernel) {
  GCL_LAUNCH(kernel, 1, kThreads, 0, nullptr, c.output<int32_t>("out", {kThreads}));
}

}  // namespace

int main(int argc, char** argv) {
  return simt::drive(
      argc, argv,
      {{"block_sum",
        [](simt::Case& c) {
          const int64_t blocks = c.size("x", 0) / kThreads;
          GCL_LAUNCH(block_sum, blocks, kThreads, 0, nullptr, c.input<int32_t>("x"), c.output<int32_t>("out", {blocks}));
        }},
       {"missing_barrier", [](simt::Case& c) { one_block(c, missing_barrier); }},
       {"reversed", [](simt::Case& c) { one_block(c, reversed<int>, kThreads * sizeof(int)); }},
       {"too_little_shared", [](simt::Case& c) { one_block(c, reversed<int>, kThreads * sizeof(int) - 4); }},
       {"no_shared", [](simt::Case& c) { one_block(c, reversed<int>); }},
       {"plain_sum",
        [](simt::Case& c) {
          int32_t* out = c.output<int32_t>("out", {1});
          *out = 0;
          GCL_LAUNCH(plain_sum, c.size("x", 0) / kThreads, kThreads, 0, nullptr, c.input<int32_t>("x"), out);
        }},
       {"neighbour",
        [](simt::Case& c) {
          int32_t* out = c.output<int32_t>("out", {kThreads});
          GCL_LAUNCH(neighbour, 1, kThreads, 0, nullptr, c.input<int32_t>("x"), out, c.integer("ordered") != 0);
        }},
       {"unwritten_shared", [](simt::Case& c) { no_input(c, unwritten_shared<int>); }},
       {"one_too_far", [](simt::Case& c) { one_block(c, one_too_far); }},
       {"one_too_far_shared", [](simt::Case& c) { one_block(c, one_too_far_shared); }},
       {"divergent_barrier", [](simt::Case& c) { no_input(c, divergent_barrier); }},
       {"two_barriers", [](simt::Case& c) { no_input(c, two_barriers); }},
       {"lost_lane", [](simt::Case& c) { no_input(c, lost_lane); }},
       {"warp_operations",
        [](simt::Case& c) {
          GCL_LAUNCH(warp_operations, 1, kThreads, 0, nullptr, c.input<int32_t>("x"), c.output<int32_t>("out", {kThreads, 10}));
        }},
       {"atomics",
        [](simt::Case& c) {
          int32_t* small = c.output<int32_t>("small", {4});
          uint64_t* large = c.output<uint64_t>("large", {2});
          std::copy_n(c.input<int32_t>("small0"), 4, small);
          std::copy_n(c.input<uint64_t>("large0"), 2, large);
          GCL_LAUNCH(atomics, c.size("x", 0) / kThreads, kThreads, 0, nullptr, c.input<int32_t>("x"), small,
                     reinterpret_cast<unsigned long long*>(large));
        }},
       {"lost_update",
        [](simt::Case& c) {
          int32_t* out = c.output<int32_t>("out", {1});
          *out = 0;
          GCL_LAUNCH(lost_update, 6, kThreads, 0, nullptr, out);
        }},
       {"ticket",
        [](simt::Case& c) {
          int32_t* out = c.output<int32_t>("out", {1 + 6 * kThreads});
          *out = 0;
          GCL_LAUNCH(ticket, 6, kThreads, 0, nullptr, out);
        }},
       {"declared_and_dynamic",
        [](simt::Case& c) {
          if (c.integer("allowed") > 0) GCL_ALLOW_SHARED(declared_and_dynamic, c.integer("allowed"));
          const size_t bytes = static_cast<size_t>(c.integer("bytes"));
          GCL_LAUNCH(declared_and_dynamic, 1, kThreads, bytes, nullptr, c.output<int32_t>("out", {kThreads}));
        }},
       {"bits", bits}});
}
