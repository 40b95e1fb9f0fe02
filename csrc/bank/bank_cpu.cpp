// CPU backend of bank_nce, gcl_memory_loss and the draw of positives. The bank is cut into parts and the batch into groups by
// the sizes alone, and parts are added in order, so the result knows nothing of the number of threads.
#include <cmath>
#include <limits>

#include "bank/bank_ops.h"
#include "bank/update_rows.h"
#include "common/cpu_backend.h"

namespace gcl {
namespace {

constexpr int64_t kTasks = 8;  // at least so many sweeps, where the bank is large enough; each has B x D sums of its own

// Sums in double, eight at a time so that the compiler may use vectors.
template <class A, class S>
double dot(const A* a, const S* b, int64_t dim) {
  double sum[8] = {};
  int64_t d = 0;
  for (; d + 8 <= dim; d += 8) {
    for (int k = 0; k < 8; ++k) sum[k] += static_cast<double>(a[d + k]) * widen(b[d + k]);
  }
  for (; d < dim; ++d) sum[d % 8] += static_cast<double>(a[d]) * widen(b[d]);
  return ((sum[0] + sum[4]) + (sum[1] + sum[5])) + ((sum[2] + sum[6]) + (sum[3] + sum[7]));
}

int64_t groups_of(int64_t batch) { return (batch + kGroup - 1) / kGroup; }

int64_t chunks_of(int64_t batch, int64_t rows, int64_t dim, bool real8) {
  if (real8) return 1;
  const int64_t wanted = (kTasks + groups_of(batch) - 1) / (batch > 0 ? groups_of(batch) : 1);
  const int64_t blocks = (rows + block_rows(dim) - 1) / block_rows(dim), most = blocks / 4;
  return wanted < most ? wanted : most < 1 ? 1 : most;
}

template <class T>
void select_negatives(const NceParams<T>& p) {
  in_parallel(p.batch, 1, [&](int64_t b) {
    const int64_t first = p.first[b * p.first_stride];
    const RowWords words = row_words(kNegatives, seed_of(p), b);
    const SelectParams selection{.labels = p.labels,
                                 .num_rows = p.num_rows,
                                 .own_label = p.labels[first],
                                 .first = first,
                                 .inner = words.inner,
                                 .outer = words.outer,
                                 .count = p.count};
    p.last[b] = p.count < 0 ? kEveryKey : GCL_PICK(last_key)(selection);
  });
}

GroupRows group_rows(const NceParams<float>& p, int64_t b0, int queries) {
  GroupRows rows{};
  for (int l = 0; l < queries; ++l) {
    const int64_t first = p.first[(b0 + l) * p.first_stride], label = p.labels[first];
    const int64_t class_or_row = label < 0 ? first : label;
    const RowWords words = row_words(kNegatives, seed_of(p), b0 + l);
    rows.own_low[l] = static_cast<int32_t>(class_or_row);
    rows.own_high[l] = static_cast<int32_t>(class_or_row >> 32);
    rows.classless[l] = label < 0 ? -1 : 0;
    rows.used[l] = -1;
    rows.inner[l] = words.inner;
    rows.outer[l] = words.outer;
    rows.last[l] = p.last[b0 + l];
  }
  return rows;
}

// The queries of a group side by side, a cache line of each at a time: rows of a power of two share a cache set.
void pack(const NceParams<float>& p, int64_t group, float* to) {
  for (int64_t d0 = 0; d0 < p.dim; d0 += kPad) {
    const int64_t end = d0 + kPad < p.dim ? d0 + kPad : p.dim;
    for (int64_t l = 0; l < kGroup; ++l) {
      const int64_t b = group * kGroup + l;
      for (int64_t d = d0; d < end; ++d) to[d * kGroup + l] = b < p.batch ? p.query[b * p.dim + d] : 0.0f;
    }
  }
}

// A small bank that several groups of queries would each copy into their scratch is copied once for all; else empty.
Tensor widened_bank(const NceParams<float>& p, int64_t groups, const Tensor& like) {
  constexpr int64_t kMost = int64_t{1} << 21;  // elements
  const int64_t stride = scratch_stride(p.dim);
  const bool apart = p.storage == Storage::float32 && p.dim % kPad == 0 && p.stride % 256 != 0;
  const bool pays = groups > 2 && p.num_rows * stride <= kMost && !apart;
  Tensor copy = new_empty(like, {pays ? p.num_rows : 0, stride});
  float* to = copy.mutable_data_ptr<float>();
  const WidenParams widen{.bank = p.bank, .storage = p.storage, .stride = p.stride, .dim = p.dim, .to = to, .to_stride = stride};
  if (pays) in_parallel(p.num_rows, 1, [&](int64_t n) { GCL_PICK(widen_bank_row)(widen, n); });
  return copy;
}

// Writes part_max, part_sum and part_mean; `like` says what workspace is made as.
void sweep(const NceParams<float>& p, const Tensor& like) {
  const int64_t groups = groups_of(p.batch), tasks = groups * p.chunks;
  const int64_t threads = torch::stable::get_num_threads(), workers = threads < tasks ? threads : tasks;
  const int64_t blocks = (p.num_rows + block_rows(p.dim) - 1) / block_rows(p.dim);
  const int64_t step = (blocks + p.chunks - 1) / p.chunks * block_rows(p.dim);  // bank rows of a chunk
  Tensor packed = new_empty(like, {groups, p.dim, kGroup});
  float* queries = packed.mutable_data_ptr<float>();
  in_parallel(groups, 1, [&](int64_t g) { pack(p, g, queries + g * p.dim * kGroup); });
  const Tensor copy = widened_bank(p, groups, like);
  const bool copied = copy.numel() > 0;
  const int64_t sums = p.with_grad ? kGroup * padded_dim(p.dim) : 0;
  Tensor scratch = new_empty(like, {workers, scratch_floats(p.dim)});
  // Lanes without a query of the last group have nowhere to go in the parts: each worker has room for a whole group.
  Tensor spare = new_empty(like, {p.batch % kGroup == 0 ? 0 : workers, sums});
  in_parallel(workers, 1, [&](int64_t w) {
    for (int64_t task = w; task < tasks; task += workers) {
      const int64_t chunk = task / groups, b0 = task % groups * kGroup;
      const int count = static_cast<int>(p.batch - b0 < kGroup ? p.batch - b0 : kGroup);
      const GroupRows rows = group_rows(p, b0, count);
      float max[kGroup];
      double sum[kGroup];
      float* mean = p.part_mean + (chunk * p.batch + b0) * padded_dim(p.dim);
      if (count < kGroup && p.with_grad) mean = spare.mutable_data_ptr<float>() + w * sums;
      BankSweepParams s{};
      s.packed = queries + b0 * p.dim;
      s.rows = &rows;
      s.queries = count;
      s.sampled = p.count >= 0;
      s.with_mean = p.with_grad;
      s.bank = copied ? copy.const_data_ptr() : p.bank;
      s.storage = copied ? Storage::float32 : p.storage;
      s.stride = copied ? scratch_stride(p.dim) : p.stride;
      s.padded = copied;
      s.labels = p.labels;
      s.begin = chunk * step < p.num_rows ? chunk * step : p.num_rows;
      s.end = s.begin + step < p.num_rows ? s.begin + step : p.num_rows;
      s.num_rows = p.num_rows;
      s.dim = p.dim;
      s.temperature = p.temperature;
      s.max = max;
      s.sum = sum;
      s.mean = mean;
      s.scratch = scratch.mutable_data_ptr<float>() + w * scratch_floats(p.dim);
      GCL_PICK(sweep_bank)(s);
      for (int l = 0; l < count; ++l) {
        p.part_max[chunk * p.batch + b0 + l] = max[l];
        p.part_sum[chunk * p.batch + b0 + l] = sum[l];
      }
      if (count == kGroup || !p.with_grad || p.dim == 0) continue;
      std::memcpy(p.part_mean + (chunk * p.batch + b0) * padded_dim(p.dim), mean, sizeof(float) * count * padded_dim(p.dim));
    }
  });
}

// The same in float64, one query after the other: for gradient checks, not for speed.
void sweep(const NceParams<double>& p, const Tensor&) {
  in_parallel(p.batch, 1, [&](int64_t b) {
    const int64_t first = p.first[b * p.first_stride], own_label = p.labels[first];
    const RowWords words = row_words(kNegatives, seed_of(p), b);
    const double* query = p.query + b * p.dim;
    double* mean = p.part_mean + b * padded_dim(p.dim);
    double top = -std::numeric_limits<double>::infinity(), sum = 0;
    for (int64_t d = 0; p.with_grad && d < p.dim; ++d) mean[d] = 0;
    with_storage(p.storage, [&](auto* none) {
      for (int64_t n = 0; n < p.num_rows; ++n) {
        if (!is_negative(own_label, first, p.labels[n], n)) continue;
        if (sampling_key<uint32_t>(words.inner, words.outer, static_cast<uint32_t>(n)) > p.last[b]) continue;
        const auto* row = static_cast<decltype(none)>(const_cast<void*>(p.bank)) + n * p.stride;
        const double logit = dot(query, row, p.dim) / p.temperature;
        if (logit > top) {
          const double scale = std::exp(top - logit);
          for (int64_t d = 0; p.with_grad && d < p.dim; ++d) mean[d] *= scale;
          sum *= scale;
          top = logit;
        }
        const double weight = std::exp(logit - top);
        for (int64_t d = 0; p.with_grad && d < p.dim; ++d) mean[d] += weight * widen(row[d]);
        sum += weight;
      }
    });
    p.part_max[b] = top;
    p.part_sum[b] = sum;
  });
}

// Adds the parts of one query: the log-sum-exp of its negatives, -inf without any; their average under the softmax, 0 without
// any.
template <class T>
double add_parts(const NceParams<T>& p, int64_t b, T* mean) {
  double top = -std::numeric_limits<double>::infinity(), sum = 0;
  for (int64_t c = 0; c < p.chunks; ++c) top = p.part_max[c * p.batch + b] > top ? p.part_max[c * p.batch + b] : top;
  const auto share = [&](int64_t c) { return std::isinf(top) ? 0.0 : std::exp(p.part_max[c * p.batch + b] - top); };
  for (int64_t c = 0; c < p.chunks; ++c) sum += share(c) * p.part_sum[c * p.batch + b];
  for (int64_t c = 0; c < p.chunks && p.with_grad; ++c) {
    const T scale = sum != 0 ? static_cast<T>(share(c) / sum) : T(0);
    const T* part = p.part_mean + (c * p.batch + b) * padded_dim(p.dim);
    for (int64_t d = 0; d < p.dim; ++d) mean[d] = (c == 0 ? T(0) : mean[d]) + scale * part[d];
  }
  return top + std::log(sum);
}

// Compares the positives of one query: loss, weight, mean, rows.
template <class T>
void finish(const NceParams<T>& p, int64_t b) {
  const double lse = add_parts(p, b, p.mean + (p.with_grad ? b * p.dim : 0));
  for (int64_t k = 0; k < p.positives; ++k) {
    const int64_t at = b * p.positives + k;
    const T* query = p.positive_query != nullptr ? p.positive_query + at * p.dim : p.query + b * p.dim;
    with_storage(p.storage, [&](auto* none) {
      const auto* row = static_cast<decltype(none)>(const_cast<void*>(p.bank)) + p.positive[at] * p.stride;
      const PairLoss pair = pair_loss(dot(query, row, p.dim) / p.temperature, lse);
      p.loss[at] = static_cast<T>(pair.loss);
      if (!p.with_grad) return;
      p.weight[at] = static_cast<T>(pair.weight);
      T* to = p.rows + at * p.dim;
      for (int64_t d = 0; d < p.dim && !p.folded; ++d) to[d] = static_cast<T>(widen(row[d]));
      for (int64_t d = 0; d < p.dim && p.folded; ++d) p.mean[b * p.dim + d] -= static_cast<T>(widen(row[d]));
    });
  }
}

// The negatives of every query, in parts.
template <class T>
void contrast_parts(const NceParams<T>& p, const Tensor& like) {
  select_negatives(p);
  sweep(p, like);
}

// Row `from` as a unit vector, and its length (1 for a zero row).
template <class T>
void normalise(const T* from, int64_t dim, T* to, T* length) {
  const T norm = static_cast<T>(std::sqrt(dot(from, from, dim)));
  *length = norm > 0 ? norm : norm == 0 ? T(1) : norm;
  for (int64_t d = 0; d < dim; ++d) to[d] = from[d] / *length;
}

// Through the normalisation: what is left of `grad` across the unit vector, divided by the length.
template <class T>
void denormalise(T* grad, const T* unit, T length, int64_t dim) {
  const double along = dot(grad, unit, dim);
  for (int64_t d = 0; d < dim; ++d) grad[d] = static_cast<T>((grad[d] - along * unit[d]) / length);
}

int64_t draw_positive(const int64_t* labels, int64_t size, int64_t index, int64_t seed, int64_t b, uint32_t stream) {
  const RowWords words = row_words(stream, seed, b);
  const SelectParams selection{.labels = labels,
                               .num_rows = size,
                               .own_label = labels[index],
                               .first = index,
                               .inner = words.inner,
                               .outer = words.outer,
                               .count = 1};
  return GCL_PICK(smallest_key)(selection);
}

// Unit features of row b, its positives, their rows (where gradients are asked for) and their products with it.
template <class T>
void prepare_row(const GclParams<T>& q, const NceParams<T>& p, int64_t b) {
  normalise(q.photo + b * p.dim, p.dim, q.unit_photo + b * p.dim, q.photo_length + b);
  normalise(q.view + b * p.dim, p.dim, q.unit_view + b * p.dim, q.view_length + b);
  for (int64_t k = 0; k < 3; ++k) {
    const int64_t index = q.index[b];
    const int64_t n = k == 0 ? index : draw_positive(p.labels, p.num_rows, index, seed_of(p), b, static_cast<uint32_t>(k));
    q.positive[3 * b + k] = n;
    with_storage(p.storage, [&](auto* none) {
      const auto* row = static_cast<decltype(none)>(const_cast<void*>(p.bank)) + n * p.stride;
      q.dot[3 * b + k] = dot((k < 2 ? q.unit_view : q.unit_photo) + b * p.dim, row, p.dim);
      T* to = q.view_grad + (3 * b + k) * p.dim;
      for (int64_t d = 0; d < p.dim && p.with_grad; ++d) to[d] = static_cast<T>(widen(row[d]));
    });
  }
}

// Losses of row b, and the derivatives of the terms, which are means over the batch.
template <class T>
void finish_row(const GclParams<T>& q, const NceParams<T>& p, int64_t b, T* mean, double* loss) {
  const double lse = add_parts(p, b, mean);
  for (int64_t k = 0; k < 3; ++k) {
    const PairLoss pair = pair_loss(q.dot[3 * b + k] / p.temperature, lse);
    loss[3 * b + k] = pair.loss;
    if (!p.with_grad) continue;
    const T scale = static_cast<T>(pair.weight / (static_cast<double>(p.temperature) * p.batch));
    T *grad = q.view_grad + (3 * b + k) * p.dim, *photo = q.photo_grad + b * p.dim;  // grad holds the positive row
    if (k == 2) {
      for (int64_t d = 0; d < p.dim; ++d) photo[d] = -scale * grad[d];
      denormalise(photo, q.unit_photo + b * p.dim, q.photo_length[b], p.dim);
    }
    for (int64_t d = 0; d < p.dim; ++d) grad[d] = scale * (k < 2 ? mean[d] - grad[d] : mean[d]);
    denormalise(grad, q.unit_view + b * p.dim, q.view_length[b], p.dim);
  }
}

template <class T>
void gcl_rows(const GclParams<T>& q, const NceParams<T>& p, const Tensor& like) {
  in_parallel(p.batch, 1, [&](int64_t b) { prepare_row(q, p, b); });
  contrast_parts(p, like);
  Workspace work;
  T* mean = nullptr;
  double* loss = nullptr;
  for (int time = 0; time < 2; ++time) {
    if (time == 1) work.allocate(like);
    work.part(p.with_grad ? p.batch * p.dim : 0, &mean);
    work.part(p.batch * 3, &loss);
  }
  in_parallel(p.batch, 1, [&](int64_t b) { finish_row(q, p, b, mean + (p.with_grad ? b * p.dim : 0), loss); });
  for (int64_t k = 0; k < 3; ++k) {
    double sum = 0;
    for (int64_t b = 0; b < p.batch; ++b) sum += loss[3 * b + k];
    q.terms[k] = static_cast<T>(sum / p.batch);
  }
}

struct BankCpu : CpuBackend {
  NceOptions options(const char*, const Tensor& query, bool, const Tensor& bank, double temperature, int64_t count,
                     bool with_grad) const {
    return {.temperature = temperature,
            .count = count,
            .with_grad = with_grad,
            .chunks = chunks_of(query.size(0), bank.size(0), query.size(1), is_double(query))};
  }

