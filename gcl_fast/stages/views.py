"""The generated views of one iteration: reconstruction, new view, cycle, and the mix in identity space."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from gcl_fast import distributed
from gcl_fast.images import mesh_to_unit
from gcl_fast.meshes.coverage import shows_body
from gcl_fast.models.generator import Generator
from gcl_fast.models.identity import IdentityEncoder
from gcl_fast.records import Batch
from gcl_fast.stages.passes import together
from gcl_fast.transfer import send


@dataclass(frozen=True)
class Mix:
    """A mixture of each row with another: weight * row + (1 - weight) * partner's.

    weight   [] float64 in [0.5, 1]
    partner  [B] int64, rows of the joint batch
    """

    weight: Tensor
    partner: Tensor

    def of(self, code: Tensor) -> Tensor:
        """Codes [B, C] of this process's share -> mixed codes [B, C]; gradient to both that are mixed."""
        return self.weight * code + (1 - self.weight) * distributed.gather_rows(code)[self.partner]


def draw_mix(size: int, alpha: float, rng: np.random.Generator) -> tuple[float, np.ndarray]:
    """lambda ~ Beta(alpha, alpha), the larger of it and its complement, and a permutation of the joint batch."""
    weight = float(rng.beta(alpha, alpha))
    return max(weight, 1 - weight), rng.permutation(size)


def batch_mix(size: int, alpha: float, rng: np.random.Generator, device: torch.device) -> Mix:
    """The mix of this process's share of `size` rows, on the device; every process draws for the joint batch."""
    weight, permutation = draw_mix(distributed.world() * size, alpha, rng)
    numbers = np.array(weight), distributed.own_rows(permutation)
    return Mix(*(send(torch.from_numpy(number), device) for number in numbers))


@dataclass(frozen=True)
class Views:
    """Generated images [B, 3, H, W], and what the encoder says of the new view: code [B, C], feature [B, D].

    reconstruction  the mesh of the photo, the code of the photo
    novel           the turned mesh, the code of the photo
    cycle           the mesh of the photo, the code of the new view
    mixed           the mesh of the photo, the mixed code
    told            [B], each row's part in the losses of generated views, see `told_rows`; None: all count alike
    """

    reconstruction: Tensor
    novel: Tensor
    cycle: Tensor
    mixed: Tensor
    code_novel: Tensor
    feature_novel: Tensor
    told: Tensor | None = None

    @property
    def fakes(self) -> dict[str, Tensor]:
        return {"rec": self.reconstruction, "nv": self.novel, "cyc": self.cycle, "mix": self.mixed}


def told_rows(batch: Batch) -> tuple[Batch, Tensor | None]:
    """The batch with a stand-in for each mesh in which no body is seen, and each row's part in the losses of generated views.

    Parts [B] float32: 0 where one of its meshes has none, else the size of the joint batch over how many are told, so that a mean
    over all rows is the mean over those.

    Nothing can be learnt from a picture without contrast: the instance norms behind it multiply gradients until they are
    infinite. So its row gets a ramp of grey, and no loss. None: all rows are told, as it nearly always is; on a GPU and in
    several processes the parts are given always, since to look would be to wait.
    """
    mesh, novel = batch.mesh, batch.mesh_novel
    if mesh is None or novel is None:
        return batch, None
    seen, seen_novel = (shows_body(mesh_to_unit(picture))[:, 0] for picture in (mesh, novel))  # [B]
    told = seen & seen_novel
    if distributed.world() == 1 and told.device.type == "cpu" and told.numpy().all():
        return batch, None
    ramp = torch.linspace(-1, 1, mesh.shape[2], dtype=mesh.dtype, device=mesh.device)[:, None]  # [H, 1]
    mesh, novel = (
        torch.where(shown[:, None, None, None], picture, ramp) for shown, picture in ((seen, mesh), (seen_novel, novel))
    )
    parts = told.to(torch.float32)
    count = distributed.sum_(parts.sum())
    parts = parts * (distributed.world() * len(parts) / count.clamp_min(1))
    return replace(batch, mesh=mesh, mesh_novel=novel), parts


def generate_views(encoder: IdentityEncoder, generator: Generator, batch: Batch, code: Tensor, mixed_code: Tensor) -> Views:
    """The four generated views of one batch.

    Arguments:
        encoder: in the mode and with the gradients that it shall have; one pass over the new views.
        generator: decodes the four views.
        batch: mesh and mesh_novel [B, 1, H, W] in [-1, 1].
        code: [B, C], the encoder's codes of batch.image; without graph where the encoder does not learn.
        mixed_code: [B, C], see `Mix`.

    Gradient: to generator, encoder (where its parameters ask for one), code and mixed_code.
    Source: Chen et al., arXiv 2301.00725, the joint iteration.
    """
    if batch.mesh is None or batch.mesh_novel is None:
        raise ValueError("generate_views: batch must have mesh and mesh_novel; its loader was opened without meshes")
    # The generator has no layer that mixes the samples of a batch.
    structure, structure_novel = together(generator.encode, [batch.mesh, batch.mesh_novel])
    reconstruction, novel, mixed = together(
        generator.decode, [structure, structure_novel, structure], [code, code, mixed_code], pixels=batch.image[:, 0].numel()
    )
    code_novel, feature_novel = encoder(novel)
    cycle = generator.decode(structure, code_novel)
    return Views(reconstruction, novel, cycle, mixed, code_novel, feature_novel)
