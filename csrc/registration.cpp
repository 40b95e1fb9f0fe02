// The schema of every op, in one place. Each backend registers its kernel beside its code; fakes and autograd are in Python.
#include <torch/csrc/stable/library.h>

STABLE_TORCH_LIBRARY(gcl_fast, m) {
  m.def(
      "rasterize(Tensor verts, Tensor faces, int height, int width, bool cull_backfaces, int method=0)"
      " -> (Tensor bary, Tensor depth, Tensor face_id)");
  m.def(
      "rasterize_backward(Tensor grad_bary, Tensor grad_depth, Tensor verts, Tensor faces, Tensor face_id,"
      " Tensor corner_order, Tensor corner_begin) -> Tensor");
  m.def("render_mesh(Tensor verts, Tensor faces, Tensor camera, Tensor turns, int height, int width, int method=0) -> Tensor");
  m.def(
      "ranking_scores(Tensor distances, Tensor query_pids, Tensor gallery_pids, Tensor query_camids, Tensor gallery_camids,"
      " Tensor order, Tensor begin, Tensor end) -> (Tensor precision, Tensor places)");
  m.def(
      "bank_nce(Tensor query, Tensor bank, Tensor labels, Tensor positive, Tensor? positive_query, float temperature,"
      " int num_negatives, Tensor seed, bool with_grad) -> (Tensor loss, Tensor mean, Tensor weight, Tensor rows)");
  m.def(
      "gcl_memory_loss(Tensor f, Tensor f_nv, Tensor bank, Tensor labels, Tensor index, float temperature,"
      " int num_negatives, Tensor seed, bool with_grad) -> (Tensor terms, Tensor view_grad, Tensor photo_grad)");
  m.def(
      "gcl_memory_step_(Tensor f, Tensor f_nv, Tensor(a!) bank, Tensor labels, Tensor index, float temperature,"
      " int num_negatives, Tensor? seed, int seed_value, bool with_grad, float? momentum)"
      " -> (Tensor terms, Tensor view_grad, Tensor photo_grad)");
  m.def("gcl_memory_backward(Tensor grad, Tensor view_grad, Tensor photo_grad) -> (Tensor photo, Tensor view)");
  m.def("cross_entropy_rows_(Tensor(a!) logits, Tensor targets, float temperature, bool with_grad) -> Tensor");
  m.def("bank_draw_positives(Tensor labels, Tensor index, Tensor seed) -> Tensor");
  m.def("bank_update_(Tensor(a!) bank, Tensor index, Tensor feature, float momentum, bool unit, bool hard) -> ()");
  // Neighbours. Sizes that depend on the data are counted by one op and given to the next.
  m.def(
      "knn_update_(Tensor block, Tensor rows, int first_row, int first_column, Tensor penalty, Tensor original,"
      " Tensor copy_start, Tensor copies, Tensor(a!) value, Tensor(b!) index) -> ()");
  m.def("halve_rows(Tensor x, Tensor mean, bool bfloat16) -> (Tensor half, Tensor common, Tensor length, Tensor lost)");
  m.def("candidate_products(Tensor x, Tensor rows, Tensor index, Tensor score, Tensor bound, int k) -> Tensor");
  m.def(
      "best_candidates(Tensor index, Tensor product, Tensor score, Tensor offset, Tensor bound, bool whole, int k)"
      " -> (Tensor value, Tensor neighbour, Tensor unsure)");
  m.def("neighbor_faults(Tensor index, Tensor features) -> Tensor");
  m.def("graph_faults(Tensor indptr, Tensor indices, Tensor values) -> Tensor");
  m.def(
      "pack_rows(Tensor starts, Tensor indptr, Tensor indices, Tensor values, SymInt total) -> (Tensor indices, Tensor values)");
  m.def("reciprocal_sets(Tensor rank, int half_width) -> (Tensor near, Tensor num_near, Tensor close, Tensor num_close)");
  m.def("expansion_count(Tensor near, Tensor num_near, Tensor close, Tensor num_close) -> (Tensor accepted, Tensor count)");
  m.def(
      "expansion_weights(Tensor near, Tensor num_near, Tensor close, Tensor num_close, Tensor accepted, Tensor rank,"
      " Tensor similarity, Tensor features, Tensor start, SymInt total, bool finished=True) -> (Tensor columns, Tensor values)");
  m.def("row_products(Tensor left, Tensor right, Tensor row, Tensor column) -> Tensor");
  m.def("softmax_rows_(Tensor start, Tensor(a!) values) -> ()");
  m.def("mean_rows_count(Tensor start, Tensor columns, Tensor values, Tensor rank, int group) -> Tensor");
  m.def(
      "mean_rows(Tensor start, Tensor columns, Tensor values, Tensor rank, int group, Tensor out_start, SymInt total)"
      " -> (Tensor columns, Tensor values)");
  m.def("transpose_rows(Tensor start, Tensor columns, Tensor values) -> (Tensor start, Tensor rows, Tensor values)");
  m.def(
      "overlap_room(Tensor start, Tensor columns, Tensor values, Tensor holder_start, int first, int last, int step,"
      " float max_distance) -> Tensor");
  m.def(
      "overlap_rows(Tensor start, Tensor columns, Tensor values, Tensor holder_start, Tensor holder_rows,"
      " Tensor holder_values, int first, int last, int step, float max_distance, Tensor room, SymInt total)"
      " -> (Tensor count, Tensor indices, Tensor distance)");
  m.def(
      "overlap_upper_rows(Tensor start, Tensor columns, Tensor values, Tensor holder_start, Tensor holder_rows,"
      " Tensor holder_values, int first, int last, int step, float max_distance, Tensor room, SymInt total)"
      " -> (Tensor count, Tensor indices, Tensor distance)");
  m.def("mirrored_count(Tensor start, Tensor columns, Tensor values) -> Tensor");
  m.def(
      "mirrored_rows(Tensor start, Tensor columns, Tensor values, Tensor out_start, SymInt total)"
      " -> (Tensor columns, Tensor values)");
  m.def("dbscan_roots(Tensor indptr, Tensor indices, Tensor values, float eps, int min_samples) -> Tensor");
  m.def("dbscan_labels(Tensor indptr, Tensor indices, Tensor values, float eps, Tensor core_label) -> Tensor");
  m.def("mutual_walk(Tensor bank, Tensor index, Tensor order, Tensor near, Tensor reach) -> Tensor");
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
  m.def("reflect_pad(Tensor x, int pad) -> Tensor");
  m.def("reflect_pad_backward(Tensor grad, int pad) -> Tensor");
}
