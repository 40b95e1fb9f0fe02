"""The generated views of one iteration where the generator is guided by the photo's own pixels."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from gcl_fast import distributed
from gcl_fast.guides import Bodies, GuidedGenerator, Variance, ViewRasters, between_photos, turned_view, untold_view
from gcl_fast.guides.guide import ground_of
from gcl_fast.models.identity import IdentityEncoder
from gcl_fast.records import Batch
from gcl_fast.stages.passes import together
from gcl_fast.stages.views import Mix, Views


def both_views(bodies: Bodies, batch: Batch) -> tuple[Batch, tuple[ViewRasters, ViewRasters]]:
    """The bodies of a batch in their photos' views and turned by batch.yaw, and the batch with the meshes of these."""
    if batch.yaw is None:
        raise ValueError("both_views: batch must have yaw, the angles of its new views; its loader was opened without turns")
    photo, turned = bodies.seen(batch.index), bodies.seen(batch.index, batch.yaw)
    dtype = batch.image.dtype
    return replace(batch, mesh=photo.mesh.to(dtype), mesh_novel=turned.mesh.to(dtype)), (photo, turned)


def generate_guided_views(
    encoder: IdentityEncoder,
    generator: GuidedGenerator,
    bodies: Bodies,
    seen: tuple[ViewRasters, ViewRasters],
    batch: Batch,
    code: Tensor,
    mixed_code: Tensor,
    mix: Mix | None,
    variance: Variance | None = None,
) -> Views:
    """`views.generate_views` with guides.

    Reconstruction is told only what the new view could tell of the photo, so that it learns to fill in; the new view has the
    photo's texture and background, or by `variance` another photo's; the cycle has the new view's texture and the photo's
    background; the mix both people's texture on the body of the first.

    Arguments: as there, and
        bodies: of the list that batch.index points into; seen: those of the batch, see `both_views`.
        mix: None mixes each row with itself.
        variance: what else changes in the new view before the encoder sees it.

    Gradient: as there, and through the carried pixels of the new view.
    """
    if batch.mesh is None or batch.mesh_novel is None:
        raise ValueError("generate_guided_views: batch must have mesh and mesh_novel, as both_views gives them")
    image, mesh = batch.image, batch.mesh
    photo, turned = seen
    structure, structure_novel = together(generator.encode, [mesh, batch.mesh_novel])

    told = untold_view(image, photo, turned, mesh)
    reconstruction = generator.paint(structure, code, told)

    own_ground = ground = ground_of(image, photo.covered)
    if variance is not None:
        other_image, other = joint_rows(batch, bodies, photo, variance.backdrop)
        ground = variance.before_backdrop(own_ground, ground_of(other_image, other.covered))
    novel = generator.paint(structure_novel, code, turned_view(image, photo, turned, batch.mesh_novel, ground))
    code_novel, feature_novel = encoder(novel if variance is None else variance.apply(novel))

    # The cycle is asked for the photo: where the new view may have another background, it gets the photo's.
    behind = None if variance is None else (told.background, told.known)
    cycle = generator.paint(structure, code_novel, turned_view(novel, turned, photo, mesh, behind))

    weight, (partner, partner_body) = (
        (1.0, (image, photo)) if mix is None else (mix.weight, joint_rows(batch, bodies, photo, mix.partner))
    )
    mixed_guide = between_photos(image, partner, partner_body, photo, mesh, weight, own_ground)
    mixed = generator.paint(structure, mixed_code, mixed_guide)
    return Views(reconstruction, novel, cycle, mixed, code_novel, feature_novel)


def joint_rows(batch: Batch, bodies: Bodies, photo: ViewRasters, order: Tensor) -> tuple[Tensor, ViewRasters]:
    """Photos [B, 3, H, W] and bodies of rows `order` [B] of the joint batch, whichever process has them."""
    if distributed.world() == 1:
        return batch.image[order], photo.rows(order)
    with torch.no_grad():
        index, image = distributed.gather_rows(batch.index), distributed.gather_rows(batch.image)
    return image[order], bodies.seen(index[order])
