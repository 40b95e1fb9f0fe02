"""Each loss of stages 2 and 3 against a plain float64 reading of the method, written out loop by loop."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from gcl_fast.config import LossConfig
from gcl_fast.records import Batch
from gcl_fast.stages.losses import (
    discriminator_loss,
    discriminator_losses,
    fake_terms,
    generative_losses,
    generative_total,
    generator_terms,
    identity_losses,
    pixel_weights,
    real_terms,
)
from gcl_fast.stages.views import Mix, draw_mix, generate_views

WEIGHT = torch.tensor(0.7, dtype=torch.float64)  # of mixtures


class TwoScales(nn.Module):
    """A small multi-scale discriminator with a nonlinearity, so that second derivatives are not zero."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b = nn.Conv2d(3, 2, 3), nn.Conv2d(3, 1, (3, 1))

    def forward(self, image):
        return [torch.tanh(self.a(image)), self.b(F.avg_pool2d(image, 2)).square()]


class ToyEncoder(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(1)
        self.code, self.feature = nn.Linear(3 * 8 * 4, 6), nn.Linear(3 * 8 * 4, 5)

    def forward(self, image):
        flat = image.flatten(1)
        return torch.tanh(self.code(flat)), self.feature(flat)


class ToyGenerator(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(2)
        self.mix = nn.Linear(32 + 6, 3 * 8 * 4)

    def encode(self, mesh):
        return mesh.flatten(1)

    def decode(self, structure, code):
        return self.mix(torch.cat([structure, code], 1)).view(-1, 3, 8, 4)


@pytest.fixture
def toys():
    torch.set_default_dtype(torch.float64)
    try:
        rng = torch.Generator().manual_seed(3)

        def draw(*shape):
            return torch.randn(*shape, generator=rng)

        rows = torch.arange(4)
        batch = Batch(draw(4, 3, 8, 4), draw(4, 1, 8, 4), draw(4, 1, 8, 4), rows, rows, rows)
        yield ToyEncoder(), ToyGenerator(), TwoScales(), batch
    finally:
        torch.set_default_dtype(torch.float32)


def test_least_squares_terms(toys):
    _, _, discriminator, batch = toys
    scales = discriminator(batch.image)
    real = sum(float(np.mean((s.detach().numpy() - 1) ** 2)) for s in scales)
    fake = sum(float(np.mean(s.detach().numpy() ** 2)) for s in scales)
    assert float(real_terms(discriminator, batch.image, with_penalty=False)[0].detach()) == pytest.approx(real, rel=1e-12)
    fakes = {"one": batch.image, "other": 0.5 * batch.image}
    assert float(fake_terms(discriminator, fakes)["one"].detach()) == pytest.approx(fake, rel=1e-12)
    assert float(generator_terms(discriminator, fakes)["one"].detach()) == pytest.approx(2 * real, rel=1e-12)


def test_penalty_is_the_squared_gradient_norm_by_finite_differences(toys):
    _, _, discriminator, batch = toys
    image = batch.image[:2, :, :6, :4]
    expected, step = 0.0, 1e-6
    for scale in range(2):
        for row in range(2):
            for at in np.ndindex(*image.shape[1:]):
                moved = []
                for sign in (1, -1):
                    shifted = image.clone()
                    shifted[(row, *at)] += sign * step
                    moved.append(float(discriminator(shifted)[scale].sum().detach()))
                expected += ((moved[0] - moved[1]) / (2 * step)) ** 2 / 2  # mean over the batch of 2
    _, penalty = real_terms(discriminator, image, with_penalty=True)
    assert float(penalty.detach()) == pytest.approx(expected, rel=1e-6)
    penalty.backward()
    assert discriminator.a.weight.grad.abs().sum() > 0


def test_real_pass_once_weighted_equals_four_passes(toys):
    _, _, discriminator, batch = toys
    fakes = {str(k): batch.image * k for k in (0.1, 0.2, 0.3, 0.4)}
    once = discriminator_loss(fake_terms(discriminator, fakes), *real_terms(discriminator, batch.image, with_penalty=True), 0.01)
    gradients = torch.autograd.grad(once, list(discriminator.parameters()))
    four = 0.0
    for name, fake in fakes.items():
        real, penalty = real_terms(discriminator, batch.image, with_penalty=True)
        four = four + fake_terms(discriminator, {name: fake})[name] + real + 0.01 * penalty
    assert torch.allclose(once, four, rtol=1e-12)
    for a, b in zip(gradients, torch.autograd.grad(four, list(discriminator.parameters())), strict=True):
        assert torch.allclose(a, b, rtol=1e-10)


def test_the_real_images_are_left_as_they_are(toys):
    _, _, discriminator, batch = toys
    real_terms(discriminator, batch.image, with_penalty=True)
    assert not batch.image.requires_grad


def test_a_penalty_without_weight_is_not_computed(toys):
    _, _, discriminator, batch = toys
    for weight in (0.0, 0.01):
        _, parts = discriminator_losses(discriminator, batch.image, {"rec": batch.image}, penalty_weight=weight, bf16=False)
        assert bool(parts["dis_penalty"] > 0) == (weight > 0)


def test_rows_that_tell_nothing_count_in_no_loss_of_generated_views(toys):
    encoder, generator, discriminator, batch = toys
    code, _ = encoder(batch.image)
    views = generate_views(encoder, generator, batch, code, Mix(WEIGHT, torch.tensor([2, 0, 3, 1])).of(code))
    rows, parts = torch.tensor([True, False, True, True]), torch.tensor([4 / 3, 0.0, 4 / 3, 4 / 3])
    names = ("reconstruction", "novel", "cycle", "mixed")
    few = replace(views, **{name: getattr(views, name)[rows] for name in names})
    weight = pixel_weights(torch.rand(4, 1, 8, 4) < 0.5, 3.0)
    got = generative_losses(encoder, discriminator, batch.image, code, replace(views, told=parts), weight)
    expected = generative_losses(encoder, discriminator, batch.image[rows], code[rows], few, weight[rows])
    assert set(got) == set(expected) and all(torch.allclose(got[name], expected[name]) for name in got)

    options = {"penalty_weight": 0.01, "bf16": False}
    _, got = discriminator_losses(discriminator, batch.image, views.fakes, told=parts, **options)
    _, expected = discriminator_losses(discriminator, batch.image, few.fakes, **options)
    assert set(got) == set(expected) and all(torch.allclose(got[name], expected[name]) for name in got)


def test_views_are_what_the_method_says(toys):
    encoder, generator, _, batch = toys
    order = torch.tensor([2, 0, 3, 1])
    code, _ = encoder(batch.image)
    views = generate_views(encoder, generator, batch, code, Mix(WEIGHT, order).of(code))
    structure, turned = generator.encode(batch.mesh), generator.encode(batch.mesh_novel)
    novel = generator.decode(turned, code)
    for got, expected in (
        (views.reconstruction, generator.decode(structure, code)),
        (views.novel, novel),
        (views.cycle, generator.decode(structure, encoder(novel)[0])),
        (views.code_novel, encoder(novel)[0]),
        (views.feature_novel, encoder(novel)[1]),
    ):
        assert torch.allclose(got, expected, rtol=1e-12)
    for row in range(4):
        mixed = 0.7 * code[row] + 0.3 * code[order[row]]
        assert torch.allclose(views.mixed[row], generator.decode(structure[row : row + 1], mixed[None])[0], rtol=1e-12)


def test_frozen_encoder_gives_no_graph_to_the_code_but_passes_gradients_to_the_images(toys):
    encoder, generator, _, batch = toys
    encoder.requires_grad_(False)
    with torch.no_grad():
        code, _ = encoder(batch.image)
    views = generate_views(encoder, generator, batch, code, code)
    assert not code.requires_grad and views.code_novel.requires_grad
    views.code_novel.sum().backward()
    assert generator.mix.weight.grad.abs().sum() > 0


def test_generative_losses_and_their_weights(toys):
    encoder, generator, discriminator, batch = toys
    code, _ = encoder(batch.image)
    views = generate_views(encoder, generator, batch, code, Mix(WEIGHT, torch.tensor([2, 0, 3, 1])).of(code))
    losses = generative_losses(encoder, discriminator, batch.image, code, views)
    total = generative_total(losses, LossConfig())

    def l1(a, b):
        return float(np.mean(np.abs(a.detach().numpy() - b.detach().numpy())))

    expected = 0.0
    for fake in (views.reconstruction, views.novel, views.cycle, views.mixed):
        expected += sum(2 * float(np.mean((s.detach().numpy() - 1) ** 2)) for s in discriminator(fake))
    for fake in (views.reconstruction, views.cycle):
        expected += 5 * l1(fake, batch.image) + 5 * l1(encoder(fake)[0], code)
    assert float(total.detach()) == pytest.approx(expected, rel=1e-12)
    assert set(losses) == {"adv_rec", "adv_nv", "adv_cyc", "adv_mix", "image_rec", "image_cyc", "code_rec", "code_cyc"}


def test_pixels_of_the_person_count_more_in_the_image_losses_alone(toys):
    encoder, generator, discriminator, batch = toys
    code, _ = encoder(batch.image)
    views = generate_views(encoder, generator, batch, code, code)
    person = torch.zeros(4, 1, 8, 4, dtype=torch.bool)
    person[0, :, 2:6, 1:3] = person[1, :, :, :1] = True  # the others show nobody
    weight = pixel_weights(person, 3.0)
    assert torch.allclose(weight.double().mean((1, 2, 3)), torch.ones(4))
    weighted = generative_losses(encoder, discriminator, batch.image, code, views, weight)
    plain = generative_losses(encoder, discriminator, batch.image, code, views)
    for name, fake in (("image_rec", views.reconstruction), ("image_cyc", views.cycle)):
        expected = 0.0
        for row in range(4):
            counts = [[1 + 3.0 * bool(person[row, 0, y, x]) for x in range(4)] for y in range(8)]
            total = sum(map(sum, counts))
            for y in range(8):
                for x in range(4):
                    away = (fake[row, :, y, x] - batch.image[row, :, y, x]).abs().mean()
                    expected += counts[y][x] / total * float(away.detach()) / 4
        assert float(weighted[name].detach()) == pytest.approx(expected, rel=1e-6)
        assert not torch.equal(weighted[name], plain[name])
    for name in set(plain) - {"image_rec", "image_cyc"}:
        assert torch.equal(weighted[name], plain[name])
    even = generative_losses(encoder, discriminator, batch.image, code, views, pixel_weights(torch.ones_like(person), 3.0))
    assert all(torch.allclose(even[name], plain[name]) for name in plain)


def test_code_target_is_detached(toys):
    encoder, generator, discriminator, batch = toys
    code, _ = encoder(batch.image)
    views = generate_views(encoder, generator, batch, code, Mix(WEIGHT, torch.arange(4)).of(code))
    losses = generative_losses(encoder, discriminator, batch.image, code, views)
    # The only way from the code to this loss is through the reconstruction, never through the target.
    (through,) = torch.autograd.grad(losses["code_rec"], code, retain_graph=True)
    guess = encoder(generator.decode(generator.encode(batch.mesh), (probe := code.detach().requires_grad_())))[0]
    F.l1_loss(guess, code.detach()).backward()
    assert torch.allclose(through, probe.grad, rtol=1e-12)


def test_identity_losses_by_hand():
    rng = np.random.default_rng(4)
    f, mixed, centers = rng.normal(size=(3, 5)), rng.normal(size=(3, 5)), rng.normal(size=(4, 5))
    target, order, weight = np.array([1, 3, 1]), np.array([2, 0, 1]), 0.8

    def log_softmax(x):
        return x - np.log(np.exp(x).sum())

    plain = np.mean([-log_softmax(centers @ f[i])[target[i]] for i in range(3)])
    soft = 0.0
    for i in range(3):
        label = np.zeros(4)
        label[target[i]] += weight
        label[target[order[i]]] += 1 - weight
        soft -= float(label @ log_softmax(centers @ mixed[i])) / 3
    tensors = (torch.from_numpy(a) for a in (f, mixed, centers, target))
    got = identity_losses(*tensors, torch.from_numpy(target[order]), torch.tensor(weight, dtype=torch.float64))
    assert float(got[0]) == pytest.approx(plain, rel=1e-12)
    assert float(got[1]) == pytest.approx(soft, rel=1e-12)


def test_a_mix_that_tells_nothing_has_no_label():
    rng = torch.Generator().manual_seed(5)
    feature, mixed, centers = (torch.randn(n, 5, generator=rng) for n in (3, 3, 4))
    target, partner, weight = torch.tensor([1, 3, 0]), torch.tensor([2, 0, 1]), torch.tensor(0.8)
    rows = torch.tensor([True, True, False])
    got = identity_losses(feature, mixed, centers, target, partner, weight, rows * 1.5)
    assert torch.equal(got[0], identity_losses(feature, mixed, centers, target, partner, weight)[0])
    expected = identity_losses(feature[rows], mixed[rows], centers, target[rows], partner[rows], weight)[1]
    assert torch.allclose(got[1], expected)


def test_mixture_weight_is_the_larger_part_of_a_beta_draw():
    weights = [draw_mix(5, 0.6, np.random.default_rng(seed))[0] for seed in range(400)]
    assert all(0.5 <= w <= 1 for w in weights)
    # E[max(x, 1-x)] of Beta(0.6, 0.6), by numerical integration in the tails-safe variable u
    grid = (np.arange(200_000) + 0.5) / 200_000
    density = grid**-0.4 * (1 - grid) ** -0.4
    mean = float((np.maximum(grid, 1 - grid) * density).sum() / density.sum())
    assert np.mean(weights) == pytest.approx(mean, abs=0.025)
    assert sorted(draw_mix(5, 0.6, np.random.default_rng(0))[1].tolist()) == [0, 1, 2, 3, 4]
