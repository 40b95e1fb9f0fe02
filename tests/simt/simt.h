// CUDA's execution model on the CPU, so that the __global__ source of the kernels runs where there is no GPU, under
// AddressSanitizer and UndefinedBehaviorSanitizer. Compile with -DGCL_SIMT, this folder and csrc/ on the include path.
//
// Blocks run one after the other, each thread of a block is a fiber that runs until it waits at a barrier or a warp
// operation. The order of threads (and blocks) is forward, reverse or random; a kernel without races gives the same bits in
// all of them. In mixed order several blocks run at once and a thread stops after every atomic too, so that others come
// between its steps: for what threads build together by atomics (union-find, minima, queues). Found on the way: accesses out of
// bounds (global memory: AddressSanitizer; __shared__ arrays: -fsanitize=bounds; dynamic shared memory: AddressSanitizer), a
// launch with more shared memory than was allowed (shared_memory.h), a barrier or warp operation that some of its threads do not
// reach, shared memory read before it is written (it starts as a pattern that differs by order), missing barriers (results differ
// by order). No thread is interrupted between barriers, so an update that should be atomic but is not shows only in the race
// detector (race.h), which finds missing barriers too. Not found: missing fences.
//
// Dynamic shared memory: GCL_DYNAMIC_SHARED(T, name) declares T* name. __activemask does not exist here: the fibers of a warp
// do not run in step.
#pragma once

#include "intrinsics.h"
#include "scheduler.h"

#include <cstring>

#define __global__
#define __device__
#define __host__
#define __constant__ static const
#define __forceinline__ inline
#define __launch_bounds__(...)
// Thread-local storage of the program holds these variables alone, so that they can be found and filled before each block.
#define __shared__ static thread_local
#define GCL_DYNAMIC_SHARED(T, name) T* const name = static_cast<T*>(::simt::dynamic_shared(alignof(T)))

#define threadIdx (::simt::here().index)
#define blockIdx (::simt::block().index)
#define blockDim (::simt::block().threads)
#define gridDim (::simt::block().grid)

using GclStream = void*;
#define GCL_LAUNCH(kernel, blocks, threads, bytes, stream, ...) \
  ::simt::launch(#kernel, ::simt::extent(blocks), ::simt::extent(threads), bytes, stream, kernel, __VA_ARGS__)
#define GCL_ALLOW_SHARED(kernel, bytes) ::simt::allow_shared(kernel, static_cast<size_t>(bytes))
#define GCL_FILL_BYTES(pointer, byte, count, stream) (::simt::hooks().launches(stream), std::memset(pointer, byte, count))
