"""The losses of the stages.

Generator and discriminator: least-squares GAN over a multi-scale discriminator, with the squared-gradient regulariser on real
images; L1 of images and identity codes. Identity encoder: contrast with the memory, with the clusters' centres, with the
centroids of Cluster Contrast; MLC's and JVTC's losses against theirs.

Sources: Mao et al., Least Squares GANs; Mescheder et al., Which Training Methods for GANs do actually Converge (R1); Chen et al.,
arXiv 2301.00725 (GCL); Dai et al., arXiv 2103.11568 (Cluster Contrast); Wang and Zhang, CVPR 2020
(MMCL, MLC); Li and Zhang, ECCV 2020 (JVTC).
"""

from __future__ import annotations

import operator
from collections.abc import Iterable, Mapping
from contextlib import nullcontext
from functools import reduce
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gcl_fast import distributed
from gcl_fast.config import LossConfig, Stage3Config
from gcl_fast.memory import ClusterMemory, InstanceMemory
from gcl_fast.models.discriminator import Discriminator
from gcl_fast.models.identity import IdentityEncoder
from gcl_fast.models.reflect_conv import gradient_to_image
from gcl_fast.ops import bank_nce
from gcl_fast.stages.amp import autocast, full
from gcl_fast.stages.passes import together
from gcl_fast.stages.views import Views


def added(terms: Iterable[Tensor]) -> Tensor:
    """The sum of one term or more, from the first to the last."""
    return reduce(operator.add, terms)


