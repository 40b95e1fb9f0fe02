"""One training iteration straight from the method, loss by loss, nothing shared: the oracle of the stages' steps, and what
their speed is measured against. `plain_cluster_contrast_step` is stage 1's, `plain_step` that of stages 2 and 3:

Every fake goes through the discriminator on its own, with its own real pass and gradient penalty beside it; every image
through the encoder and the decoder on its own; the decoder convolves the doubled image itself; float32 or float64, eager,
memory contrast by `reference.bank`, which copies what it likes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gcl_fast.reference.bank import bank_update_, gcl_memory_loss


class Images(Protocol):
    """A batch: image [B, 3, H, W], mesh and mesh_novel [B, 1, H, W], index [B] bank rows."""

    image: Tensor
    mesh: Tensor | None
    mesh_novel: Tensor | None
    index: Tensor


@dataclass
class Contrast:
    """What the joint stage contrasts against: bank [N, D] of unit rows (updated in place), labels [N] with -1 for none,
    centers [C, D] of the clusters."""

    bank: Tensor
    labels: Tensor
    centers: Tensor
    temperature: float = 0.04
    num_negatives: int | None = 8192
    momentum: float = 0.2
    memory_weight: float = 1.0
    identity_weight: float = 1.0


@dataclass(frozen=True)
class Weights:
    """Of the generative losses; penalty: of the squared gradient norm."""

    adversarial: float = 1.0
    image: float = 5.0
    code: float = 5.0
    penalty: float = 0.01


def adain(x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """Each channel of x [B, C, H, W] to mean 0 and variance 1, times scale [B, C], plus shift [B, C]."""
    return F.instance_norm(x, eps=1e-5) * scale[:, :, None, None] + shift[:, :, None, None]


def layer_norm(x: Tensor, gamma: Tensor, beta: Tensor) -> Tensor:
    """x [B, C, H, W] of each sample to mean 0, divided by (std + 1e-5); then gamma and beta [C]."""
    mean, std = x.mean(dim=(1, 2, 3), keepdim=True), x.std(dim=(1, 2, 3), keepdim=True)
    return (x - mean) / (std + 1e-5) * gamma[:, None, None] + beta[:, None, None]


def added(terms: Iterable[Tensor]) -> Tensor:
    """The sum of scalar terms."""
    return torch.stack(list(terms)).sum()


def decode(generator: Any, structure: Tensor, code: Tensor) -> Tensor:
    """The image of a structure [B, S, h, w] and a code [B, C]: `Generator.decode`, layer by layer as the method says."""
    decoder = generator.decoder
    x = structure
    for i, (block, part) in enumerate(zip(decoder.residual, code.chunk(len(decoder.residual), dim=1), strict=True)):
        scales, shifts = generator.scale[i](part).chunk(2, dim=1), generator.shift[i](part).chunk(2, dim=1)
        y = F.leaky_relu(adain(block.first(x), scales[0], shifts[0]), 0.2)
        x = x + adain(block.second(y), scales[1], shifts[1])
    for block in decoder.up:
        x = F.interpolate(x, scale_factor=2.0, mode="nearest")
        x = F.leaky_relu(layer_norm(block.conv(x), block.norm.gamma, block.norm.beta), 0.2)
    image: Tensor = decoder.image(decoder.smooth(x))
    return image


def discriminator_terms(discriminator: nn.Module, fake: Tensor, real: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(fake to 0, real to 1, squared gradient norm on the real images), each summed over the scales."""
    fake_term = added(score.square().mean() for score in discriminator(fake.detach()))
    real = real.detach().requires_grad_()
    scores = discriminator(real)
    real_term = added((score - 1).square().mean() for score in scores)
    penalty = torch.zeros_like(real_term)
    for score in scores:
        (gradient,) = torch.autograd.grad(score.sum(), real, create_graph=True)
        penalty = penalty + gradient.square().flatten(1).sum(1).mean()
    return fake_term, real_term, penalty


def soft_cross_entropy(logits: Tensor, target: Tensor) -> Tensor:
    """Logits [B, C] against distributions [B, C]: mean over the batch."""
    return -(target * logits.log_softmax(1)).sum(1).mean()


