// GPU kernels of the Jaccard distance's sets and weights: a warp takes a row and its lanes the lists that it is merged from, as
// the longest chain of reads is what takes the time. No atomics: each sum has one order.
#pragma once

#include "common/warp_fold.cuh"
#include "neighbors/ascending_search.h"
#include "neighbors/jaccard_math.h"
#include "neighbors/row_products.cuh"

namespace gcl {

// The smallest value of a warp's lanes.
__device__ inline int32_t warp_least(int32_t value) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
  return __reduce_min_sync(kAllLanes, value);
#else
  return fold_warp_all(value, [](int32_t a, int32_t b) { return minimum(a, b); });
#endif
}

// Row i of at most 32 neighbours by all lanes of a warp: a lane looks at the neighbours of each neighbour for i, then places its
// own neighbour among the members by counting the smaller ones.
__device__ inline void reciprocal_row_by_warp(const ReciprocalParams& p, int64_t i, int lane) {
  const int width = static_cast<int>(p.width);
  const int32_t j = lane < width ? p.rank[i * p.width + lane] : kNoMember;
  bool near = false, close = false;
#pragma unroll 4
  for (int t = 0; t < width; ++t) {
    const int64_t row = __shfl_sync(kAllLanes, j, t);
    const unsigned found = __ballot_sync(kAllLanes, lane < width && p.rank[row * p.width + minimum(lane, width - 1)] == i);
    if (t == lane) near = found != 0, close = t < p.half_width && found != 0 && __ffs(static_cast<int>(found)) <= p.half_width;
  }
  const unsigned all_near = __ballot_sync(kAllLanes, near), all_close = __ballot_sync(kAllLanes, close);
  int smaller_near = 0, smaller_close = 0;
  for (int t = 0; t < width; ++t) {
    const bool smaller = __shfl_sync(kAllLanes, j, t) < j;
    smaller_near += smaller && (all_near >> t & 1u) != 0;
    smaller_close += smaller && (all_close >> t & 1u) != 0;
  }
  const int num_near = __popc(all_near), num_close = __popc(all_close);
  if (near) p.near[i * p.width + smaller_near] = j;
  if (close) p.close[i * p.half_width + smaller_close] = j;
  if (lane >= num_near && lane < width) p.near[i * p.width + lane] = -1;
  if (lane >= num_close && lane < p.half_width) p.close[i * p.half_width + lane] = -1;
  if (lane == 0) p.num_near[i] = num_near, p.num_close[i] = num_close;
}

template <class Params>
__global__ void reciprocal_kernel(Params p) {
  GCL_EACH_ITEM(i, p.rows) reciprocal_row(p, i);
}

template <class Params>
__global__ void reciprocal_warp_kernel(Params p) {
  GCL_EACH_WARP(i, p.rows) reciprocal_row_by_warp(p, i, threadIdx.x % kWarpLanes);
}

// The lists whose union is R*(i), each read by one lane of a warp: list 0 is R(i, k1), list t + 1 the set of near[t], which is
// empty where it was not accepted. A lane holds the first member of its first list that is still to come in registers; of the
// lists from 32 on, p.at remembers where they stand.
template <class T>
class ExpandedLists {
 public:
  __device__ ExpandedLists(const ExpansionParams<T>& p, int64_t i, int lane)
      : p_(p), i_(i), lane_(lane), num_lists_(p.num_near[i] + 1), size_(list(lane, &members_)) {
    head_ = size_ > 0 ? members_[0] : kNoMember;
    for (int32_t t = lane + kWarpLanes; t < num_lists_; t += kWarpLanes) place(t) = 0;
    rest_ = beyond(-1);
  }
  // The smallest member still to come, kNoMember where there is none; the same on all lanes.
  __device__ int32_t next() const { return warp_least(minimum(head_, rest_)); }
  __device__ void pass(int32_t member) {
    if (head_ == member) head_ = ++at_ < size_ ? members_[at_] : kNoMember;
    if (rest_ == member) rest_ = beyond(member);
  }

