// The schema of every op, in one place. Each backend registers its kernel beside its code; fakes and autograd are in Python.
#include <torch/csrc/stable/library.h>

STABLE_TORCH_LIBRARY(gcl_fast, m) {
  m.def(
      "rasterize(Tensor verts, Tensor faces, int height, int width, bool cull_backfaces)"
      " -> (Tensor bary, Tensor depth, Tensor face_id)");
  m.def(
      "rasterize_backward(Tensor grad_bary, Tensor grad_depth, Tensor verts, Tensor faces, Tensor face_id,"
      " Tensor corner_order, Tensor corner_begin) -> Tensor");
  m.def("interpolate(Tensor attributes, Tensor faces, Tensor face_id, Tensor bary) -> Tensor");
  m.def(
      "interpolate_backward(Tensor grad_out, Tensor attributes, Tensor faces, Tensor face_id, Tensor bary, Tensor entry_order,"
      " Tensor entry_begin, bool need_attributes, bool need_bary) -> (Tensor grad_attributes, Tensor grad_bary)");
  m.def(
      "mesh_flow(Tensor src_verts, Tensor faces, Tensor dst_face_id, Tensor dst_bary, Tensor src_face_id, Tensor src_depth)"
      " -> (Tensor grid, Tensor visibility)");
  m.def(
      "mesh_warp(Tensor image, Tensor src_verts, Tensor faces, Tensor dst_face_id, Tensor dst_bary, Tensor src_face_id,"
      " Tensor src_depth, float fill, bool keep_source) -> (Tensor warped, Tensor source, Tensor visibility)");
  m.def(
      "mesh_warp_backward(Tensor grad_warped, Tensor source, Tensor visibility, Tensor pixel_order, Tensor cell_begin)"
      " -> Tensor");
}
