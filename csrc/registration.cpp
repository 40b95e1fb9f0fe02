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
  m.def(
      "bank_nce(Tensor query, Tensor bank, Tensor labels, Tensor positive, Tensor? positive_query, float temperature,"
      " int num_negatives, Tensor seed, bool with_grad) -> (Tensor loss, Tensor mean, Tensor weight, Tensor rows)");
  m.def(
      "gcl_memory_loss(Tensor f, Tensor f_nv, Tensor bank, Tensor labels, Tensor index, float temperature,"
      " int num_negatives, Tensor seed, bool with_grad) -> (Tensor loss, Tensor view_grad, Tensor photo_grad)");
  m.def("bank_draw_positives(Tensor labels, Tensor index, Tensor seed) -> Tensor");
  m.def("bank_update_(Tensor(a!) bank, Tensor index, Tensor feature, float momentum, bool unit, bool hard) -> ()");
}
