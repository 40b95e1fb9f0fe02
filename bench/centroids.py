"""Cross-entropy over centroids, loss and gradient, against its reference and a product followed by torch's cross_entropy."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from gcl_fast import reference
from gcl_fast.ops.centroids import centroid_cross_entropy

OP = "centroids"
IMPLEMENTATIONS = ("native", "pytorch", "reference")
CHECK = "loss and gradient within 1e-4 of the reference in float64, relative to the largest; on the first 4 queries"
QUICK = {"batch": [16, 128], "centroids": [700, 4000], "width": [2048]}
FULL = {"batch": [16, 64, 128, 256], "centroids": [100, 700, 1000, 2047, 4000, 16000], "width": [256, 2048]}
TEMPERATURE = 0.05


def fits(case: dict) -> bool:
    return case["batch"] * case["centroids"] * case["width"] <= 1 << 31


def scene(case: dict, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """query [B, D] and centroids [C, D] of unit length, targets [B]."""
    generator = torch.Generator().manual_seed(0)
    query, centroids = (
        F.normalize(torch.randn(n, case["width"], generator=generator), dim=1).to(device)
        for n in (case["batch"], case["centroids"])
    )
    return query, centroids, torch.randint(case["centroids"], (case["batch"],), generator=generator).to(device)


def pytorch(query: Tensor, centroids: Tensor, targets: Tensor, temperature: float) -> Tensor:
    return F.cross_entropy(query @ centroids.T / temperature, targets)


def step(function: Callable[..., Tensor], query: Tensor, centroids: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """The loss and its gradient to the queries."""
    query = query.detach().requires_grad_()
    loss = function(query, centroids, targets, TEMPERATURE)
    return loss.detach(), torch.autograd.grad(loss, query)[0]


def check(case: dict, device: torch.device) -> None:
    query, centroids, targets = scene(case, device)
    query, targets = query[:4], targets[:4]
    wanted = step(reference.centroid_cross_entropy, query.double(), centroids.double(), targets)
    for function in (centroid_cross_entropy, pytorch):
        for got, want in zip(step(function, query, centroids, targets), wanted, strict=True):
            assert (got - want).abs().max() <= 1e-4 * want.abs().max()


def call(implementation: str, case: dict, device: torch.device) -> Callable[[], object]:
    inputs = scene(case, device)
    functions = {"native": centroid_cross_entropy, "pytorch": pytorch, "reference": reference.centroid_cross_entropy}
    return lambda: step(functions[implementation], *inputs)


def test_centroids(case, implementation, device, measure) -> None:
    measure()
