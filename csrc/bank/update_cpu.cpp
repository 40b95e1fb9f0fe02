// CPU backend of bank_update_.
#include "bank/update_ops.h"
#include "bank/update_rows.h"

namespace gcl {
namespace {

struct BankUpdateCpu : CpuBackend {
  template <class T>
  void update(const UpdateParams<T>& p, const Tensor& like) const {
    move_rows(p, like);
  }
};

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(gcl_fast, CPU, m) { register_bank_update<BankUpdateCpu>(m); }

}  // namespace gcl
