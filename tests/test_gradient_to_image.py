"""The gradient of a network to its image, differentiated once more: as torch's own second derivative has it."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from gcl_fast.models import Discriminator
from gcl_fast.models.reflect_conv import ReflectConv, gradient_to_image

LAYERS = [(1, 1, 1), (3, 1, 1), (3, 2, 1), (5, 2, 1), (3, 1, 3), (3, 3, 2)]  # kernel, stride, dilation


def gradients(network: nn.Module, image: Tensor, *, ours: bool) -> list[Tensor]:
    """The gradient to the image, and the gradients to image and weights of the scores and of that gradient's square."""
    image = image.clone().requires_grad_()
    if ours:
        with gradient_to_image(network):
            score = network(image)
    else:
        score = network(image)
    score = sum(part.tanh().sum() for part in score) if isinstance(score, list) else score.tanh().sum()
    (first,) = torch.autograd.grad(score, image, create_graph=True)
    return [first, *torch.autograd.grad(0.3 * score + first.square().sum(), [image, *network.parameters()])]


@pytest.mark.parametrize(("kernel", "stride", "dilation"), LAYERS)
@pytest.mark.parametrize("size", [(9, 12), (10, 11)])  # of strides that step over a last row, and that do not
def test_a_layers_second_derivative(
    kernel: int, stride: int, dilation: int, size: tuple[int, int], device: torch.device, generator: torch.Generator
) -> None:
    layer = ReflectConv(3, 4, kernel, stride=stride, dilation=dilation).to(device, torch.float64)
    image = torch.randn(2, 3, *size, generator=generator, dtype=torch.float64).to(device)
    for ours, torchs in zip(gradients(layer, image, ours=True), gradients(layer, image, ours=False), strict=True):
        torch.testing.assert_close(ours, torchs, rtol=1e-11, atol=1e-12)


def test_the_discriminators_second_derivative(device: torch.device, generator: torch.Generator) -> None:
    network = Discriminator(4).to(device, torch.float64)
    for weight in network.parameters():
        nn.init.normal_(weight, 0.0, 0.2)
    image = torch.randn(2, 3, 33, 18, generator=generator, dtype=torch.float64).to(device)
    for ours, torchs in zip(gradients(network, image, ours=True), gradients(network, image, ours=False), strict=True):
        torch.testing.assert_close(ours, torchs, rtol=1e-10, atol=1e-12)


def test_it_ends_with_its_block_even_by_an_error(generator: torch.Generator) -> None:
    layer = ReflectConv(1, 1, 3)
    image = torch.randn(1, 1, 5, 5, generator=generator, requires_grad=True)
    with gradient_to_image(layer):
        (weight,) = torch.autograd.grad(layer(image).sum(), [layer.weight], create_graph=True, allow_unused=True)
        assert weight is None  # as it says
    with pytest.raises(ZeroDivisionError), gradient_to_image(layer):
        raise ZeroDivisionError
    (weight,) = torch.autograd.grad(layer(image).sum(), [layer.weight], create_graph=True)
    assert weight is not None
