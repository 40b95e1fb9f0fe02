// CUDA backend of interpolate: outputs, device guard, current stream, launches. It never waits for the GPU.
#include <tuple>

#include "common/cuda_stream.h"
#include "common/tensor.h"
#include "interpolate/interpolate_kernels.cuh"
#include "interpolate/interpolate_tensors.h"

namespace gcl {
namespace {

Tensor interpolate_cuda(Tensor attributes, Tensor faces, Tensor face_id, Tensor bary) {
  const CudaScope scope(attributes.get_device_index());
  const InterpolateTensors t = interpolate_inputs("interpolate", attributes, faces, face_id, bary);
  Tensor out = interpolate_output(t);
  const auto launch = [&](auto real) {
    using T = decltype(real);
    auto p = interpolate_params<T>(t);
    p.out = out.mutable_data_ptr<T>();
    launch_interpolate(p, scope.stream());
  };
  is_float(attributes) ? launch(float{}) : launch(double{});
  check_cuda(cudaGetLastError(), "interpolate");
  return out;
}

std::tuple<Tensor, Tensor> interpolate_backward_cuda(Tensor grad_out, Tensor attributes, Tensor faces, Tensor face_id,
                                                     Tensor bary, Tensor entry_order, Tensor entry_begin, bool need_attributes,
                                                     bool need_bary) {
  const CudaScope scope(attributes.get_device_index());
  InterpolateBackwardTensors t = interpolate_backward_tensors(grad_out, attributes, faces, face_id, bary, entry_order,
                                                              entry_begin, need_attributes, need_bary);
  if (is_float(attributes)) {
    launch_interpolate_backward(interpolate_backward_params<float>(t), scope.stream());
  } else {
    launch_interpolate_backward(interpolate_backward_params<double>(t), scope.stream());
  }
  check_cuda(cudaGetLastError(), "interpolate_backward");
  return {t.grad_attributes, t.grad_bary};
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(gcl_fast, CUDA, m) {
  m.impl("interpolate", TORCH_BOX(&interpolate_cuda));
  m.impl("interpolate_backward", TORCH_BOX(&interpolate_backward_cuda));
}

}  // namespace gcl
