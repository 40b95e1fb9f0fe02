"""The generated views of one iteration: reconstruction, new view, cycle, and the mix in identity space."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gcl_fast.config import LossConfig
from gcl_fast.records import Batch
from gcl_fast.stages.adversarial import generator_terms
from gcl_fast.stages.amp import full
from gcl_fast.stages.passes import together

Encode = Callable[[Tensor], tuple[Tensor, Tensor]]  # images -> (code, feature)


@dataclass
class Views:
    """Everything the losses need. Images [B, 3, H, W]; codes [B, C]; features [B, D]."""

    code: Tensor
    feature: Tensor
    reconstruction: Tensor
    novel: Tensor
    code_novel: Tensor
    feature_novel: Tensor
    cycle: Tensor
    mixed: Tensor
    mix_weight: float
    permutation: Tensor  # [B], rows of the joint batch

    @property
    def fakes(self) -> dict[str, Tensor]:
        return {"rec": self.reconstruction, "nv": self.novel, "cyc": self.cycle, "mix": self.mixed}


def draw_mix(size: int, alpha: float, rng: np.random.Generator) -> tuple[float, np.ndarray]:
    """lambda ~ Beta(alpha, alpha), the larger of it and its complement, and a permutation of the batch."""
    weight = float(rng.beta(alpha, alpha))
    return max(weight, 1 - weight), rng.permutation(size)


def generate_views(
    encoder: nn.Module,
    generator: nn.Module,
    batch: Batch,
    mix_weight: float,
    permutation: Tensor,
    *,
    encoder_grad: bool,
    encode_generated: Encode | None = None,
    gather: Callable[[Tensor], Tensor] | None = None,
) -> Views:
    """Run encoder and generator over one batch (arXiv 2301.00725, the joint iteration).

    encoder_grad: whether the encoder itself learns; without it the code of the real image carries no graph, while
    gradients still flow through the encoder to the generated images. encode_generated: the encoder's pass for those.
    gather: this process's codes -> those of the joint batch, which `permutation` points into.
    """
    encode_generated = encode_generated or encoder
    with torch.set_grad_enabled(encoder_grad and torch.is_grad_enabled()):
        code, feature = encoder(batch.image)
    # The generator has no layer that mixes the samples of a batch.
    structure, structure_novel = together(generator.encode, [batch.mesh, batch.mesh_novel])
    partners = code if gather is None else gather(code)
    mixed_code = mix_weight * code + (1 - mix_weight) * partners[permutation]
    reconstruction, novel, mixed = together(
        generator.decode, [structure, structure_novel, structure], [code, code, mixed_code], pixels=batch.image[:, 0].numel()
    )
    code_novel, feature_novel = encode_generated(novel)
    cycle = generator.decode(structure, code_novel)
    return Views(code, feature, reconstruction, novel, code_novel, feature_novel, cycle, mixed, mix_weight, permutation)


def generative_losses(
    encode_generated: Encode, discriminator: nn.Module, batch: Batch, views: Views, weights: LossConfig
) -> tuple[Tensor, dict[str, Tensor]]:
    """Weighted sum of the adversarial, image and code losses, and each of them unweighted.

    Code targets are detached; the discriminator's parameters should not require a gradient here.
    """
    target = full(views.code.detach())
    losses = {f"adv_{name}": loss for name, loss in generator_terms(discriminator, views.fakes).items()}
    losses["image_rec"] = F.l1_loss(full(views.reconstruction), batch.image)
    losses["image_cyc"] = F.l1_loss(full(views.cycle), batch.image)
    losses["code_rec"] = F.l1_loss(full(encode_generated(views.reconstruction)[0]), target)
    losses["code_cyc"] = F.l1_loss(full(encode_generated(views.cycle)[0]), target)
    factor = {"adv": weights.adversarial, "image": weights.image, "code": weights.code}
    return sum(factor[name.split("_")[0]] * loss for name, loss in losses.items()), losses
