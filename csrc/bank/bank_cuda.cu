// CUDA backend of the bank ops: outputs and workspace, device guard, current stream, launches. Nothing waits for the GPU, seed
// and row numbers included: a row that is not there gives a NaN loss and no update.
#include "bank/bank_tensors.h"
#include "bank/gcl_kernels.cuh"
#include "bank/update_kernels.cuh"
#include "common/cuda_stream.h"
#include "common/tensor.h"

namespace gcl {
namespace {

int64_t processors(int32_t device) {
  int count = 0;
  check_cuda(cudaDeviceGetAttribute(&count, cudaDevAttrMultiProcessorCount, device), "cudaDeviceGetAttribute");
  return count;
}

NceOptions options_of(const char* op, const Tensor& query, const Tensor& bank, double temperature, int64_t count,
                      bool with_grad) {
  const int64_t batch = query.size(0), rows = bank.size(0), dim = query.size(1), most = processors(query.get_device_index());
  STD_TORCH_CHECK(dim <= kWidest, op, ": rows must have at most ", kWidest, " elements on CUDA, got ", dim);
  const int64_t chunks =
      is_double(query) ? SweepShape<double>(dim).chunks(batch, rows, most) : SweepShape<float>(dim).chunks(batch, rows, most);
  return {temperature, count, with_grad, chunks, count >= 0};
}

// Calls f(T{}, S{}) with the type computed in and the type stored.
template <class F>
void dispatch(const Tensor& real, Storage storage, F&& f) {
  with_storage(storage, [&](auto* none) {
    using S = std::remove_pointer_t<decltype(none)>;
    if (is_double(real)) f(double{}, S{});
    else if constexpr (!std::is_same_v<S, double>) f(float{}, S{});
  });
}

std::tuple<Tensor, Tensor, Tensor, Tensor> bank_nce_cuda(Tensor query, Tensor bank, Tensor labels, Tensor positive,
                                                         std::optional<Tensor> positive_query, double temperature,
                                                         int64_t num_negatives, Tensor seed, bool with_grad) {
  const char* op = "bank_nce";
  const CudaScope scope(query.get_device_index());
  const NceOptions options = options_of(op, query, bank, temperature, num_negatives, with_grad);
  NceTensors t = nce_tensors(op, query, bank, labels, positive, positive_query, seed, options);
  dispatch(query, storage_of(op, bank), [&](auto real, auto stored) {
    using T = decltype(real);
    launch_bank_nce<T, decltype(stored)>(nce_params<T>(op, t, options), scope.stream());
  });
  check_cuda(cudaGetLastError(), op);
  return {t.loss, t.mean, t.weight, t.rows};
}

std::tuple<Tensor, Tensor, Tensor> gcl_memory_loss_cuda(Tensor f, Tensor f_nv, Tensor bank, Tensor labels, Tensor index,
                                                        double temperature, int64_t num_negatives, Tensor seed, bool with_grad) {
  const char* op = "gcl_memory_loss";
  const CudaScope scope(f.get_device_index());
  GclTensors g = gcl_tensors(f, f_nv, index, with_grad);
  NceOptions options = options_of(op, f, bank, temperature, num_negatives, with_grad);
  options.rows = false;
  NceTensors t = nce_tensors(op, g.unit_view, bank, labels, g.positive, {}, seed, options);
  dispatch(f, storage_of(op, bank), [&](auto real, auto stored) {
    using T = decltype(real);
    const GclParams<T> q = gcl_params<T>(g);
    NceParams<T> p = nce_params<T>(op, t, options);
    p.last_query = q.unit_photo;
    p.rows = q.view_grad;
    launch_gcl<T, decltype(stored)>(q, p, scope.stream());
  });
  check_cuda(cudaGetLastError(), op);
  return {t.loss, g.view_grad, g.photo_grad};
}

Tensor draw_positives_cuda(Tensor labels, Tensor index, Tensor seed) {
  const char* op = "draw_positives";
  const CudaScope scope(index.get_device_index());
  check_shape(op, "labels", labels, {kAnySize});
  check_shape(op, "index", index, {kAnySize});
  check_integers(op, "labels", labels, index);
  check_integers(op, "index", index, index);
  check_integers(op, "seed", seed, index);
  STD_TORCH_CHECK(seed.numel() == 1, op, ": seed must hold one number");
  const Tensor label = torch::stable::contiguous(labels), row = torch::stable::contiguous(index);
  Tensor out = torch::stable::new_empty(index, {index.size(0), 2});
  if (index.size(0) > 0) {
    GCL_LAUNCH(draw_positives_kernel, index.size(0), kRowThreads, 0, scope.stream(), label.const_data_ptr<int64_t>(),
               labels.size(0), row.const_data_ptr<int64_t>(), seed.const_data_ptr<int64_t>(), out.mutable_data_ptr<int64_t>());
  }
  check_cuda(cudaGetLastError(), op);
  return out;
}

void bank_update_cuda(Tensor bank, Tensor index, Tensor feature, double momentum, bool unit, bool hard) {
  const CudaScope scope(bank.get_device_index());
  UpdateTensors t = update_tensors(bank, index, feature, momentum);
  dispatch(feature, storage_of("bank_update_", bank), [&](auto real, auto stored) {
    using T = decltype(real);
    launch_bank_update<T, decltype(stored)>(update_params<T>(t, momentum, unit, hard), scope.stream());
  });
  check_cuda(cudaGetLastError(), "bank_update_");
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(gcl_fast, CUDA, m) {
  m.impl("bank_nce", TORCH_BOX(&bank_nce_cuda));
  m.impl("gcl_memory_loss", TORCH_BOX(&gcl_memory_loss_cuda));
  m.impl("bank_draw_positives", TORCH_BOX(&draw_positives_cuda));
  m.impl("bank_update_", TORCH_BOX(&bank_update_cuda));
}

}  // namespace gcl
