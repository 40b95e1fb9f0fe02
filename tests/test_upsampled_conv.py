"""The convolution of a doubled image is the convolution of the image, doubled by torch."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from gcl_fast.models.upsampled_conv import FOLD, upsampled_conv

LAYOUTS = pytest.mark.parametrize(
    "layout", [torch.contiguous_format, torch.channels_last], ids=["channels first", "channels last"]
)


def plain(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return F.conv2d(F.pad(F.interpolate(x, scale_factor=2, mode="nearest"), (2, 2, 2, 2), mode="reflect"), weight, bias)


def folded(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return upsampled_conv(x, weight, bias, torch.tensor(FOLD, dtype=torch.float32, device=x.device))


def inputs(height: int, width: int, layout: torch.memory_format, device: torch.device) -> list[Tensor]:
    rng = torch.Generator().manual_seed(height * 10 + width)
    shapes = (2, 3, height, width), (4, 3, 5, 5), (4,)
    x, weight, bias = (torch.randn(shape, generator=rng, dtype=torch.float64).to(device) for shape in shapes)
    return [t.requires_grad_() for t in (x.contiguous(memory_format=layout), weight, bias)]


@LAYOUTS
@pytest.mark.parametrize(("height", "width"), [(2, 2), (2, 5), (3, 2), (6, 4)])
def test_values_and_gradients(height: int, width: int, layout: torch.memory_format, device: torch.device) -> None:
    given = inputs(height, width, layout, device)
    got, want = folded(*given), plain(*given)
    torch.testing.assert_close(got, want, rtol=1e-12, atol=1e-12)
    grad = torch.randn(want.shape, generator=torch.Generator().manual_seed(1), dtype=want.dtype).to(device)
    for coming in (grad, grad.contiguous(memory_format=torch.channels_last)):  # in either layout
        for ours, theirs in zip(*(torch.autograd.grad(y, given, coming, retain_graph=True) for y in (got, want)), strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)


@LAYOUTS
def test_the_layout_is_kept(layout: torch.memory_format, device: torch.device) -> None:
    x, weight, bias = inputs(4, 6, layout, device)
    y = folded(x, weight, bias)
    (grad,) = torch.autograd.grad(y.square().sum(), x)
    assert y.is_contiguous(memory_format=layout) and grad.is_contiguous(memory_format=layout)


@LAYOUTS
def test_second_derivatives(layout: torch.memory_format, device: torch.device) -> None:
    given = inputs(2, 3, layout, device)
    got, want = (
        torch.autograd.grad(
            sum(g.square().sum() for g in torch.autograd.grad(f(*given).square().sum(), given, create_graph=True)), given
        )
        for f in (folded, plain)
    )
    for ours, theirs in zip(got, want, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-9)


def test_what_is_given_stays(device: torch.device) -> None:
    given = inputs(3, 4, torch.contiguous_format, device)
    before = [t.detach().clone() for t in given]
    y = folded(*given)
    grad = torch.ones_like(y)
    torch.autograd.grad(y, given, grad)
    assert torch.equal(grad, torch.ones_like(y)) and all(map(torch.equal, given, before))


@LAYOUTS
def test_autocast_computes_in_half_precision(layout: torch.memory_format) -> None:
    given = [t.detach().float() for t in inputs(4, 4, layout, torch.device("cpu"))]
    given[0] = given[0].contiguous(memory_format=layout).requires_grad_()
    want = folded(*given)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        got = folded(*given)
    assert got.dtype == torch.bfloat16
    torch.testing.assert_close(got.float(), want, rtol=0.05, atol=0.2)
    (grad,) = torch.autograd.grad(got.float().sum(), given[0])
    assert grad.dtype == torch.float32 and bool(grad.isfinite().all())
