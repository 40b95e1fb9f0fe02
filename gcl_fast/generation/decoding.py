"""Decoding with a trained generator: reconstructions, novel views, mixes of two identities.

Images are [.., 3, H, W] float, ImageNet-normalised; meshes [.., 1, H, W] float in [-1, 1]. Everything runs in eval
mode without gradient; the modules' training flags are put back afterwards.

`bodies` (row i the body of image i) are what a `GuidedGenerator` carries the photo's pixels by; it cannot do without.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from gcl_fast.guides import Bodies, Guide, GuidedGenerator, ViewRasters, between_photos, turned_view
from gcl_fast.guides.guide import ground_of
from gcl_fast.models import Generator, IdentityEncoder
from gcl_fast.models.modes import evaluating

MAX_DECODED = 32  # images decoded at once: bounds memory, changes nothing else


def _check_image(image: Tensor, name: str) -> None:
    if not isinstance(image, Tensor) or image.dim() != 4 or image.shape[1] != 3:
        raise ValueError(f"{name}: expected a tensor [B, 3, H, W], got {list(getattr(image, 'shape', []))}")


def _check_mesh(mesh: Tensor, name: str, image: Tensor, *, views: bool) -> None:
    batch, _, height, width = image.shape
    wanted = f"[{batch}, {'R, ' if views else ''}1, {height}, {width}]"
    shape = list(getattr(mesh, "shape", []))
    if len(shape) != 4 + views or shape[0] != batch or shape[-3:] != [1, height, width]:
        raise ValueError(f"{name}: expected a tensor {wanted}, got {shape}")


def _decode(generator: Generator, mesh: Tensor, code: Tensor) -> Tensor:
    """meshes [N, 1, H, W] and codes [N, C] -> images [N, 3, H, W], in chunks."""
    parts = zip(torch.split(mesh, MAX_DECODED), torch.split(code, MAX_DECODED), strict=True)
    return torch.cat([generator.decode(generator.encode(m), c).float() for m, c in parts])


def _needed(bodies: Bodies | None) -> Bodies:
    if bodies is None:
        raise ValueError("bodies: a GuidedGenerator needs the bodies of the images, got None")
    return bodies


def _rows(bodies: Bodies, start: int, count: int) -> ViewRasters:
    """`count` bodies from `start` on, in their photos' views."""
    return bodies.seen(torch.arange(start, start + count, device=bodies.vertices.device))


def _guided(generator: GuidedGenerator, guide: Guide, code: Tensor) -> Tensor:
    return generator.paint(generator.encode(guide.mesh), code, guide)


def reconstruct(
    encoder: IdentityEncoder, generator: Generator, image: Tensor, mesh: Tensor, *, bodies: Bodies | None = None
) -> Tensor:
    """image [B, 3, H, W] and its mesh [B, 1, H, W] -> G(E_str(mesh), E_id(image).code) [B, 3, H, W]; guided by its own pixels
    where the generator is guided."""
    _check_image(image, "image")
    _check_mesh(mesh, "mesh", image, views=False)
    if len(image) == 0:
        return image.new_zeros(image.shape)
    with evaluating(encoder, generator):
        code = encoder(image)[0]
        if not isinstance(generator, GuidedGenerator):
            return _decode(generator, mesh, code)
        return _guided_turns(generator, image, mesh[:, None], code, _needed(bodies), (None,))[:, 0]


def novel_views(
    encoder: IdentityEncoder,
    generator: Generator,
    image: Tensor,
    meshes: Tensor,
    *,
    bodies: Bodies | None = None,
    yaws: Sequence[float] = (),
) -> Tensor:
    """image [B, 3, H, W] and R turned meshes of each [B, R, 1, H, W] -> the same people so turned [B, R, 3, H, W]; yaws: by how
    many degrees, for a GuidedGenerator."""
    _check_image(image, "image")
    _check_mesh(meshes, "meshes", image, views=True)
    batch, views, _, height, width = meshes.shape
    if batch * views == 0:
        return image.new_zeros(batch, views, 3, height, width)
    with evaluating(encoder, generator):
        code = encoder(image)[0]
        if isinstance(generator, GuidedGenerator):
            if len(yaws) != views:
                raise ValueError(f"yaws: expected the {views} angles of the meshes, got {len(yaws)}")
            return _guided_turns(generator, image, meshes, code, _needed(bodies), yaws)
        code = code.repeat_interleave(views, dim=0)  # [B*R, C]
        return _decode(generator, meshes.flatten(0, 1), code).view(batch, views, 3, height, width)


