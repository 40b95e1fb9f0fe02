// CUDA backend of the bank ops: launches. Nothing waits for the GPU, seed and row numbers included: a row that is not there gives
// a NaN loss and no update.
#include "bank/bank_ops.h"
#include "bank/gcl_kernels.cuh"
#include "bank/update_ops.h"
#include "common/cuda_backend.h"

namespace gcl {
namespace {

int64_t attribute(cudaDeviceAttr which, int32_t device) {
  int value = 0;
  check_cuda(cudaDeviceGetAttribute(&value, which, device), "cudaDeviceGetAttribute");
  return value;
}

// Tensor cores where the GPU has those for tf32, the rows are aligned, and a block's rows fit its shared memory.
template <class S>
Sweep way_to_sweep(const Tensor& query, bool given, const Tensor& bank, int64_t shared_bytes, int32_t device) {
  constexpr int64_t kElements = 16 / sizeof(S), kStatic = 2048;
  const int64_t dim = query.size(1);
  const bool fits = attribute(cudaDevAttrComputeCapabilityMajor, device) >= 8 && dim > 0 && dim <= kMmaWidest &&
                    whole_rows<S>(bank.const_data_ptr(), row_stride(bank), dim, kElements) && bank.stride(1) == 1 &&
                    (!given || whole_rows<float>(query.const_data_ptr(), dim, dim, 4));
  if (fits && mma_shared_bytes<S>(dim, true) + kStatic <= shared_bytes) return Sweep::tensor_cores;
  if (fits && mma_shared_bytes<S>(dim, false) + kStatic <= shared_bytes) return Sweep::tensor_cores_cached;
  return Sweep::fused;
}

struct BankCuda : CudaBackend {
  NceOptions options(const char* op, const Tensor& query, bool given, const Tensor& bank, double temperature, int64_t count,
                     bool with_grad) const {
    check_shape(op, "query", query, {kAnySize, kAnySize});
    check_bank(op, query, bank, query.size(1));
    const int32_t device = query.get_device_index();
    const int64_t batch = query.size(0), rows = bank.size(0), dim = query.size(1);
    const int64_t most = attribute(cudaDevAttrMultiProcessorCount, device);
    STD_TORCH_CHECK(dim <= kWidest, op, ": rows must have at most ", kWidest, " elements on CUDA, got ", dim);
    NceOptions made{.temperature = temperature,
                    .count = count,
                    .with_grad = with_grad,
                    .chunks = SweepShape<float>(dim).chunks(batch, rows, most),
                    .on_gpu = true,
                    .splits = count >= 0 ? select_splits(batch, rows, most) : 1};
    if (is_double(query)) made.chunks = SweepShape<double>(dim).chunks(batch, rows, most);
    else if (bank.numel() > 0) {
      const int64_t bytes = attribute(cudaDevAttrMaxSharedMemoryPerBlockOptin, device);
      with_storage(storage_of(op, bank), [&](auto* none) {
        using S = std::remove_pointer_t<decltype(none)>;
        if constexpr (sizeof(S) <= 4) {
          made.sweep = way_to_sweep<S>(query, given, bank, bytes, device);
          const bool shared = made.sweep == Sweep::tensor_cores;
          if (made.sweep != Sweep::fused) made.chunks = mma_chunks<S>(batch, rows, dim, most, bytes, shared);
        }
      });
    }
    return made;
  }

  void contrast(const char* op, NceTensors& t, const NceOptions& options) const {
    dispatch_real_storage(t.query, storage_of(op, t.bank), [&](auto real, auto stored) {
      using T = decltype(real);
      Workspace work;
      launch_bank_nce<T, decltype(stored)>(nce_params<T>(op, t, options, work), stream());
    });
  }

  void gcl(const char* op, GclTensors& t, const NceOptions& options, std::optional<double> momentum) const {
    dispatch_real_storage(t.photo, storage_of(op, t.bank), [&](auto real, auto stored) {
      using T = decltype(real);
      Workspace work;
      const auto [q, p] = gcl_params<T>(op, t, options, work);
      launch_gcl<T, decltype(stored)>(q, p, momentum.has_value() ? gcl_move(t, p, *momentum) : UpdateParams<T>{}, stream());
    });
  }

  template <class T>
  void backward(const GclBackwardParams<T>& p) const {
    launch_gcl_backward(p, stream());
  }

  void draw(const int64_t* labels, int64_t num_rows, const int64_t* index, int64_t batch, const int64_t* seed,
            int64_t* out) const {
    GCL_LAUNCH(draw_positives_kernel, batch, kRowThreads, 0, stream(), labels, num_rows, index, seed, out);
  }

  template <class T>
  void update(const UpdateParams<T>& p, const Tensor& like) const {
    dispatch_real_storage(like, p.storage, [&](auto real, auto stored) {
      if constexpr (std::is_same_v<decltype(real), T>) launch_bank_update<T, decltype(stored)>(p, stream());
    });
  }
};

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(gcl_fast, CUDA, m) {
  register_bank<BankCuda>(m);
  register_bank_update<BankCuda>(m);
}

}  // namespace gcl