def plain_step(
    networks: Mapping[str, nn.Module],
    optimizers: Mapping[str, torch.optim.Optimizer],
    batch: Images,
    *,
    mix_weight: float,
    order: Tensor,
    weights: Weights = Weights(),
    contrast: Contrast | None = None,
    seed: int = 0,
) -> dict[str, Tensor]:
    """One update of generator and discriminator, and of the encoder where there is a `contrast` (joint stage).

    Arguments:
        networks: encoder, generator, discriminator, in the training modes that they shall have.
        optimizers: by the same names (encoder only with a contrast).
        batch: see `Images`.
        mix_weight, order: of the mixture in identity space; order [B] int64.
        weights: of the generative losses.
        contrast: what the encoder learns against; its bank moves in place.
        seed: of the random positives and negatives.

    Returns: every loss, unweighted, and their weighted sum "total"; detached.
    """
    encoder: Any = networks["encoder"]
    generator: Any = networks["generator"]
    discriminator = networks["discriminator"]
    joint, image = contrast is not None, batch.image

    with torch.set_grad_enabled(joint):
        code, feature = encoder(image)
    structure, structure_novel = generator.encode(batch.mesh), generator.encode(batch.mesh_novel)
    fakes = {"rec": decode(generator, structure, code), "nv": decode(generator, structure_novel, code)}
    code_novel, feature_novel = encoder(fakes["nv"])
    fakes["cyc"] = decode(generator, structure, code_novel)
    fakes["mix"] = decode(generator, structure, mix_weight * code + (1 - mix_weight) * code[order])
    feature_mixed: Any = encoder(fakes["mix"])[1] if joint else None

    losses: dict[str, Tensor] = {}
    total_d = torch.zeros((), dtype=image.dtype, device=image.device)
    for name, fake in fakes.items():
        fake_term, real_term, penalty = discriminator_terms(discriminator, fake, image)
        total_d = total_d + fake_term + real_term + weights.penalty * penalty
        losses |= {f"dis_{name}": fake_term, "dis_real": real_term, "dis_penalty": penalty}
    _descend(total_d, optimizers["discriminator"])

    total = torch.zeros_like(total_d)
    for name, fake in fakes.items():
        losses[f"adv_{name}"] = added(2 * (score - 1).square().mean() for score in discriminator(fake))
        total = total + weights.adversarial * losses[f"adv_{name}"]
    for name in ("rec", "cyc"):
        losses[f"image_{name}"] = (fakes[name] - image).abs().mean()
        losses[f"code_{name}"] = (encoder(fakes[name])[0] - code.detach()).abs().mean()
        total = total + weights.image * losses[f"image_{name}"] + weights.code * losses[f"code_{name}"]
    if contrast is not None:
        target, mixed_target = _targets(contrast, batch.index, order, mix_weight)
        terms = gcl_memory_loss(
            feature,
            feature_novel,
            contrast.bank,
            contrast.labels,
            batch.index,
            temperature=contrast.temperature,
            num_negatives=contrast.num_negatives,
            seed=seed,
        )
        losses |= {"mem_self": terms[0], "mem_class": terms[1], "mem_real": terms[2]}
        losses["id"] = soft_cross_entropy(feature @ contrast.centers.T, target)
        losses["id_mix"] = soft_cross_entropy(feature_mixed @ contrast.centers.T, mixed_target)
        total = total + contrast.memory_weight * terms.sum() + contrast.identity_weight * (losses["id"] + losses["id_mix"])
    _descend(total, *(optimizers[name] for name in ("generator", "encoder") if name in optimizers))
    if contrast is not None:
        bank_update_(contrast.bank, batch.index, feature.detach(), contrast.momentum, normalise=True)
    return {name: loss.detach() for name, loss in {**losses, "total": total}.items()}


def _targets(contrast: Contrast, index: Tensor, order: Tensor, mix_weight: float) -> tuple[Tensor, Tensor]:
    """Class distributions [B, C] of the images, and of their mixtures."""
    target = F.one_hot(contrast.labels[index], len(contrast.centers)).to(contrast.centers.dtype)
    return target, mix_weight * target + (1 - mix_weight) * target[order]


def _descend(loss: Tensor, *optimizers: torch.optim.Optimizer) -> None:
    for optimizer in optimizers:
        optimizer.zero_grad()
    torch.autograd.backward(loss)
    for optimizer in optimizers:
        optimizer.step()


def plain_cluster_contrast_step(
    encoder: nn.Module,
    optimizer: torch.optim.Optimizer,
    image: Tensor,
    target: Tensor,
    centroids: Tensor,
    *,
    temperature: float = 0.05,
    momentum: float = 0.1,
    hard: bool = False,
) -> dict[str, Tensor]:
    """One update of the encoder, in training mode, against centroids, which then move in place.

    Arguments:
        encoder, optimizer: of the encoder's parameters.
        image: [B, 3, H, W].
        target: [B] int64, the rows of centroids that the images belong to.
        centroids: [C, D] of unit rows. One moves by each of its images in batch order; hard: by the least similar one alone.
        temperature, momentum: of the loss, of the centroids.

    Returns: the loss "contrast", detached.
    """
    feature = F.normalize(encoder(image)[1], dim=1)
    loss = F.cross_entropy(feature @ centroids.clone().T / temperature, target)
    _descend(loss, optimizer)
    rows, labels = feature.detach(), target.tolist()
    chosen = list(range(len(labels)))
    if hard:
        likeness = [float(row @ centroids[label]) for row, label in zip(rows, labels, strict=True)]
        chosen = [min((i for i in chosen if labels[i] == label), key=likeness.__getitem__) for label in sorted(set(labels))]
    for i in chosen:
        centroids[labels[i]] = F.normalize(momentum * centroids[labels[i]] + (1 - momentum) * rows[i], dim=0)
    return {"contrast": loss.detach()}
