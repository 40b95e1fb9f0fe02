// Runs the CUDA kernels of knn, the Jaccard distance and DBSCAN, with the launches that the GPU gets.
#include "case_io.h"
#include "neighbors/candidates_kernels.cuh"
#include "neighbors/dbscan_kernels.cuh"
#include "neighbors/faults_kernels.cuh"
#include "neighbors/jaccard_kernels.cuh"
#include "neighbors/knn_kernels.cuh"
#include "neighbors/overlap_kernels.cuh"
#include "neighbors/walk_kernels.cuh"

namespace {

using simt::Case;

template <class T>
const T* if_any(Case& c, const char* name) {
  return c.size(name, 0) == 0 ? nullptr : c.input<T>(name);
}

// One update; by_columns: the block is given as its columns.
template <class T>
void knn(Case& c) {
  gcl::KnnParams<T> p{};
  p.block = c.input<T>("block");
  const bool by_columns = c.integer("by_columns") != 0;
  p.height = c.size("block", by_columns ? 1 : 0), p.width = c.size("block", by_columns ? 0 : 1);
  p.row_stride = by_columns ? 1 : p.width, p.column_stride = by_columns ? p.height : 1;
  p.rows = if_any<int64_t>(c, "rows");
  p.first_row = c.integer("first_row"), p.first_column = c.integer("first_column");
  p.penalty = if_any<T>(c, "penalty");
  p.original = if_any<int64_t>(c, "original");
  p.copy_start = if_any<int64_t>(c, "copy_start");
  p.copies = if_any<int64_t>(c, "copies");
  p.k = c.size("value0", 1);
  p.value = c.output<T>("value", {p.height, p.k});
  p.index = c.output<int64_t>("index", {p.height, p.k});
  std::copy_n(c.input<T>("value0"), p.height * p.k, p.value);
  std::copy_n(c.input<int64_t>("index0"), p.height * p.k, p.index);
  gcl::launch_knn_update(p, GclStream{});
}

template <class B>
void halves(Case& c) {
  gcl::HalvesParams<B> p{};
  p.x = c.input<float>("x"), p.mean = c.input<float>("mean");
  p.rows = c.size("x", 0), p.dim = c.size("x", 1);
  p.half = reinterpret_cast<B*>(c.output<uint8_t>("half", {p.rows, 2 * p.dim}));  // as bytes
  p.common = c.output<float>("common", {p.rows});
  p.length = c.output<float>("length", {p.rows});
  p.lost = c.output<float>("lost", {p.rows});
  gcl::launch_halve_rows(p, GclStream{});
}

void candidates(Case& c) {
  gcl::CandidateParams p{};
  p.x = c.input<float>("x");
  p.rows = if_any<int64_t>(c, "rows");
  p.index = c.input<int64_t>("index");
  p.score = c.input<float>("score"), p.bound = c.input<float>("bound");
  p.total = c.size("x", 0), p.dim = c.size("x", 1);
  p.count = c.size("index", 0), p.width = c.size("index", 1);
  p.k = c.integer("k");
  p.product = c.output<float>("product", {p.count, p.width});
  gcl::launch_candidate_products(p, GclStream{});
  gcl::BestParams best{};
  best.index = p.index, best.product = p.product, best.score = p.score, best.bound = p.bound;
  best.offset = c.input<float>("offset");
  best.count = p.count, best.width = p.width, best.k = p.k;
  best.whole = c.integer("whole") != 0;
  best.value = c.output<float>("value", {p.count, p.k});
  best.neighbour = c.output<int64_t>("neighbour", {p.count, p.k});
  best.unsure = reinterpret_cast<bool*>(c.output<uint8_t>("unsure", {p.count}));
  gcl::launch_best_candidates(best, GclStream{});
}

template <class T>
void neighbor_faults(Case& c) {
  gcl::NeighborFaultParams<int64_t, T> p{};
  p.index = c.input<int64_t>("index");
  p.rows = c.size("index", 0), p.width = c.size("index", 1);
  p.features = c.input<T>("features");
  p.numbers = c.size("features", 0);
  p.faults = reinterpret_cast<uint32_t*>(c.output<int32_t>("faults", {1}));
  *p.faults = 0;
  gcl::launch_neighbor_faults(p, GclStream{});
}

template <class T>
void graph_faults(Case& c) {
  gcl::GraphFaultParams<int32_t, T> p{};
  p.indptr = c.input<int64_t>("indptr");
  p.indices = c.input<int32_t>("indices");
  p.values = c.input<T>("values");
  p.rows = c.size("indptr", 0) - 1, p.entries = c.size("indices", 0);
  p.faults = reinterpret_cast<uint32_t*>(c.output<int32_t>("faults", {1}));
  *p.faults = 0;
  gcl::launch_graph_faults(p, GclStream{});
}

template <class T>
void pack(Case& c) {
  gcl::PackParams<T> p{};
  p.starts = c.input<int64_t>("starts"), p.indptr = c.input<int64_t>("indptr");
  p.indices = c.input<int32_t>("indices");
  p.values = c.input<T>("values");
  p.rows = c.size("starts", 0) - 1;
  p.out_indices = c.output<int32_t>("out_indices", {p.indptr[p.rows]});
  p.out_values = c.output<T>("out_values", {p.indptr[p.rows]});
  gcl::launch_pack_rows(p, GclStream{});
}

void sets(Case& c) {
  gcl::ReciprocalParams p{};
  p.rank = c.input<int32_t>("rank");
  p.rows = c.size("rank", 0), p.width = c.size("rank", 1), p.half_width = c.integer("half_width");
  p.near = c.output<int32_t>("near", {p.rows, p.width});
  p.num_near = c.output<int32_t>("num_near", {p.rows});
  p.close = c.output<int32_t>("close", {p.rows, p.half_width});
  p.num_close = c.output<int32_t>("num_close", {p.rows});
  gcl::launch_reciprocal(p, GclStream{});
}

template <class T>
gcl::ExpansionParams<T> expansion(Case& c) {
  gcl::ExpansionParams<T> p{};
  p.near = c.input<int32_t>("near");
  p.num_near = c.input<int32_t>("num_near");
  p.close = c.input<int32_t>("close");
  p.num_close = c.input<int32_t>("num_close");
  p.rows = c.size("near", 0), p.width = c.size("near", 1), p.half_width = c.size("close", 1);
  p.at = c.workspace<int32_t>({p.rows, p.width});
  return p;
}

void expansion_count(Case& c) {
  auto p = expansion<float>(c);
  p.accepted = c.output<uint8_t>("accepted", {p.rows, p.width});
  p.count = c.output<int64_t>("count", {p.rows});
  gcl::launch_expansion_count(p, GclStream{});
}

template <class T>
void expansion_weights(Case& c) {
  auto p = expansion<T>(c);
  p.accepted = const_cast<uint8_t*>(c.input<uint8_t>("accepted"));
  p.rank = c.input<int32_t>("rank");
  p.similarity = if_any<T>(c, "similarity");
  p.features = if_any<T>(c, "features");
  p.dim = p.features == nullptr ? 0 : c.size("features", 1);
  p.start = c.input<int64_t>("start");
  p.total = c.integer("total");
  p.finished = c.integer("finished") != 0;
  p.columns = c.output<int32_t>("columns", {p.total});
  p.values = c.output<T>("values", {p.total});
  gcl::launch_expansion_weights(p, GclStream{});
}

template <class T>
void products(Case& c) {
  gcl::ProductParams<T> p{};
  p.left = c.input<T>("left"), p.right = c.input<T>("right");
  p.dim = c.size("left", 1);
  p.row = c.input<int64_t>("row"), p.column = c.input<int64_t>("column");
  p.pairs = c.size("row", 0);
  p.product = c.output<T>("product", {p.pairs});
  gcl::launch_products(p, GclStream{});
}

// A matrix in compressed rows, of as many rows as `start` says.
template <class T, class Params>
void read_matrix(Case& c, Params* p) {
  p->start = c.input<int64_t>("start");
  p->columns = c.input<int32_t>("columns");
  p->values = c.input<T>("values");
  p->rows = c.size("start", 0) - 1;
}

template <class T>
void mean(Case& c) {
  gcl::MeanParams<T> p{};
  read_matrix<T>(c, &p);
  p.rank = c.input<int32_t>("rank");
  p.width = c.size("rank", 1), p.group = c.integer("group");
  p.at = c.workspace<int64_t>({p.rows, p.group});
  p.count = c.output<int64_t>("count", {p.rows});
  gcl::launch_mean_count(p, GclStream{});
  p.out_start = c.input<int64_t>("out_start");
  const int64_t total = c.integer("total");
  p.out_columns = c.output<int32_t>("out_columns", {total});
  p.out_values = c.output<T>("out_values", {total});
  gcl::launch_mean(p, GclStream{});
}

template <class T>
void overlap(Case& c) {
  gcl::OverlapParams<T> p{};
  read_matrix<T>(c, &p);
  p.holder_start = c.input<int64_t>("holder_start");
  p.holder_rows = c.input<int32_t>("holder_rows");
  p.holder_values = c.input<T>("holder_values");
  p.first = c.integer("first"), p.step = c.integer("step"), p.results = c.integer("results");
  p.max_distance = *c.input<double>("reach");
  gcl::RoomParams<T> room{.start = p.start,
                          .columns = p.columns,
                          .values = p.values,
                          .holder_start = p.holder_start,
                          .rows = p.rows,
                          .first = p.first,
                          .step = p.step,
                          .results = p.results,
                          .max_distance = p.max_distance,
                          .room = c.output<int64_t>("needed", {p.results})};
  gcl::launch_overlap_room(room, GclStream{});
  p.slots = c.integer("slots");
  p.room = c.input<int64_t>("room");
  const int64_t total = p.room[p.results];
  p.count = c.output<int64_t>("count", {p.results});
  p.indices = c.output<int32_t>("indices", {total});
  p.distance = c.output<T>("distance", {total});
  gcl::launch_overlaps(p, GclStream{});
}

template <class T>
gcl::DbscanParams<T> graph(Case& c) {
  gcl::DbscanParams<T> p{};
  p.indptr = c.input<int64_t>("indptr");
  p.indices = c.input<int32_t>("indices");
  p.values = c.input<T>("values");
  p.rows = c.size("indptr", 0) - 1;
  p.eps = *c.input<T>("eps");
  return p;
}

template <class T>
void roots(Case& c) {
  auto p = graph<T>(c);
  p.min_samples = c.integer("min_samples");
  p.root = c.output<int32_t>("root", {p.rows});
  gcl::launch_dbscan_roots(p, GclStream{});
}

template <class T>
void labels(Case& c) {
  auto p = graph<T>(c);
  p.core_label = c.input<int64_t>("core_label");
  p.labels = c.output<int64_t>("labels", {p.rows});
  gcl::launch_dbscan_labels(p, GclStream{});
}

template <class T>
void walk(Case& c) {
  gcl::WalkParams<T> p{};
  p.bank = c.input<T>("bank");
  p.index = c.input<int64_t>("index");
  p.order = c.input<int64_t>("nearest");
  p.near = c.input<int64_t>("near"), p.reach = c.input<int64_t>("reach");
  p.batch = c.size("index", 0), p.total = c.size("bank", 0), p.dim = c.size("bank", 1);
  p.steps = c.output<int64_t>("steps", {p.batch});
  p.walking = reinterpret_cast<bool*>(c.output<uint8_t>("walking", {p.batch}));
  p.before = c.output<int32_t>("before", {p.batch, p.total});
  gcl::launch_walk(p, GclStream{});
}

// By the type of the named array.
#define BY_TYPE(name, run) [](Case& c) { simt::with_real(c, name, [&](auto real) { run<decltype(real)>(c); }); }

}  // namespace

int main(int argc, char** argv) {
  return simt::drive(argc, argv,
                     {{"knn", BY_TYPE("block", knn)},
                      {"halves", halves<gcl::Half>},
                      {"bfloat16s", halves<gcl::BFloat16>},
                      {"candidates", candidates},
                      {"neighbor_faults", BY_TYPE("features", neighbor_faults)},
                      {"graph_faults", BY_TYPE("values", graph_faults)},
                      {"pack", BY_TYPE("values", pack)},
                      {"sets", sets},
                      {"expansion_count", expansion_count},
                      {"expansion_weights", BY_TYPE("similarity", expansion_weights)},
                      {"products", BY_TYPE("left", products)},
                      {"mean", BY_TYPE("values", mean)},
                      {"overlap", BY_TYPE("values", overlap)},
                      {"roots", BY_TYPE("values", roots)},
                      {"labels", BY_TYPE("values", labels)},
                      {"walk", BY_TYPE("bank", walk)}});
}
