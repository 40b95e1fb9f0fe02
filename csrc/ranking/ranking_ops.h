// The entry point of ranking_scores, once for both backends. A backend has scores(params).
#pragma once

#include <tuple>

#include "ranking/ranking_tensors.h"

namespace gcl {

template <class Backend>
std::tuple<Tensor, Tensor> ranking_scores(Tensor distances, Tensor query_pids, Tensor gallery_pids, Tensor query_camids,
                                          Tensor gallery_camids, Tensor order, Tensor begin, Tensor end) {
  const Backend backend{distances};
  RankingTensors t = ranking_tensors(distances, query_pids, gallery_pids, query_camids, gallery_camids, order, begin, end);
  dispatch_real(t.distances, [&](auto real) { backend.scores(ranking_params<decltype(real)>(t)); });
  backend.finish("ranking_scores");
  return {t.precision, t.places};
}

template <class Backend, class Library>
void register_ranking(Library& m) {
  m.impl("ranking_scores", TORCH_BOX(&ranking_scores<Backend>));
}

}  // namespace gcl
