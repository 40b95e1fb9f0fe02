// The entry point of bank_update_, once for both backends. A backend has update(params, like).
#pragma once

#include "bank/bank_tensors.h"

namespace gcl {

template <class Backend>
void bank_update(Tensor bank, Tensor index, Tensor feature, double momentum, bool unit, bool hard) {
  const char* op = "bank_update_";
  const Backend backend{bank};
  UpdateTensors t = update_tensors(bank, index, feature, momentum);
  check_rows(op, "index", t.index, bank.size(0));
  if (feature.size(0) == 0) return;
  dispatch_real(feature, [&](auto real) { backend.update(update_params<decltype(real)>(t, momentum, unit, hard), t.feature); });
  backend.finish(op);
}

template <class Backend, class Library>
void register_bank_update(Library& m) {
  m.impl("bank_update_", TORCH_BOX(&bank_update<Backend>));
}

}  // namespace gcl
