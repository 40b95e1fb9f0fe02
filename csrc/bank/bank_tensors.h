// From tensors to the parameter structs of the bank ops: checks, contiguous inputs, outputs. Shared by the two backends.
#pragma once

#include <optional>
#include <utility>

#include "bank/bank.h"
#include "bank/bank_math.h"
#include "common/tensor.h"

namespace gcl {

inline Storage storage_of(const char* op, const Tensor& bank) {
  switch (bank.scalar_type()) {
    case ScalarType::Float:
      return Storage::float32;
    case ScalarType::Double:
      return Storage::float64;
    case ScalarType::BFloat16:
      return Storage::bfloat16;
    case ScalarType::Half:
      return Storage::float16;
    default:
      STD_TORCH_CHECK(false, op, ": bank must be float32, float64, bfloat16 or float16");
  }
  return Storage::float32;
}

// Calls f with a null pointer of the bank's element type.
template <class F>
void with_storage(Storage storage, F&& f) {
  if (storage == Storage::float32) f(static_cast<float*>(nullptr));
  else if (storage == Storage::float64) f(static_cast<double*>(nullptr));
  else if (storage == Storage::bfloat16) f(static_cast<BFloat16*>(nullptr));
  else f(static_cast<Half*>(nullptr));
}

// Calls f(T{}, S{}) with the type computed in and the type stored; a float64 bank is computed in float64 alone.
template <class F>
void dispatch_real_storage(const Tensor& real, Storage storage, F&& f) {
  with_storage(storage, [&](auto* none) {
    using S = std::remove_pointer_t<decltype(none)>;
    if (is_double(real)) f(double{}, S{});
    else if constexpr (!std::is_same_v<S, double>) f(float{}, S{});
  });
}

// Rows that are each contiguous stay where they are, whatever lies between them.
inline Tensor contiguous_rows(const Tensor& bank) {
  const bool fits = bank.size(1) <= 1 || (bank.stride(1) == 1 && (bank.size(0) <= 1 || bank.stride(0) >= bank.size(1)));
  return fits ? bank : contiguous(bank);
}
inline int64_t row_stride(const Tensor& bank) { return bank.size(0) > 1 ? bank.stride(0) : bank.size(1); }

inline void check_bank(const char* op, const Tensor& like, const Tensor& bank, int64_t dim) {
  check_shape(op, "bank", bank, {kAnySize, dim});
  check_same_device(op, like, {{"bank", bank}});
  STD_TORCH_CHECK(bank.size(0) < (int64_t{1} << 32), op, ": the bank must have fewer than 2^32 rows");
}

// A bank is written where it lies.
inline void check_moved_bank(const char* op, const Tensor& bank, double momentum) {
  const bool rows = bank.size(1) <= 1 || bank.size(0) == 0 || bank.stride(1) == 1;
  STD_TORCH_CHECK(rows, op, ": bank must have contiguous rows");
  STD_TORCH_CHECK(bank.size(0) <= 1 || bank.stride(0) >= bank.size(1), op, ": bank must have rows that do not overlap");
  STD_TORCH_CHECK(momentum >= 0 && momentum <= 1, op, ": momentum must be in [0, 1], got ", momentum);
}

inline void check_row_numbers(const char* op, const Tensor& like, NamedTensors tensors) {
  check_int64(op, tensors);
  check_same_device(op, like, tensors);
}

// Every row named is there; the GPU is not asked.
inline void check_rows(const char* op, const char* name, const Tensor& rows, int64_t size) {
  if (rows.is_cuda()) return;
  const int64_t* row = rows.const_data_ptr<int64_t>();
  for (int64_t i = 0; i < rows.numel(); ++i) {
    STD_TORCH_CHECK(row[i] >= 0 && row[i] < size, op, ": ", name, " must be rows of the bank, 0 to ", size - 1, ", got ", row[i]);
  }
}

// What a call needs beside its outputs, in one piece: each part is asked for twice, first for its size, then for its place.
class Workspace {
 public:
  template <class T>
  void part(int64_t count, T** where) {
    const int64_t begin = (used_ + kAlign - 1) / kAlign * kAlign;
    used_ = begin + count * static_cast<int64_t>(sizeof(T));
    if (base_ != nullptr) *where = reinterpret_cast<T*>(base_ + begin);
  }
  // Makes room for what was asked for until now; what is asked for from now on gets a place in it.
  void allocate(const Tensor& like) {
    memory_ = new_empty(like, {used_ + kAlign}, ScalarType::Byte);
    base_ = static_cast<char*>(memory_->mutable_data_ptr());
    base_ += (kAlign - reinterpret_cast<uintptr_t>(base_) % kAlign) % kAlign;
    used_ = 0;
  }