 private:
  __device__ int32_t list(int32_t t, const int32_t** members) const {
    const int32_t* near = p_.near + i_ * p_.width;
    *members = near;
    if (t == 0) return p_.num_near[i_];
    if (t >= num_lists_ || !p_.accepted[i_ * p_.width + t - 1]) return 0;
    const int64_t c = near[t - 1];
    *members = p_.close + c * p_.half_width;
    return p_.num_close[c];
  }
  __device__ int32_t& place(int32_t t) const { return p_.at[i_ * p_.width + t - 1]; }
  // The smallest member above `passed` in the lists after the first.
  __device__ int32_t beyond(int32_t passed) const {
    int32_t least = kNoMember;
    for (int32_t t = lane_ + kWarpLanes; t < num_lists_; t += kWarpLanes) {
      const int32_t* members;
      const int32_t size = list(t, &members);
      int32_t at = place(t);
      while (at < size && members[at] <= passed) ++at;
      place(t) = at;
      if (at < size) least = minimum(least, members[at]);
    }
    return least;
  }

  const ExpansionParams<T>& p_;
  const int64_t i_;
  const int lane_;
  const int32_t num_lists_;
  const int32_t* members_;
  const int32_t size_;
  int32_t at_ = 0, head_, rest_;
};

template <class T>
__global__ void expansion_count_kernel(ExpansionParams<T> p) {
  const int lane = threadIdx.x % kWarpLanes;
  GCL_EACH_WARP(i, p.rows) {
    for (int64_t t = lane; t < p.width; t += kWarpLanes) p.accepted[i * p.width + t] = accepts(p, i, t);
    __syncwarp(kAllLanes);
    ExpandedLists<T> lists(p, i, lane);
    int64_t count = 0;
    for (int32_t j = lists.next(); j != kNoMember; j = lists.next(), ++count) lists.pass(j);
    if (lane == 0) p.count[i] = count;
  }
}

// Where the value stands in list [size], read by all lanes of a warp; -1 where it does not.
__device__ inline int64_t find_by_warp(const int32_t* list, int64_t size, int32_t wanted, int lane) {
  for (int64_t first = 0; first < size; first += kWarpLanes) {
    const unsigned found = __ballot_sync(kAllLanes, first + lane < size && list[first + lane] == wanted);
    if (found != 0) return first + __ffs(static_cast<int>(found)) - 1;
  }
  return -1;
}

// Similarities of i and the `size` members that the lanes hold, as known_similarity finds them; true on a lane whose is known.
template <class T>
__device__ bool known_by_warp(const ExpansionParams<T>& p, int64_t i, int32_t member, int size, int lane, T* value) {
  if (p.similarity == nullptr) return false;
  bool known = false;
  for (int n = 0; n < size; ++n) {
    const int32_t j = __shfl_sync(kAllLanes, member, n);
    int64_t row = i, t = find_by_warp(p.rank + i * p.width, p.width, j, lane);
    if (t < 0) row = j, t = find_by_warp(p.rank + j * p.width, p.width, static_cast<int32_t>(i), lane);
    if (t < 0 || n != lane) continue;
    *value = p.similarity[row * p.width + t];
    known = true;
  }
  return known;
}

template <class T>
__global__ void expansion_fill_kernel(ExpansionParams<T> p) {
  const int lane = threadIdx.x % kWarpLanes;
  GCL_EACH_WARP(i, p.rows) {
    ExpandedLists<T> lists(p, i, lane);
    const int64_t end = p.start[i + 1];
    int64_t e = p.start[i];
    for (int size = kWarpLanes; size == kWarpLanes; e += size) {  // as many members as there are lanes, one for each
      int32_t mine = 0;
      for (size = 0; size < kWarpLanes; ++size) {
        const int32_t j = lists.next();
        if (j == kNoMember) break;
        lists.pass(j);
        if (size == lane) mine = j;
      }
      T value = 0;
      // What is to be computed is left as NaN, which no finite similarity is.
      if (!known_by_warp(p, i, mine, size, lane, &value) && (p.features != nullptr || !p.finished)) value = static_cast<T>(NAN);
      if (lane < size && e + lane < end) {
        p.columns[e + lane] = mine;
        p.values[e + lane] = value;
      }
    }
  }
}