def _guided_turns(
    generator: GuidedGenerator, image: Tensor, meshes: Tensor, code: Tensor, bodies: Bodies, yaws: Sequence[float] | tuple[None]
) -> Tensor:
    """The views [B, R, 3, H, W] at each yaw; None: the photo's own view."""
    views = [(b, r) for b in range(len(image)) for r in range(len(yaws))]
    parts = []
    for start in range(0, len(views), MAX_DECODED):
        chosen = views[start : start + MAX_DECODED]
        first, last = chosen[0][0], chosen[-1][0] + 1
        photo = _rows(bodies, first, last - first)
        ground = ground_of(image[first:last], photo.covered)
        row = torch.tensor([b - first for b, _ in chosen], device=image.device)  # a photo for each of its views
        turn = torch.tensor([r for _, r in chosen], device=image.device)
        source = photo.rows(row)
        target = source
        if yaws[0] is not None:
            target = bodies.seen(first + row, torch.tensor(yaws, dtype=torch.float32, device=image.device)[turn])
        guide = turned_view(image[first + row], source, target, meshes[first + row, turn], (ground[0][row], ground[1][row]))
        parts.append(_guided(generator, guide, code[first + row]))
    return torch.cat(parts).view(len(image), len(yaws), *image.shape[1:])


def identity_mix(
    encoder: IdentityEncoder,
    generator: Generator,
    image_a: Tensor,
    image_b: Tensor,
    mesh_a: Tensor,
    weights: Sequence[float],
    *,
    bodies: tuple[Bodies, Bodies] | None = None,
) -> Tensor:
    """The body and pose of a with the identity code w * a + (1 - w) * b, one image for each w.

    Arguments:
        image_a, image_b: [B, 3, H, W]; mesh_a: [B, 1, H, W]; bodies: of a and of b.
        weights: M shares of a; 1 = reconstruction of a, 0 = a dressed as b.

    Returns: [B, M, 3, H, W].
    """
    _check_image(image_a, "image_a")
    _check_image(image_b, "image_b")
    _check_mesh(mesh_a, "mesh_a", image_a, views=False)
    if image_b.shape != image_a.shape:
        raise ValueError(f"image_b: expected the shape of image_a {list(image_a.shape)}, got {list(image_b.shape)}")
    batch, amount = len(image_a), len(weights)
    if batch * amount == 0:
        return image_a.new_zeros(batch, amount, *image_a.shape[1:])
    with evaluating(encoder, generator):
        code_a, code_b = encoder(image_a)[0], encoder(image_b)[0]  # [B, C]
        if isinstance(generator, GuidedGenerator):
            if bodies is None:
                raise ValueError("bodies: a GuidedGenerator needs the bodies of both images, got None")
            body_a, body_b = (_rows(side, 0, batch) for side in bodies)
            mixes, ground = [], ground_of(image_a, body_a.covered)
            for weight in weights:
                guide = between_photos(image_a, image_b, body_b, body_a, mesh_a, weight, ground)
                mixes.append(_guided(generator, guide, weight * code_a + (1 - weight) * code_b))
            return torch.stack(mixes, 1)
        share = torch.tensor(list(weights), dtype=code_a.dtype, device=code_a.device).view(1, amount, 1)
        code = share * code_a[:, None] + (1 - share) * code_b[:, None]  # [B, M, C]
        meshes = mesh_a.repeat_interleave(amount, dim=0)  # [B*M, 1, H, W]
        return _decode(generator, meshes, code.flatten(0, 1)).view(batch, amount, *image_a.shape[1:])
