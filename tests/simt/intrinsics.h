// Device functions that nvcc has built in: barriers, warp operations, atomics, bits. Only the types that CUDA has, so that a
// call which nvcc would refuse is refused here too.
#pragma once

#include <bit>
#include <concepts>
#include <cstdint>
#include <cstring>
#include <source_location>
#include <type_traits>

#include "scheduler.h"

namespace simt {

using Where = std::source_location;

template <class T, class... Allowed>
concept one_of = (std::same_as<T, Allowed> || ...);

// Gives `value` to the other threads of the operation, waits for them.
inline Thread& wait(State state, const char* operation, unsigned mask, uint64_t value, const Where& where) {
  Thread& t = here();
  t.state = state;
  t.operation = operation;
  t.mask = mask;
  t.value = value;
  t.where = where;
  t.fiber.yield();
  return t;
}

inline unsigned lane() { return here().linear % kWarp; }

inline Thread& warp(const char* operation, unsigned mask, uint64_t value, const Where& where) {
  if ((mask >> lane() & 1) == 0) fail(std::string(operation) + " at " + at(where) + ": the mask leaves out the calling thread");
  return wait(State::at_warp_operation, operation, mask, value, where);
}

template <class T>
uint64_t to_bits(T value) {
  static_assert(sizeof(T) == 4 || sizeof(T) == 8);
  uint64_t bits = 0;
  std::memcpy(&bits, &value, sizeof value);
  return bits;
}

template <class T>
T from_bits(uint64_t bits) {
  T value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

template <class T>
concept shuffled = one_of<T, int, unsigned, long, unsigned long, long long, unsigned long long, float, double>;

// Reads the value of lane `source`, own value where the source is outside of the segment.
template <shuffled T>
T shuffle(const char* operation, unsigned mask, T value, unsigned source, bool inside, const Where& where) {
  const Thread& t = warp(operation, mask, to_bits(value), where);
  if (!inside) source = lane();
  if ((mask >> source & 1) == 0) fail(std::string(operation) + " at " + at(where) + ": reads a lane outside of its mask");
  return from_bits<T>(t.seen[source]);
}

template <class T, class F>
T reduce(const char* operation, unsigned mask, T value, const Where& where, F&& f) {
  const Thread& t = warp(operation, mask, to_bits(value), where);
  T result = value;
  for (unsigned k = 0; k < kWarp; ++k) {
    if ((mask >> k & 1) && k != lane()) result = f(result, from_bits<T>(t.seen[k]));
  }
  return result;
}

template <class T, class F>
T atomic(T* address, F&& f) {
  hooks().atomic(address, sizeof(T));
  hooks().threads_run(false);  // the two accesses are one
  const T old = *address;
  *address = f(old);
  hooks().threads_run(true);
  if (schedule().order == Order::mixed) here().fiber.yield();  // others come between
  return old;
}

template <class T>
using plain = std::type_identity_t<T>;  // no deduction from this argument

}  // namespace simt

// Barriers of the block.
inline void __syncthreads(simt::Where where = simt::Where::current()) {
  simt::wait(simt::State::at_block_barrier, "__syncthreads", 0, 0, where);
}
inline int __syncthreads_count(int predicate, simt::Where where = simt::Where::current()) {
  return simt::wait(simt::State::at_block_barrier, "__syncthreads_count", 0, predicate != 0, where).block_sum;
}
inline int __syncthreads_or(int predicate, simt::Where where = simt::Where::current()) {
  return simt::wait(simt::State::at_block_barrier, "__syncthreads_or", 0, predicate != 0, where).block_sum != 0;
}
inline int __syncthreads_and(int predicate, simt::Where where = simt::Where::current()) {
  return simt::wait(simt::State::at_block_barrier, "__syncthreads_and", 0, predicate == 0, where).block_sum == 0;
}
inline void __threadfence() {}
inline void __threadfence_block() {}

// Warp operations.
inline void __syncwarp(unsigned mask = 0xffffffffu, simt::Where where = simt::Where::current()) {
  simt::warp("__syncwarp", mask, 0, where);
}
inline unsigned __ballot_sync(unsigned mask, int predicate, simt::Where where = simt::Where::current()) {
  const unsigned own = predicate != 0 ? 1u << simt::lane() : 0u;
  return simt::reduce("__ballot_sync", mask, own, where, [](unsigned a, unsigned b) { return a | b; });
}
inline int __any_sync(unsigned mask, int predicate, simt::Where where = simt::Where::current()) {
  return simt::reduce("__any_sync", mask, int{predicate != 0}, where, [](int a, int b) { return a | b; });
}
inline int __all_sync(unsigned mask, int predicate, simt::Where where = simt::Where::current()) {
  return simt::reduce("__all_sync", mask, int{predicate != 0}, where, [](int a, int b) { return a & b; });
}

template <simt::shuffled T>
T __shfl_sync(unsigned mask, T value, int source, int width = 32, simt::Where where = simt::Where::current()) {
  const unsigned segment = simt::lane() / width * width;
  return simt::shuffle("__shfl_sync", mask, value, segment + static_cast<unsigned>(source) % width, true, where);
}
template <simt::shuffled T>
T __shfl_xor_sync(unsigned mask, T value, int flip, int width = 32, simt::Where where = simt::Where::current()) {
  const unsigned source = simt::lane() ^ static_cast<unsigned>(flip), end = (simt::lane() / width + 1) * width;
  return simt::shuffle("__shfl_xor_sync", mask, value, source, source < end, where);
}
template <simt::shuffled T>
T __shfl_down_sync(unsigned mask, T value, unsigned delta, int width = 32, simt::Where where = simt::Where::current()) {
  const unsigned source = simt::lane() + delta, end = (simt::lane() / width + 1) * width;
  return simt::shuffle("__shfl_down_sync", mask, value, source, source < end, where);
}
template <simt::shuffled T>
T __shfl_up_sync(unsigned mask, T value, unsigned delta, int width = 32, simt::Where where = simt::Where::current()) {
  const unsigned segment = simt::lane() / width * width;
  const bool inside = simt::lane() >= segment + delta;
  return simt::shuffle("__shfl_up_sync", mask, value, simt::lane() - delta, inside, where);
}

template <simt::one_of<int, unsigned> T>
T __reduce_add_sync(unsigned mask, T value, simt::Where where = simt::Where::current()) {
  const auto add = [](unsigned a, unsigned b) { return a + b; };  // wraps
  return static_cast<T>(simt::reduce("__reduce_add_sync", mask, static_cast<unsigned>(value), where, add));
}
template <simt::one_of<int, unsigned> T>
T __reduce_min_sync(unsigned mask, T value, simt::Where where = simt::Where::current()) {
  return simt::reduce("__reduce_min_sync", mask, value, where, [](T a, T b) { return b < a ? b : a; });
}
template <simt::one_of<int, unsigned> T>
T __reduce_max_sync(unsigned mask, T value, simt::Where where = simt::Where::current()) {
  return simt::reduce("__reduce_max_sync", mask, value, where, [](T a, T b) { return a < b ? b : a; });
}
inline unsigned __reduce_and_sync(unsigned mask, unsigned value, simt::Where where = simt::Where::current()) {
  return simt::reduce("__reduce_and_sync", mask, value, where, [](unsigned a, unsigned b) { return a & b; });
}
inline unsigned __reduce_or_sync(unsigned mask, unsigned value, simt::Where where = simt::Where::current()) {
  return simt::reduce("__reduce_or_sync", mask, value, where, [](unsigned a, unsigned b) { return a | b; });
}
inline unsigned __reduce_xor_sync(unsigned mask, unsigned value, simt::Where where = simt::Where::current()) {
  return simt::reduce("__reduce_xor_sync", mask, value, where, [](unsigned a, unsigned b) { return a ^ b; });
}

// Atomics return the old value.
template <simt::one_of<int, unsigned, unsigned long long, float, double> T>
T atomicAdd(T* address, simt::plain<T> value) {
  return simt::atomic(address, [&](T old) {
    if constexpr (std::same_as<T, int>) return static_cast<int>(static_cast<unsigned>(old) + static_cast<unsigned>(value));
    else return static_cast<T>(old + value);
  });
}
template <simt::one_of<int, unsigned> T>
T atomicSub(T* address, simt::plain<T> value) {
  return simt::atomic(address, [&](T old) { return static_cast<T>(static_cast<unsigned>(old) - static_cast<unsigned>(value)); });
}
template <simt::one_of<int, unsigned, long long, unsigned long long> T>
T atomicMin(T* address, simt::plain<T> value) {
  return simt::atomic(address, [&](T old) { return value < old ? value : old; });
}
template <simt::one_of<int, unsigned, long long, unsigned long long> T>
T atomicMax(T* address, simt::plain<T> value) {
  return simt::atomic(address, [&](T old) { return old < value ? value : old; });
}
template <simt::one_of<int, unsigned, unsigned long long> T>
T atomicAnd(T* address, simt::plain<T> value) {
  return simt::atomic(address, [&](T old) { return old & value; });
}
template <simt::one_of<int, unsigned, unsigned long long> T>
T atomicOr(T* address, simt::plain<T> value) {
  return simt::atomic(address, [&](T old) { return old | value; });
}
template <simt::one_of<int, unsigned, unsigned long long> T>
T atomicXor(T* address, simt::plain<T> value) {
  return simt::atomic(address, [&](T old) { return old ^ value; });
}
template <simt::one_of<int, unsigned, unsigned long long, float> T>
T atomicExch(T* address, simt::plain<T> value) {
  return simt::atomic(address, [&](T) { return value; });
}
template <simt::one_of<int, unsigned, unsigned long long> T>
T atomicCAS(T* address, simt::plain<T> compare, simt::plain<T> value) {
  return simt::atomic(address, [&](T old) { return old == compare ? value : old; });
}

// Bits.
inline int __popc(unsigned x) { return std::popcount(x); }
inline int __popcll(unsigned long long x) { return std::popcount(x); }
inline int __clz(int x) { return std::countl_zero(static_cast<unsigned>(x)); }
inline int __clzll(long long x) { return std::countl_zero(static_cast<unsigned long long>(x)); }
inline int __ffs(int x) { return x == 0 ? 0 : std::countr_zero(static_cast<unsigned>(x)) + 1; }
inline int __ffsll(long long x) { return x == 0 ? 0 : std::countr_zero(static_cast<unsigned long long>(x)) + 1; }
inline unsigned __brev(unsigned x) {
  unsigned r = 0;
  for (int k = 0; k < 32; ++k) r = r << 1 | (x >> k & 1);
  return r;
}
inline unsigned __float_as_uint(float x) { return std::bit_cast<unsigned>(x); }
inline float __uint_as_float(unsigned x) { return std::bit_cast<float>(x); }
inline int __float_as_int(float x) { return std::bit_cast<int>(x); }
inline float __int_as_float(int x) { return std::bit_cast<float>(x); }
inline long long __double_as_longlong(double x) { return std::bit_cast<long long>(x); }
inline double __longlong_as_double(long long x) { return std::bit_cast<double>(x); }
template <class T>
T __ldg(const T* address) {
  return *address;
}
