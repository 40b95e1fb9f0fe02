"""ops.conv3x3 with its gradients on the CPU, against F.conv2d of the padded image (oneDNN): the layers of the three networks at
256x128, batch 4. pass: forward, to the image, to the weight."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from gcl_fast.ops.conv import conv3x3

OP = "conv"
CHECK = "beside F.conv2d in float64 at most twice the error of F.conv2d in float32 and eight roundings of the largest value"
PASSES = ("forward", "image", "weight")
QUICK = {"channels": [(64, 64)], "size": [(16, 8)], "batch": [4], "padding": ["reflect"], "pass": list(PASSES)}
LAYERS = [
    ((64, 64), (64, 32)),
    ((128, 128), (64, 32)),
    ((128, 256), (64, 32)),
    ((64, 128), (128, 64)),
    ((256, 256), (16, 8)),
    ((512, 512), (16, 8)),
]
FULL = QUICK | {"channels": [channels for channels, _ in LAYERS], "size": sorted({size for _, size in LAYERS})}


def left_out(implementation: str, case: dict) -> bool:
    return (case["channels"], case["size"]) not in [*LAYERS, ((64, 64), (16, 8))]


def inputs(case: dict, device: torch.device) -> list[Tensor]:
    (c, k), size, batch = case["channels"], case["size"], case["batch"]
    rng = torch.Generator().manual_seed(0)
    x, weight, grad = (torch.randn(shape, generator=rng) for shape in ((batch, c, *size), (k, c, 3, 3), (batch, k, *size)))
    return [t.to(device) for t in (x, weight / (3 * c**0.5), grad)]


def usual(x: Tensor, weight: Tensor, padding: str) -> Tensor:
    return F.conv2d(F.pad(x, (1, 1, 1, 1), mode=padding), weight)


def results(implementation: str, case: dict, x: Tensor, weight: Tensor, grad: Tensor) -> Callable[[], Tensor]:
    function = conv3x3 if implementation == "native" else usual
    if case["pass"] == "forward":
        return lambda: function(x, weight, padding=case["padding"])
    wanted = x if case["pass"] == "image" else weight
    wanted.requires_grad_()
    y = function(x, weight, padding=case["padding"])
    return lambda: torch.autograd.grad(y, wanted, grad, retain_graph=True)[0]


def check(case: dict, device: torch.device) -> None:
    given = inputs(case, device)
    exact = results("reference", case, *(t.double() for t in given))()
    ours, theirs = (results(name, case, *(t.clone() for t in given))() for name in ("native", "reference"))
    rounding = 8 * torch.finfo(torch.float32).eps * exact.abs().max()
    assert (ours - exact).abs().max() <= 2 * (theirs - exact).abs().max() + rounding


def call(implementation: str, case: dict, device: torch.device) -> Callable[[], object]:
    return results(implementation, case, *inputs(case, device))


def test_conv(case, implementation, device, measure) -> None:
    measure()