template <class T>
__global__ void products_kernel(ProductParams<T> p, bool by_fours) {
  const int lane = threadIdx.x % kWarpLanes;
  GCL_EACH_WARP(n, p.pairs) {
    const T* const other[1] = {p.right + p.column[n] * p.dim};
    T product[1];
    warp_products(p.left + p.row[n] * p.dim, other, p.dim, lane, by_fours, product);
    if (lane == 0) p.product[n] = product[0];
  }
}

// Where i stands among the members of an earlier row j, or -1: there stands the product of j and i, the same to the bit.
template <class T>
__device__ int64_t mirrored_at(const ExpansionParams<T>& p, int64_t i, int32_t j) {
  if (j >= i) return -1;
  const int64_t end = p.start[j + 1], e = first_at_least(p.columns, p.start[j], end, i);
  return e < end && p.columns[e] == i ? e : -1;
}

// A block takes a row, whose features stay in the cache: its threads look which entries are wanted, its warps share those.
template <class T>
__global__ void __launch_bounds__(kThreads) expansion_products_kernel(ExpansionParams<T> p, bool by_fours) {
  constexpr int kWarps = kThreads / kWarpLanes, kTogether = 2;  // rows that a warp reads at once
  __shared__ int wanted[kThreads];
  __shared__ int num_wanted;
  const int lane = threadIdx.x % kWarpLanes, warp = threadIdx.x / kWarpLanes;
  for (int64_t i = blockIdx.x; i < p.rows; i += gridDim.x) {
    const int64_t end = p.start[i + 1];
    for (int64_t first = p.start[i]; first < end; first += kThreads) {
      if (threadIdx.x == 0) num_wanted = 0;
      __syncthreads();
      const int64_t e = first + threadIdx.x;
      const T known = e < end ? p.values[e] : T(0);
      if (known != known && mirrored_at(p, i, p.columns[e]) < 0) {
        wanted[atomicAdd(&num_wanted, 1)] = static_cast<int>(threadIdx.x);
      }
      __syncthreads();
      for (int n = kTogether * warp; n < num_wanted; n += kTogether * kWarps) {
        const T* others[kTogether];
        T products[kTogether];
        for (int q = 0; q < kTogether; ++q) {
          others[q] = p.features + p.columns[first + wanted[minimum(n + q, num_wanted - 1)]] * p.dim;
        }
        warp_products(p.features + i * p.dim, others, p.dim, lane, by_fours, products);
        for (int q = 0; q < kTogether; ++q) {
          if (lane == 0 && n + q < num_wanted) p.values[first + wanted[n + q]] = products[q];
        }
      }
      __syncthreads();  // the list is the next entries'
    }
  }
}

template <class T>
__global__ void expansion_mirror_kernel(ExpansionParams<T> p) {
  GCL_EACH_WARP(i, p.rows) {
    for (int64_t e = p.start[i] + threadIdx.x % kWarpLanes; e < p.start[i + 1]; e += kWarpLanes) {
      const T known = p.values[e];
      const int64_t from = known == known ? -1 : mirrored_at(p, i, p.columns[e]);
      if (from >= 0) p.values[e] = p.values[from];
    }
  }
}

