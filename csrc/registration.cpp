// The schema of every op, in one place. Each backend registers its kernel beside its code; fakes and autograd are in Python.
#include <torch/csrc/stable/library.h>

STABLE_TORCH_LIBRARY(gcl_fast, m) {
  m.def(
      "rasterize(Tensor verts, Tensor faces, int height, int width, bool cull_backfaces)"
      " -> (Tensor bary, Tensor depth, Tensor face_id)");
  m.def(
      "rasterize_backward(Tensor grad_bary, Tensor grad_depth, Tensor verts, Tensor faces, Tensor face_id,"
      " Tensor corner_order, Tensor corner_begin) -> Tensor");
  m.def(
      "ranking_scores(Tensor distances, Tensor query_pids, Tensor gallery_pids, Tensor query_camids, Tensor gallery_camids,"
      " Tensor order, Tensor begin, Tensor end) -> (Tensor precision, Tensor places)");
}