def logged(losses: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Losses as a step returns them: detached, float32."""
    return {name: loss.detach().float() for name, loss in losses.items()}


def mean_of_told(values: Tensor, told: Tensor | None) -> Tensor:
    """The mean of values [B, ...], each row weighted by its part told [B] (`views.told_rows`); None: all alike.

    Rows without a part have no gradient either; with parts of 1 the same bits as without them.
    """
    if told is None:
        return values.mean()
    parts = told.view(-1, *(1,) * (values.dim() - 1))
    return torch.where(parts > 0, values * parts, 0).mean()


# The discriminator


def real_terms(discriminator: Discriminator, real: Tensor, *, with_penalty: bool) -> tuple[Tensor, Tensor]:
    """(sum over scales of mean((D(real) - 1)^2), sum over scales of the mean squared gradient norm of D's output sum).

    real [B, 3, H, W] without graph. The penalty keeps a graph to the discriminator's parameters; 0 when not asked for.
    """
    real = real.detach().requires_grad_(with_penalty)
    with gradient_to_image(discriminator) if with_penalty else nullcontext():
        scores = discriminator.forward(real)  # never compiled: a compiled graph has no second derivative
    loss = added((full(score) - 1).square().mean() for score in scores)
    penalty = loss.new_zeros(())
    if with_penalty:
        for score in scores:
            (gradient,) = torch.autograd.grad(score.sum(), real, create_graph=True)
            penalty = penalty + gradient.square().sum((1, 2, 3)).mean()
    return loss, penalty


def _scores_of_each(discriminator: nn.Module, images: list[Tensor]) -> list[tuple[Tensor, ...]]:
    """D's score maps of each batch of images. D has no layer that mixes the samples of a batch."""
    return together(lambda image: tuple(discriminator(image)), images)


def fake_terms(discriminator: Discriminator, fakes: Mapping[str, Tensor], told: Tensor | None = None) -> dict[str, Tensor]:
    """For each batch of fakes (all of one shape, detached here): sum over scales of mean(D(fake)^2), over the rows told."""
    scores = _scores_of_each(discriminator, [fake.detach() for fake in fakes.values()])
    return {name: added(mean_of_told(full(s).square(), told) for s in scales) for name, scales in zip(fakes, scores, strict=True)}


def discriminator_loss(terms: Mapping[str, Tensor], real: Tensor, penalty: Tensor, penalty_weight: float) -> Tensor:
    """Sum over the fakes of their own term plus the real term plus the weighted regulariser.

    The real term and the regulariser are the same for every fake: computed once, counted len(terms) times.
    """
    return added(terms.values()) + len(terms) * (real + penalty_weight * penalty)


def discriminator_losses(
    discriminator: Discriminator,
    image: Tensor,
    fakes: Mapping[str, Tensor],
    *,
    penalty_weight: float,
    bf16: bool,
    told: Tensor | None = None,
) -> tuple[Tensor, dict[str, Tensor]]:
    """The discriminator's loss on one batch, and its parts.

    Arguments:
        image: [B, 3, H, W], the real images.
        fakes: generated images by name, each [B, 3, H, W]; detached here.
        penalty_weight: of the squared-gradient regulariser; 0 leaves it out.
        bf16: score the fakes under bfloat16 autocast. The real images are always scored in float32: the regulariser needs
            second derivatives.
        told: [B], the part of each row of the fakes (`views.told_rows`); None: all count alike.

    Returns: (weighted sum, {"dis_<fake>": ..., "dis_real": ..., "dis_penalty": ...} unweighted).
    Gradient: to the discriminator's parameters alone.
    """
    real, penalty = real_terms(discriminator, image, with_penalty=penalty_weight > 0)
    with autocast(bf16, image.device):
        terms = fake_terms(discriminator, fakes, told)
    loss = discriminator_loss(terms, real, penalty, penalty_weight)
    return loss, {**{f"dis_{name}": term for name, term in terms.items()}, "dis_real": real, "dis_penalty": penalty}


# The generator


def generator_terms(discriminator: Discriminator, fakes: Mapping[str, Tensor], told: Tensor | None = None) -> dict[str, Tensor]:
    """For each batch of fakes (all of one shape): sum over scales of 2 * mean((D(fake) - 1)^2) over the rows told, with gradient
    to the fake."""
    scores = _scores_of_each(discriminator, list(fakes.values()))
    return {
        name: added(2 * mean_of_told((full(s) - 1).square(), told) for s in scales)
        for name, scales in zip(fakes, scores, strict=True)
    }


def pixel_weights(person: Tensor, extra: float) -> Tensor:
    """What each pixel counts: 1 + extra where the person is (person [B, 1, H, W] bool), 1 elsewhere, over the mean of its
    picture, so that the size of a loss does not hang on how much of a picture the person fills; [B, 1, H, W] float32."""
    weight = 1 + extra * person.float()
    return weight / weight.mean((1, 2, 3), keepdim=True)


def generative_losses(
    encoder: IdentityEncoder,
    discriminator: Discriminator,
    image: Tensor,
    code: Tensor,
    views: Views,
    weight: Tensor | None = None,
) -> dict[str, Tensor]:
    """The adversarial, image and code losses of the generated views, unweighted.

    Arguments:
        encoder: two passes, over reconstruction and cycle.
        discriminator: its parameters should not require a gradient here (`models.modes.frozen`).
        image: [B, 3, H, W], the photos.
        code: [B, C], their identity codes, a target: detached here.
        views: of which the rows told count.
        weight: [B, 1, H, W], of the pixels in the image losses (`pixel_weights`); None: all alike.

    Returns: {"adv_<view>", "image_rec", "image_cyc", "code_rec", "code_cyc"}.
    Gradient: to the views, and through the encoder's passes to the encoder where its parameters ask for one.
    """
    target = full(code.detach())
    losses = {f"adv_{name}": loss for name, loss in generator_terms(discriminator, views.fakes, views.told).items()}

    def distance(got: Tensor, wanted: Tensor, weight: Tensor | None = None) -> Tensor:
        away = (full(got) - wanted).abs()
        return mean_of_told(away if weight is None else away * weight, views.told)

    losses["image_rec"] = distance(views.reconstruction, image, weight)
    losses["image_cyc"] = distance(views.cycle, image, weight)
    losses["code_rec"] = distance(encoder(views.reconstruction)[0], target)
    losses["code_cyc"] = distance(encoder(views.cycle)[0], target)
    return losses


def generative_total(losses: Mapping[str, Tensor], weights: LossConfig) -> Tensor:
    """Weighted sum of `generative_losses`."""
    factor = {"adv": weights.adversarial, "image": weights.image, "code": weights.code}
    return added(factor[name.split("_")[0]] * loss for name, loss in losses.items())


# The identity encoder


def memory_step(
    memory: InstanceMemory, feature: Tensor, feature_novel: Tensor, index: Tensor, *, seed: Tensor
) -> dict[str, Tensor]:
    """Contrast of photos and new views with the memory, the three terms of `ops.gcl_memory_loss`; then the rows of the photos
    move, which the gradient does not see.

    feature, feature_novel [B, D] of this process's share, index [B] their memory rows. Every process takes the joint batch: which
    negatives a row has depends on its place there. Gradient to both features. Deterministic by the seed [] int64.
    """
    feature, feature_novel, index = map(distributed.gather_rows, (feature, feature_novel, index))
    terms = memory.step(feature, feature_novel, index, seed=seed)
    return {"mem_self": terms[0], "mem_class": terms[1], "mem_real": terms[2]}


def identity_losses(
    feature: Tensor, mixed: Tensor, centers: Tensor, target: Tensor, partner: Tensor, weight: Tensor, told: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """(CE(f . C^T, y), soft-label CE(f_mix . C^T, weight y + (1 - weight) y')), y' the class mixed in.

    feature, mixed [B, D] not normalised; centers [C, D] without gradient; target, partner [B] in [0, C): y and y'; weight []
    float64. Means over the batch, of the mixed ones by their parts told [B], None for all alike.
    """
    mixed_logits = mixed @ centers.T  # [B, C]
    if told is None:  # in one pass, whose bits a mean of single terms does not have
        own, others = (F.cross_entropy(mixed_logits, y) for y in (target, partner))
    else:
        own, others = (mean_of_told(F.cross_entropy(mixed_logits, y, reduction="none"), told) for y in (target, partner))
    soft = weight.to(own) * own + (1 - weight).to(own) * others
    return F.cross_entropy(feature @ centers.T, target), soft


def joint_total(generative: Mapping[str, Tensor], contrast: Mapping[str, Tensor], weights: Stage3Config) -> Tensor:
    """Weighted sum of all that generator and encoder learn from in stage 3."""
    total = generative_total(generative, weights.loss)
    total = total + weights.memory_w * added(contrast[name] for name in ("mem_self", "mem_class", "mem_real"))
    return total + weights.id_w * (contrast["id"] + contrast["id_mix"])


def cluster_contrast_loss(memory: ClusterMemory, feature: Tensor, cluster: Tensor) -> Tensor:
    """Mean cross-entropy of each feature [B, D] against all centroids / temperature, its cluster [B] the class: a scalar."""
    loss: Tensor = memory(feature, cluster)
    return loss


# The warm-up by MLC and JVTC


def similarities(feature: Tensor, bank: Tensor) -> Tensor:
    """Cosines [B, N] of features [B, D] with memory rows [N, D] (L2-normalised, constant); gradient to the features."""
    return F.normalize(feature, dim=1) @ bank.detach().to(feature.dtype).T


def mmcl_loss(
    similarity: Tensor, positive: Tensor, *, positive_weight: float = 5.0, hard_share: float = 0.01
) -> tuple[Tensor, Tensor]:
    """MMCL's multi-label loss, in its two parts; the loss is their sum. Deterministic.

        positive_weight * mean over the positives of (1 - s)^2,    mean over the hard negatives of (1 + s)^2

    Arguments:
        similarity: [B, N], cosines of features and memory rows.
        positive: [B, N] bool, one a row at least.
        positive_weight: of the first part.
        hard_share: the share of a row's negatives, the most similar ones, that count (rounded down, at least one). A row
            without negatives has 0 there.

    Returns: (positive part, negative part), each the mean over the batch.
    Gradient: to similarity.
    Source: Wang and Zhang, CVPR 2020, eq. 8-9.
    """
    pulled = torch.where(positive, (1 - similarity).square(), 0).sum(1) / positive.sum(1)  # [B]
    negatives = (~positive).sum(1)  # [B]
    hard = (negatives.double() * hard_share + 1e-9).long().clamp_min(1).minimum(negatives)  # [B]; 0.01 * 100 is 1, not 0
    most = max(1, int(similarity.shape[1] * hard_share + 1e-9))
    value = similarity.masked_fill(positive, -torch.inf).topk(most, dim=1).values  # [B, most]
    chosen = torch.arange(most, device=similarity.device)[None] < hard[:, None]
    pushed = torch.where(chosen, (1 + torch.where(chosen, value, 0)).square(), 0).sum(1) / hard.clamp_min(1)  # [B]
    size = max(len(similarity), 1)
    return positive_weight * pulled.sum() / size, pushed.sum() / size


def view_means(feature: Tensor, views: int) -> Tensor:
    """Features [n * views, D], the views of an image side by side -> the L2-normalised mean of each image's views [n, D]."""
    return F.normalize(feature.reshape(len(feature) // views, views, feature.shape[1]).mean(1), dim=1)


def local_loss(feature: Tensor, views: int, temperature: float) -> Tensor:
    """JVTC's local loss: the views of one image belong together, those of the batch's other images do not. Deterministic.

    Arguments:
        feature: [n * views, D], the views of an image side by side; L2-normalised here.
        views: of each image.
        temperature: above 0.

    Returns: a scalar, the mean cross-entropy of each view against the n view means / temperature; its image's mean is the class.
    Gradient: to feature, also through the means.
    Source: Li and Zhang, ECCV 2020, eq. 3.
    """
    means = view_means(feature, views)  # [n, D]
    logits = F.normalize(feature, dim=1) @ means.T / temperature  # [n * views, n]
    return F.cross_entropy(logits, torch.arange(len(means), device=feature.device).repeat_interleave(views))


def global_loss(
    feature: Tensor, bank: Tensor, labels: Tensor, index: Tensor, temperature: float, target_norm: Literal["l1", "l2"] = "l2"
) -> Tensor:
    """JVTC's global loss: soft multi-label cross-entropy of each view against all memory rows. Deterministic.

    Arguments:
        feature: [n * views, D], the views of an image side by side; L2-normalised here.
        bank: [N, D], constant, used as it is.
        labels: [N] int64.
        index: [n] int64, the image's row.
        temperature: above 0.
        target_norm: which norm of the targets is 1.

    Returns: a scalar, the mean over the views of - sum over rows j of w_j log softmax(f . bank^T / temperature)_j, w the
        normalised indicator of the rows that share the image's label: w_j = 1 / c ("l1") or 1 / sqrt(c) ("l2") for each of the c
        of them. Summed up, a row's loss is log-sum-exp - f . mean row of the cluster / temperature, with "l2" sqrt(c) times that,
        so no view needs the N log-probabilities kept.
    Gradient: to feature.
    Source: Li and Zhang, ECCV 2020, eq. 5-6.
    """
    query = F.normalize(feature, dim=1)
    views = len(feature) // max(len(index), 1)
    row = index.repeat_interleave(views)  # [B]
    each = torch.arange(len(bank), device=bank.device)  # every row a class by itself: all others are negatives
    lse = bank_nce(query, bank, each, row, temperature=temperature)
    lse = lse + (query * bank[row]).sum(1) / temperature  # [B], of all rows
    cluster = (labels[None] == labels[index][:, None]).to(bank.dtype)  # [n, N]
    size = cluster.sum(1)  # [n]
    mean = cluster @ bank / size[:, None]  # [n, D]
    size, mean = size.repeat_interleave(views), mean.repeat_interleave(views, 0)  # [B], [B, D]
    loss = lse - (query * mean).sum(1) / temperature  # [B]
    if target_norm == "l2":
        loss = size.sqrt() * loss
    return loss.sum() / max(len(loss), 1)