// A warp takes a row: its lanes share the exponentials, and all add them up in the CPU's order.
template <class T>
__global__ void softmax_kernel(SoftmaxParams<T> p) {
  const int lane = threadIdx.x % kWarpLanes;
  GCL_EACH_WARP(i, p.rows) {
    const int64_t begin = p.start[i], end = p.start[i + 1];
    if (begin == end) continue;
    T top = p.values[begin], total = 0;
    for (int64_t e = begin + lane; e < end; e += kWarpLanes) top = maximum(top, p.values[e]);
    top = fold_warp_all(top, Largest{});
    for (int64_t first = begin; first < end; first += kWarpLanes) {
      const int size = static_cast<int>(minimum<int64_t>(kWarpLanes, end - first));
      const T value = lane < size ? std::exp(T(2) * (p.values[first + lane] - top)) : T(0);
      if (lane < size) p.values[first + lane] = value;
      for (int n = 0; n < size; ++n) total += __shfl_sync(kAllLanes, value, n);
    }
    for (int64_t e = begin + lane; e < end; e += kWarpLanes) p.values[e] /= total;
  }
}

// Rows side by side in a warp, each merged by as many lanes as it averages rows, or a few more (lanes: a power of two, at least
// p.group): a lane stands in one row. `emit(i, n, column, mean)` is called on each row's first lane for its n-th column, `done(i,
// n)` behind the last.
template <bool kWithValues, class T, class Emit, class Done>
__device__ void merge_means(const MeanParams<T>& p, int lanes, Emit&& emit, Done&& done) {
  const int lane = threadIdx.x % kWarpLanes, t = lane % lanes, side = kWarpLanes / lanes, group = static_cast<int>(p.group);
  GCL_EACH_WARP(step, (p.rows + side - 1) / side) {
    const int64_t i = step * side + lane / lanes;
    int64_t at = 0, end = 0, n = 0;
    if (i < p.rows && t < group) {
      const int64_t row = p.rank[i * p.width + t];
      at = p.start[row], end = p.start[row + 1];
    }
    int32_t head = at < end ? p.columns[at] : kNoMember;
    while (true) {
      int32_t next = head;
      for (int flip = lanes / 2; flip > 0; flip /= 2) next = minimum(next, __shfl_xor_sync(kAllLanes, next, flip));
      const bool more = next != kNoMember, holds = more && head == next;
      if (!__any_sync(kAllLanes, more)) break;
      T sum = 0;
      if constexpr (kWithValues) {
        const T value = holds ? p.values[at] : T(0);
        const unsigned holders = __ballot_sync(kAllLanes, holds) >> (lane - t);
        for (int s = 0; s < group; ++s) {
          const T term = __shfl_sync(kAllLanes, value, s, lanes);
          if ((holders >> s & 1u) != 0) sum += term;
        }
      }
      if (holds) head = ++at < end ? p.columns[at] : kNoMember;
      if (more && t == 0) emit(i, n, next, sum / static_cast<T>(p.group));
      n += more;
    }
    if (i < p.rows && t == 0) done(i, n);
  }
}

template <class T>
__global__ void mean_count_warp_kernel(MeanParams<T> p, int lanes) {
  merge_means<false>(p, lanes, [](int64_t, int64_t, int32_t, T) {}, [&](int64_t i, int64_t n) { p.count[i] = n; });
}

template <class T>
__global__ void mean_fill_warp_kernel(MeanParams<T> p, int lanes) {
  const auto emit = [&](int64_t i, int64_t n, int32_t column, T value) {
    const int64_t e = p.out_start[i] + n;
    if (e >= p.out_start[i + 1]) return;
    p.out_columns[e] = column;
    p.out_values[e] = value;
  };
  merge_means<true>(p, lanes, emit, [](int64_t, int64_t) {});
}

// More rows averaged than a warp has lanes: a thread merges them.
template <class T>
__global__ void mean_count_kernel(MeanParams<T> p) {
  GCL_EACH_ITEM(i, p.rows) {
    int64_t count = 0;
    for_each_mean(p, i, p.at + i * p.group, [&](int32_t, T) { ++count; });
    p.count[i] = count;
  }
}