 private:
  static constexpr int64_t kAlign = 64;
  std::optional<Tensor> memory_;
  char* base_ = nullptr;
  int64_t used_ = 0;
};

inline Tensor dense(const Tensor& tensor) { return tensor.is_contiguous() ? tensor : contiguous(tensor); }

// Features that may be read while the bank's rows move: a copy where they are some of its memory.
inline Tensor apart(const Tensor& feature, const Tensor& bank) {
  const Tensor rows = dense(feature);
  const auto begin = [](const Tensor& t) { return static_cast<const char*>(t.const_data_ptr()); };
  const auto end = [&](const Tensor& t) {
    const int64_t last = t.size(0) - 1;
    return begin(t) + (last < 0 ? 0 : (last * row_stride(t) + t.size(1)) * static_cast<int64_t>(t.element_size()));
  };
  return begin(rows) < end(bank) && begin(bank) < end(rows) ? torch::stable::clone(rows) : rows;
}

struct NceTensors {
  Tensor query, bank, labels, positive;
  std::optional<Tensor> seed, positive_query;
  Tensor loss, mean, weight, rows;
};

struct NceOptions {
  double temperature;
  int64_t count;
  bool with_grad;
  int64_t chunks;
  bool on_gpu = false;  // the GPU's workspace besides
  int64_t splits = 1;
  Sweep sweep = Sweep::fused;
  int64_t seed_value = 0;  // where there is no tensor
};

inline void check_contrast(const char* op, const Tensor& query, const Tensor& bank, const Tensor& labels,
                           const std::optional<Tensor>& seed, const NceOptions& options) {
  check_shape(op, "query", query, {kAnySize, kAnySize});
  check_real(op, "query", query);
  check_bank(op, query, bank, query.size(1));
  STD_TORCH_CHECK(is_double(query) || storage_of(op, bank) != Storage::float64, op, ": a float64 bank needs a float64 query");
  check_shape(op, "labels", labels, {bank.size(0)});
  check_row_numbers(op, query, {{"labels", labels}});
  if (seed.has_value()) {
    STD_TORCH_CHECK(seed->numel() == 1, op, ": seed must hold one number");
    check_row_numbers(op, query, {{"seed", *seed}});
  }
  STD_TORCH_CHECK(options.temperature > 0, op, ": temperature must be above 0, got ", options.temperature);
}

// Outputs are made here.
inline NceTensors nce_tensors(const char* op, const Tensor& query, const Tensor& bank, const Tensor& labels,
                              const Tensor& positive, const std::optional<Tensor>& positive_query, const Tensor& seed,
                              const NceOptions& options) {
  check_contrast(op, query, bank, labels, seed, options);
  const int64_t batch = query.size(0), dim = query.size(1);
  check_shape(op, "positive", positive, {batch, kAnySize});
  check_row_numbers(op, query, {{"positive", positive}});
  STD_TORCH_CHECK(positive.size(1) > 0, op, ": positive must hold at least one row per query");
  const int64_t positives = positive.size(1), kept = options.with_grad ? batch : 0;
  std::optional<Tensor> positive_queries;
  if (positive_query.has_value()) {
    check_shape(op, "positive_query", *positive_query, {batch, positives, dim});
    check_same_device(op, query, {{"positive_query", *positive_query}});
    check_same_type(op, "query", query, {{"positive_query", *positive_query}});
    positive_queries = dense(*positive_query);
  }
  const bool folded = positives == 1 && !positive_queries.has_value();
  return {.query = dense(query),
          .bank = contiguous_rows(bank),
          .labels = dense(labels),
          .positive = dense(positive),
          .seed = dense(seed),
          .positive_query = positive_queries,
          .loss = new_empty(query, {batch, positives}),
          .mean = new_empty(query, {kept, dim}),
          .weight = new_empty(query, {kept, positives}),
          .rows = new_empty(query, {kept, folded ? 0 : positives, dim})};
}

// What both contrasts know of the bank and the draws.
template <class T>
void fill_bank(const char* op, const Tensor& bank, const Tensor& labels, const std::optional<Tensor>& seed,
               const NceOptions& options, NceParams<T>* p) {
  p->bank = bank.const_data_ptr();
  p->storage = storage_of(op, bank);
  p->stride = row_stride(bank);
  p->labels = labels.const_data_ptr<int64_t>();
  p->seed = seed.has_value() ? seed->const_data_ptr<int64_t>() : nullptr;
  p->seed_value = options.seed_value;
  p->num_rows = bank.size(0);
  p->count = options.count;
  p->temperature = static_cast<T>(options.temperature);
  p->with_grad = options.with_grad;
  p->splits = options.splits;
  p->sweep = options.sweep;
  p->chunks = options.chunks;
}

template <class T>
void place_contrast(Workspace& work, const NceOptions& options, NceParams<T>* p) {
  work.part(p->batch, &p->last);
  work.part(options.splits > 1 ? p->batch * 3 * 4096 : 0, &p->counts);
  work.part(p->chunks * p->batch, &p->part_max);
  work.part(p->chunks * p->batch, &p->part_sum);
  work.part(options.on_gpu ? p->chunks * p->batch : 0, &p->part_logit);
  work.part(p->with_grad ? p->chunks * p->batch * padded_dim(p->dim) : 0, &p->part_mean);
}

template <class T>
NceParams<T> nce_params(const char* op, NceTensors& t, const NceOptions& options, Workspace& work) {
  NceParams<T> p{};
  fill_bank(op, t.bank, t.labels, t.seed, options, &p);
  p.query = t.query.template const_data_ptr<T>();
  p.positive_query = t.positive_query.has_value() ? t.positive_query->template const_data_ptr<T>() : nullptr;
  p.positive = p.first = t.positive.const_data_ptr<int64_t>();
  p.batch = t.query.size(0);
  p.positives = p.first_stride = t.positive.size(1);
  p.dim = t.query.size(1);
  p.folded = options.with_grad && p.positives == 1 && p.positive_query == nullptr;
  place_contrast(work, options, &p);
  work.allocate(t.query);
  place_contrast(work, options, &p);
  p.loss = t.loss.template mutable_data_ptr<T>();
  p.mean = t.mean.template mutable_data_ptr<T>();
  p.weight = t.weight.template mutable_data_ptr<T>();
  p.rows = t.rows.template mutable_data_ptr<T>();
  return p;
}

struct GclTensors {
  Tensor photo, view, index, bank, labels;
  std::optional<Tensor> seed;
  Tensor terms, view_grad, photo_grad;
};

inline GclTensors gcl_tensors(const char* op, const Tensor& photo, const Tensor& view, const Tensor& bank, const Tensor& labels,
                              const Tensor& index, const std::optional<Tensor>& seed, const NceOptions& options) {
  check_shape(op, "f", photo, {kAnySize, kAnySize});
  check_contrast(op, photo, bank, labels, seed, options);
  const int64_t batch = photo.size(0), dim = photo.size(1), kept = options.with_grad ? batch : 0;
  check_shape(op, "f_nv", view, {batch, dim});
  check_shape(op, "index", index, {batch});
  check_same_device(op, photo, {{"f_nv", view}});
  check_row_numbers(op, photo, {{"index", index}});
  check_same_type(op, "f", photo, {{"f_nv", view}});
  return {.photo = apart(photo, bank),
          .view = dense(view),
          .index = dense(index),
          .bank = contiguous_rows(bank),
          .labels = dense(labels),
          .seed = seed.has_value() ? std::optional<Tensor>(dense(*seed)) : std::nullopt,
          .terms = batch > 0 ? new_empty(photo, {3}) : new_zeros(photo, {3}),
          .view_grad = new_empty(photo, {kept, 3, dim}),
          .photo_grad = new_empty(photo, {kept, dim})};
}

template <class T>
void place_gcl(Workspace& work, const NceParams<T>& p, GclParams<T>* q) {
  work.part(p.batch * p.dim, &q->unit_photo);
  work.part(p.batch * p.dim, &q->unit_view);
  work.part(p.batch, &q->photo_length);
  work.part(p.batch, &q->view_length);
  work.part(p.batch * 3, &q->positive);
  work.part(p.batch * 3, &q->dot);
}

// The contrast in the middle of a memory step: the unit view against the row that the index names.
template <class T>
std::pair<GclParams<T>, NceParams<T>> gcl_params(const char* op, GclTensors& t, const NceOptions& options, Workspace& work) {
  NceParams<T> p{};
  GclParams<T> q{};
  fill_bank(op, t.bank, t.labels, t.seed, options, &p);
  p.batch = t.photo.size(0);
  p.dim = t.photo.size(1);
  p.first = t.index.const_data_ptr<int64_t>();
  p.positives = p.first_stride = 1;
  place_contrast(work, options, &p);
  place_gcl(work, p, &q);
  work.allocate(t.photo);
  place_contrast(work, options, &p);
  place_gcl(work, p, &q);
  p.query = q.unit_view;
  p.positive = p.first;
  q.photo = t.photo.template const_data_ptr<T>();
  q.view = t.view.template const_data_ptr<T>();
  q.index = p.first;
  q.terms = t.terms.template mutable_data_ptr<T>();
  q.view_grad = t.view_grad.template mutable_data_ptr<T>();
  q.photo_grad = t.photo_grad.template mutable_data_ptr<T>();
  return {q, p};
}

// The bank moves towards the photos, brought to unit length, once they have been contrasted with it.
template <class T>
UpdateParams<T> gcl_move(GclTensors& t, const NceParams<T>& p, double momentum) {
  UpdateParams<T> u{};
  u.bank = t.bank.mutable_data_ptr();
  u.storage = p.storage;
  u.stride = p.stride;
  u.index = p.first;
  u.feature = t.photo.template const_data_ptr<T>();
  u.batch = p.batch;
  u.num_rows = p.num_rows;
  u.dim = p.dim;
  u.momentum = momentum;
  u.unit = true;
  return u;
}

struct UpdateTensors {
  Tensor bank, index, feature, similarity;
};

inline UpdateTensors update_tensors(const Tensor& bank, const Tensor& index, const Tensor& feature, double momentum) {
  const char* op = "bank_update_";
  check_shape(op, "feature", feature, {kAnySize, kAnySize});
  check_bank(op, feature, bank, feature.size(1));
  check_shape(op, "index", index, {feature.size(0)});
  check_row_numbers(op, feature, {{"index", index}});
  check_real(op, "feature", feature);
  STD_TORCH_CHECK(is_double(feature) || storage_of(op, bank) != Storage::float64, op, ": a float64 bank needs float64 features");
  check_moved_bank(op, bank, momentum);
  return {
      .bank = bank, .index = dense(index), .feature = apart(feature, bank), .similarity = new_empty(feature, {feature.size(0)})};
}

template <class T>
UpdateParams<T> update_params(UpdateTensors& t, double momentum, bool unit, bool hard) {
  UpdateParams<T> p{};
  p.bank = t.bank.mutable_data_ptr();
  p.storage = storage_of("bank_update_", t.bank);
  p.stride = row_stride(t.bank);
  p.index = t.index.const_data_ptr<int64_t>();
  p.feature = t.feature.template const_data_ptr<T>();
  p.batch = t.feature.size(0);
  p.num_rows = t.bank.size(0);
  p.dim = t.feature.size(1);
  p.momentum = momentum;
  p.unit = unit;
  p.hard = hard;
  p.similarity = t.similarity.template mutable_data_ptr<T>();
  return p;
}

}  // namespace gcl
