"""ops.reflect_pad against torch's own reflection padding, which is its reference, and a copy of the bytes that it must move."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from bench.meshes import copy_of
from gcl_fast import ops, reference

OP = "reflect_pad"
IMPLEMENTATIONS = ("native", "floor", "reference")
CHECK = "values have the reference's bits, the gradient is within the type's rounding of the reference's in float64"
QUICK = {
    "shape": [(4, 64, 64, 32), (4, 32, 256, 128)],
    "pad": [1],
    "dtype": ["float32", "bfloat16"],
    "format": ["channels_last", "contiguous"],
    "pass": ["forward", "backward"],
}
FULL = QUICK | {"shape": [*QUICK["shape"], (48, 256, 64, 32)], "pad": [1, 9]}


def scene(
    shape: tuple[int, ...], pad: int, dtype: torch.dtype, form: torch.memory_format, device: torch.device
) -> tuple[Tensor, Tensor]:
    """x, and a gradient of what it is padded to."""
    generator = torch.Generator().manual_seed(0)
    padded = (*shape[:2], shape[2] + 2 * pad, shape[3] + 2 * pad)
    x, grad = (torch.randn(size, generator=generator).to(device, dtype) for size in (shape, padded))
    return x.contiguous(memory_format=form), grad.contiguous(memory_format=form)


def _scene(case: dict, device: torch.device) -> tuple[Tensor, Tensor]:
    form = torch.channels_last if case["format"] == "channels_last" else torch.contiguous_format
    return scene(case["shape"], case["pad"], getattr(torch, case["dtype"]), form, device)


def backward(function: Callable[[Tensor, int], Tensor], x: Tensor, pad: int, grad: Tensor) -> Callable[[], Tensor]:
    """The backward pass alone."""
    x = x.detach().requires_grad_()
    y = function(x, pad)
    return lambda: torch.autograd.grad(y, x, grad, retain_graph=True)[0]


def compare(x: Tensor, grad: Tensor, pad: int) -> None:
    assert torch.equal(ops.reflect_pad(x, pad), reference.reflect_pad(x, pad))
    got, want = backward(ops.reflect_pad, x, pad, grad)(), backward(reference.reflect_pad, x.double(), pad, grad.double())()
    assert want.abs().max() > 1
    torch.testing.assert_close(got.double(), want, rtol=torch.finfo(x.dtype).eps / 2 + 1e-6, atol=1e-5)


def check(case: dict, device: torch.device) -> None:
    x, grad = _scene(case, device)
    compare(x[:2], grad[:2], case["pad"])


def call(implementation: str, case: dict, device: torch.device) -> Callable[[], object]:
    x, grad = _scene(case, device)
    if implementation == "floor":
        return copy_of((x.numel() + grad.numel()) * x.element_size(), device)
    function = {"native": ops.reflect_pad, "reference": reference.reflect_pad}[implementation]
    return backward(function, x, case["pad"], grad) if case["pass"] == "backward" else lambda: function(x, case["pad"])


def test_reflect_pad(case, implementation, device, measure) -> None:
    measure()