template <class T>
__global__ void mean_fill_kernel(MeanParams<T> p) {
  GCL_EACH_ITEM(i, p.rows) {
    int64_t e = p.out_start[i];
    for_each_mean(p, i, p.at + i * p.group, [&](int32_t column, T value) {
      if (e < p.out_start[i + 1]) {
        p.out_columns[e] = column;
        p.out_values[e] = value;
      }
      ++e;
    });
  }
}

// Lanes for one of a warp's rows side by side: a power of two.
inline int lanes_for(int64_t lists) {
  int lanes = 1;
  while (lanes < lists) lanes *= 2;
  return lanes;
}

inline void launch_reciprocal(const ReciprocalParams& p, GclStream stream) {
  if (p.rows == 0) return;
  if (p.width <= kWarpLanes) {
    GCL_LAUNCH((reciprocal_warp_kernel<ReciprocalParams>), blocks_for(p.rows * kWarpLanes), kThreads, 0, stream, p);
  } else {
    GCL_LAUNCH((reciprocal_kernel<ReciprocalParams>), blocks_for(p.rows), kThreads, 0, stream, p);
  }
}

template <class T>
void launch_expansion_count(const ExpansionParams<T>& p, GclStream stream) {
  if (p.rows > 0) GCL_LAUNCH((expansion_count_kernel<T>), blocks_for(p.rows * kWarpLanes), kThreads, 0, stream, p);
}

template <class T>
void launch_products(const ProductParams<T>& p, GclStream stream) {
  const bool by_fours = lie_by_fours(p.dim, p.left, p.right);
  if (p.pairs > 0) GCL_LAUNCH((products_kernel<T>), blocks_for(p.pairs * kWarpLanes), kThreads, 0, stream, p, by_fours);
}

template <class T>
void launch_softmax(const SoftmaxParams<T>& p, GclStream stream) {
  if (p.rows > 0) GCL_LAUNCH((softmax_kernel<T>), blocks_for(p.rows * kWarpLanes), kThreads, 0, stream, p);
}

template <class T>
void launch_expansion_weights(const ExpansionParams<T>& p, GclStream stream) {
  if (p.rows == 0 || p.total == 0) return;
  const int64_t blocks = blocks_for(p.rows * kWarpLanes);
  GCL_LAUNCH((expansion_fill_kernel<T>), blocks, kThreads, 0, stream, p);
  if (p.features != nullptr) {
    const bool by_fours = lie_by_fours(p.dim, p.features);
    GCL_LAUNCH((expansion_products_kernel<T>), capped_blocks(p.rows), kThreads, 0, stream, p, by_fours);
    GCL_LAUNCH((expansion_mirror_kernel<T>), blocks, kThreads, 0, stream, p);
  }
  if (p.finished) launch_softmax(SoftmaxParams<T>{.start = p.start, .rows = p.rows, .values = p.values}, stream);
}

template <class T>
void launch_mean_count(const MeanParams<T>& p, GclStream stream) {
  if (p.rows == 0) return;
  if (p.group <= kWarpLanes) {
    const int lanes = lanes_for(p.group);
    GCL_LAUNCH((mean_count_warp_kernel<T>), blocks_for(p.rows * lanes), kThreads, 0, stream, p, lanes);
  } else {
    GCL_LAUNCH((mean_count_kernel<T>), blocks_for(p.rows), kThreads, 0, stream, p);
  }
}

template <class T>
void launch_mean(const MeanParams<T>& p, GclStream stream) {
  if (p.rows == 0) return;
  if (p.group <= kWarpLanes) {
    const int lanes = lanes_for(p.group);
    GCL_LAUNCH((mean_fill_warp_kernel<T>), blocks_for(p.rows * lanes), kThreads, 0, stream, p, lanes);
  } else {
    GCL_LAUNCH((mean_fill_kernel<T>), blocks_for(p.rows), kThreads, 0, stream, p);
  }
}

}  // namespace gcl
