// From tensors to the parameter structs of the bank ops: checks, contiguous inputs, outputs. Shared by the two backends.
#pragma once

#include <optional>

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

struct NceTensors {
  Tensor query, bank, labels, positive, seed;
  std::optional<Tensor> positive_query;
  Tensor loss, mean, weight, rows;
  Tensor last, digits, part_max, part_sum, part_mean;  // workspace
};

struct NceOptions {
  double temperature;
  int64_t count;
  bool with_grad;
  int64_t chunks;
  bool digits = false;  // the GPU's workspace of the selection
  bool rows = true;  // false: the positive rows have another place
};

// `query` may be a result that is filled later; outputs and workspace are made here.
inline NceTensors nce_tensors(const char* op, const Tensor& query, const Tensor& bank, const Tensor& labels,
                              const Tensor& positive, const std::optional<Tensor>& positive_query, const Tensor& seed,
                              const NceOptions& options) {
  check_shape(op, "query", query, {kAnySize, kAnySize});
  check_real(op, "query", query);
  const int64_t batch = query.size(0), dim = query.size(1);
  check_bank(op, query, bank, dim);
  STD_TORCH_CHECK(is_double(query) || storage_of(op, bank) != Storage::float64, op, ": a float64 bank needs a float64 query");
  check_shape(op, "labels", labels, {bank.size(0)});
  check_shape(op, "positive", positive, {batch, kAnySize});
  STD_TORCH_CHECK(seed.numel() == 1, op, ": seed must hold one number");
  check_row_numbers(op, query, {{"labels", labels}, {"positive", positive}, {"seed", seed}});
  STD_TORCH_CHECK(options.temperature > 0, op, ": temperature must be above 0, got ", options.temperature);
  STD_TORCH_CHECK(positive.size(1) > 0, op, ": positive must hold at least one row per query");
  const int64_t positives = positive.size(1), kept = options.with_grad ? batch : 0;
  std::optional<Tensor> positive_queries;
  if (positive_query.has_value()) {
    check_shape(op, "positive_query", *positive_query, {batch, positives, dim});
    check_same_device(op, query, {{"positive_query", *positive_query}});
    check_same_type(op, "query", query, {{"positive_query", *positive_query}});
    positive_queries = contiguous(*positive_query);
  }
  const bool folded = positives == 1 && !positive_queries.has_value();
  const int64_t part_dim = options.with_grad ? padded_dim(dim) : 0;
  return {.query = contiguous(query),
          .bank = contiguous_rows(bank),
          .labels = contiguous(labels),
          .positive = contiguous(positive),
          .seed = contiguous(seed),
          .positive_query = positive_queries,
          .loss = new_empty(query, {batch, positives}),
          .mean = new_empty(query, {kept, dim}),
          .weight = new_empty(query, {kept, positives}),
          .rows = new_empty(query, {options.rows ? kept : 0, folded ? 0 : positives, dim}),
          .last = new_empty(query, {batch}, ScalarType::Int),
          .digits = new_zeros(query, {options.digits ? batch : 0, 4, 256}, ScalarType::Int),
          .part_max = new_empty(query, {options.chunks, batch}),
          .part_sum = new_empty(query, {options.chunks, batch}, ScalarType::Double),
          .part_mean = new_empty(query, {options.chunks, batch, part_dim})};
}

template <class T>
NceParams<T> nce_params(const char* op, NceTensors& t, const NceOptions& options) {
  NceParams<T> p{};
  p.query = t.query.template const_data_ptr<T>();
  p.positive_query = t.positive_query.has_value() ? t.positive_query->template const_data_ptr<T>() : nullptr;
  p.bank = t.bank.const_data_ptr();
  p.storage = storage_of(op, t.bank);
  p.stride = row_stride(t.bank);
  p.labels = t.labels.const_data_ptr<int64_t>();
  p.positive = t.positive.const_data_ptr<int64_t>();
  p.seed = t.seed.const_data_ptr<int64_t>();
  p.batch = t.query.size(0);
  p.positives = t.positive.size(1);
  p.num_rows = t.bank.size(0);
  p.dim = t.query.size(1);
  p.count = options.count;
  p.temperature = static_cast<T>(options.temperature);
  p.with_grad = options.with_grad;
  p.folded = options.with_grad && p.positives == 1 && p.positive_query == nullptr;
  p.last = reinterpret_cast<uint32_t*>(t.last.mutable_data_ptr<int32_t>());
  p.digits = reinterpret_cast<uint32_t*>(t.digits.mutable_data_ptr<int32_t>());
  p.chunks = options.chunks;
  p.part_max = t.part_max.template mutable_data_ptr<T>();
  p.part_sum = t.part_sum.mutable_data_ptr<double>();
  p.part_mean = t.part_mean.template mutable_data_ptr<T>();
  p.loss = t.loss.template mutable_data_ptr<T>();
  p.mean = t.mean.template mutable_data_ptr<T>();
  p.weight = t.weight.template mutable_data_ptr<T>();
  p.rows = t.rows.template mutable_data_ptr<T>();
  return p;
}