  void contrast(const char* op, NceTensors& t, const NceOptions& options) const {
    dispatch_real(t.query, [&](auto real) {
      Workspace work;
      const auto p = nce_params<decltype(real)>(op, t, options, work);
      contrast_parts(p, t.query);
      in_parallel(p.batch, 1, [&](int64_t b) { gcl::finish(p, b); });
    });
  }

  void gcl(const char* op, GclTensors& t, const NceOptions& options, std::optional<double> momentum) const {
    dispatch_real(t.photo, [&](auto real) {
      using T = decltype(real);
      Workspace work;
      const auto [q, p] = gcl_params<T>(op, t, options, work);
      gcl_rows(q, p, t.photo);
      if (momentum.has_value()) move_rows(gcl_move(t, p, *momentum), t.photo);
    });
  }

  template <class T>
  void backward(const GclBackwardParams<T>& p) const {
    in_parallel(p.batch, 8, [&](int64_t b) {
      for (int64_t d = 0; d < p.dim; ++d) gcl_gradient(p, b, d);
    });
  }

  void draw(const int64_t* labels, int64_t num_rows, const int64_t* index, int64_t batch, const int64_t* seed,
            int64_t* out) const {
    in_parallel(batch, 1, [&](int64_t b) {
      for (uint32_t s = 1; s <= 2; ++s) out[2 * b + s - 1] = draw_positive(labels, num_rows, index[b], *seed, b, s);
    });
  }
};

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(gcl_fast, CPU, m) { register_bank<BankCpu>(m); }

}  // namespace gcl
