// Runs the ranking kernel on the arrays of a test.
#include "case_io.h"
#include "ranking/ranking_kernels.cuh"

namespace {

template <class T>
void scores(simt::Case& c) {
  const auto ids = [&](const char* name) { return c.input<int64_t>(name); };
  const int64_t queries = c.size("distances", 0);
  const gcl::RankingParams<T> p{c.input<T>("distances"),
                                ids("query_pids"),
                                ids("gallery_pids"),
                                ids("query_camids"),
                                ids("gallery_camids"),
                                ids("gallery_order"),
                                ids("begin"),
                                ids("end"),
                                queries,
                                c.size("distances", 1),
                                c.output<double>("precision", {queries}),
                                c.output<int64_t>("places", {queries, 3})};
  gcl::launch_ranking(p, GclStream{});
}

void by_type(simt::Case& c) { c.type("distances") == "f8" ? scores<double>(c) : scores<float>(c); }

}  // namespace

int main(int argc, char** argv) { return simt::drive(argc, argv, {{"scores", by_type}}); }