struct GclTensors {
  Tensor photo, view, index;
  Tensor unit_photo, unit_view, photo_length, view_length, positive;  // workspace
  Tensor view_grad, photo_grad;
};

inline GclTensors gcl_tensors(const Tensor& photo, const Tensor& view, const Tensor& index, bool with_grad) {
  const char* op = "gcl_memory_loss";
  check_shape(op, "f", photo, {kAnySize, kAnySize});
  const int64_t batch = photo.size(0), dim = photo.size(1), kept = with_grad ? batch : 0;
  check_shape(op, "f_nv", view, {batch, dim});
  check_shape(op, "index", index, {batch});
  check_same_device(op, photo, {{"f_nv", view}});
  check_row_numbers(op, photo, {{"index", index}});
  check_real(op, "f", photo);
  check_same_type(op, "f", photo, {{"f_nv", view}});
  return {.photo = contiguous(photo),
          .view = contiguous(view),
          .index = contiguous(index),
          .unit_photo = new_empty(photo, {batch, dim}),
          .unit_view = new_empty(photo, {batch, dim}),
          .photo_length = new_empty(photo, {batch}),
          .view_length = new_empty(photo, {batch}),
          .positive = new_empty(photo, {batch, 3}, ScalarType::Long),
          .view_grad = new_empty(photo, {kept, 3, dim}),
          .photo_grad = new_empty(photo, {kept, dim})};
}

template <class T>
GclParams<T> gcl_params(GclTensors& t) {
  GclParams<T> p{};
  p.photo = t.photo.template const_data_ptr<T>();
  p.view = t.view.template const_data_ptr<T>();
  p.index = t.index.const_data_ptr<int64_t>();
  p.unit_photo = t.unit_photo.template mutable_data_ptr<T>();
  p.unit_view = t.unit_view.template mutable_data_ptr<T>();
  p.photo_length = t.photo_length.template mutable_data_ptr<T>();
  p.view_length = t.view_length.template mutable_data_ptr<T>();
  p.positive = t.positive.mutable_data_ptr<int64_t>();
  p.view_grad = t.view_grad.template mutable_data_ptr<T>();
  p.photo_grad = t.photo_grad.template mutable_data_ptr<T>();
  return p;
}

// The contrast in the middle of gcl_memory_loss: the photo takes the last positive term, the rows go where their gradients will.
template <class T>
NceParams<T> gcl_nce_params(const GclParams<T>& q, NceTensors& t, const NceOptions& options) {
  NceParams<T> p = nce_params<T>("gcl_memory_loss", t, options);
  p.last_query = q.unit_photo;
  p.rows = q.view_grad;
  return p;
}

struct UpdateTensors {
  Tensor bank, index, feature, similarity;
};

// The bank is written where it lies: its rows must be contiguous already.
inline UpdateTensors update_tensors(const Tensor& bank, const Tensor& index, const Tensor& feature, double momentum) {
  const char* op = "bank_update_";
  check_shape(op, "feature", feature, {kAnySize, kAnySize});
  check_bank(op, feature, bank, feature.size(1));
  check_shape(op, "index", index, {feature.size(0)});
  check_row_numbers(op, feature, {{"index", index}});
  check_real(op, "feature", feature);
  STD_TORCH_CHECK(is_double(feature) || storage_of(op, bank) != Storage::float64, op, ": a float64 bank needs float64 features");
  STD_TORCH_CHECK(bank.size(1) <= 1 || bank.size(0) == 0 || bank.stride(1) == 1, op, ": bank must have contiguous rows");
  STD_TORCH_CHECK(momentum >= 0 && momentum <= 1, op, ": momentum must be in [0, 1], got ", momentum);
  return {.bank = bank,
          .index = contiguous(index),
          .feature = contiguous(feature),
          .similarity = new_empty(feature, {feature.size(0)})};
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
