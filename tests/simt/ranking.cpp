// Runs the ranking kernel on the arrays of a test.
#define GCL_MOST_BLOCKS 2  // a block has more than one query
#include "case_io.h"
#include "ranking/ranking_kernels.cuh"

namespace {

template <class T>
void scores(simt::Case& c) {
  const int64_t queries = c.size("distances", 0);
  const gcl::RankingParams<T> p{.distances = c.input<T>("distances"),
                                .query_pids = c.input<int64_t>("query_pids"),
                                .gallery_pids = c.input<int64_t>("gallery_pids"),
                                .query_camids = c.input<int64_t>("query_camids"),
                                .gallery_camids = c.input<int64_t>("gallery_camids"),
                                .order = c.input<int64_t>("gallery_order"),
                                .begin = c.input<int64_t>("begin"),
                                .end = c.input<int64_t>("end"),
                                .num_query = queries,
                                .num_gallery = c.size("distances", 1),
                                .precision = c.output<double>("precision", {queries}),
                                .places = c.output<int64_t>("places", {queries, 3})};
  gcl::launch_ranking(p, GclStream{});
}

void by_type(simt::Case& c) {
  simt::with_real(c, "distances", [&](auto real) { scores<decltype(real)>(c); });
}

}  // namespace

int main(int argc, char** argv) { return simt::drive(argc, argv, {{"scores", by_type}}); }
