"""rank_metrics at the sizes of Market-1501 and MSMT17; rivals the bare product, and the product with a sort."""

from __future__ import annotations

import torch

from bench import floors, ranking
from bench.gpu_check.catalogue import Number
from bench.gpu_check.measuring import Prepared
from gcl_fast import ops, reference

FEW = 24  # queries against the whole gallery by the reference


def prepare(number: Number, device: torch.device) -> Prepared:
    case = number.case
    arguments = ranking.inputs(case["queries"], case["gallery"], case["dim"], device)
    query, gallery, query_pid, gallery_pid, query_cam, gallery_cam = arguments

    def part(chosen: slice) -> tuple[torch.Tensor, ...]:
        return query[chosen], gallery, query_pid[chosen], gallery_pid, query_cam[chosen], gallery_cam

    def check() -> str:
        few = part(slice(0, FEW))
        got, want = ops.rank_metrics(*few), reference.rank_metrics(*(t.cpu() for t in few))
        assert got.num_valid == want.num_valid > 0
        assert abs(got.mAP - want.mAP) <= 1e-4 and abs(got.mINP - want.mINP) <= 1e-4
        assert float((torch.as_tensor(got.cmc).cpu() - torch.as_tensor(want.cmc)).abs().max()) <= 1e-4
        half = len(query) // 2
        sides = [ops.rank_metrics(*part(chosen)) for chosen in (slice(0, half), slice(half, None))]
        whole, valid = ops.rank_metrics(*arguments), sum(side.num_valid for side in sides)
        mean = sum(side.mAP * side.num_valid for side in sides) / valid
        assert whole.num_valid == valid and abs(whole.mAP - mean) <= 1e-6
        return f"{FEW} queries against the whole gallery within 1e-4 of the reference; two halves average to the whole"

    work = floors.ranking(len(query), len(gallery), case["dim"])
    if number.implementation == "native":
        return Prepared([lambda: ops.rank_metrics(*arguments)], check, work, "scores are read on the host")
    unit = [torch.nn.functional.normalize(x) for x in (query, gallery)]
    sort = number.implementation == "argsort"
    return Prepared(
        [lambda: ranking.product(*unit, sort=sort)], lambda: "nothing is compared: it gives no scores", work, "a rival's own code"
    )
