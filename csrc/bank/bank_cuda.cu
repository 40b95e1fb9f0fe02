// CUDA backend of the bank ops: launches. Nothing waits for the GPU, seed and row numbers included: a row that is not there gives
// a NaN loss and no update.
#include "bank/bank_ops.h"
#include "bank/gcl_kernels.cuh"
#include "bank/update_kernels.cuh"
#include "bank/update_ops.h"
#include "common/cuda_backend.h"

namespace gcl {
namespace {

int64_t processors(int32_t device) {
  int count = 0;
  check_cuda(cudaDeviceGetAttribute(&count, cudaDevAttrMultiProcessorCount, device), "cudaDeviceGetAttribute");
  return count;
}

struct BankCuda : CudaBackend {
  NceOptions options(const char* op, const Tensor& query, const Tensor& bank, double temperature, int64_t count,
                     bool with_grad) const {
    const int64_t batch = query.size(0), rows = bank.size(0), dim = query.size(1), most = processors(query.get_device_index());
    STD_TORCH_CHECK(dim <= kWidest, op, ": rows must have at most ", kWidest, " elements on CUDA, got ", dim);
    const int64_t chunks =
        is_double(query) ? SweepShape<double>(dim).chunks(batch, rows, most) : SweepShape<float>(dim).chunks(batch, rows, most);
    return {.temperature = temperature, .count = count, .with_grad = with_grad, .chunks = chunks, .digits = count >= 0};
  }

  void contrast(const char* op, NceTensors& t, const NceOptions& options) const {
    dispatch_real_storage(t.query, storage_of(op, t.bank), [&](auto real, auto stored) {
      using T = decltype(real);
      launch_bank_nce<T, decltype(stored)>(nce_params<T>(op, t, options), stream());
    });
  }

  void gcl(GclTensors& g, NceTensors& t, const NceOptions& options) const {
    dispatch_real_storage(t.query, storage_of("gcl_memory_loss", t.bank), [&](auto real, auto stored) {
      using T = decltype(real);
      const GclParams<T> q = gcl_params<T>(g);
      launch_gcl<T, decltype(stored)>(q, gcl_nce_params(q, t, options), stream());
    });
  }

  void draw(const int64_t* labels, int64_t num_rows, const int64_t* index, int64_t batch, const int64_t* seed,
            int64_t* out) const {
    GCL_LAUNCH(draw_positives_kernel, batch, kRowThreads, 0, stream(), labels, num_rows, index, seed, out);
  }

  template <class S, class T>
  void update(const UpdateParams<T>& p, const Tensor&) const {
    launch_bank_update<T, S>(p, stream());
  }
};

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(gcl_fast, CUDA, m) {
  register_bank<BankCuda>(m);
  register_bank_update<BankCuda>(m);
}

}  // namespace gcl
