"""One view's guide, and how it is made from photos and the flow between views."""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
import torch.nn.functional as F
from torch import Tensor

from gcl_fast.guides.bodies import ViewRasters
from gcl_fast.guides.holes import fill_holes
from gcl_fast.ops import MeshFlow

GUIDE_CHANNELS = 10
MARGIN = 2  # pixels around a silhouette that hair and loose clothes may cover: no background is taken from there
IN_FRONT = 0.2  # what a pixel counts that lies in front of a surface, beside one that shows it
LEAST = 0.02  # share of body pixels under a bilinear read from which its colour is the body's


@dataclass(frozen=True)
class Guide:
    """What is known of a view before it is painted. Images are ImageNet-normalised, masks 0 or 1 in the images' dtype.

    mesh        [B, 1, H, W] in [-1, 1], the shaded body
    texture     [B, 3, H, W], the photo's pixels at their places on the body; 0 off the body
    visible     [B, 1, H, W], the body where the photo shows its surface
    occluded    [B, 1, H, W], the body where it does not: texture there is a guess, see `clothed`
    background  [B, 3, H, W], the photo without its body, the hole filled from around
    known       [B, 1, H, W], where the background is the photo's own
    """

    mesh: Tensor
    texture: Tensor
    visible: Tensor
    occluded: Tensor
    background: Tensor
    known: Tensor

    def channels(self) -> Tensor:
        """[B, 10, H, W], as a network reads them."""
        return torch.cat([getattr(self, field.name) for field in fields(self)], 1)

    @property
    def body(self) -> Tensor:
        """[B, 1, H, W]: where texture is."""
        return self.visible + self.occluded

    def composite(self) -> Tensor:
        """The view without any painting: texture on the body, background elsewhere; [B, 3, H, W]."""
        return torch.where(self.body > 0, self.texture, self.background)


def carry(image: Tensor, silhouette: Tensor, grid: Tensor) -> Tensor:
    """`image` [B, C, H, W] read at `grid` [B, H, W, 2] from the pixels of the body alone (silhouette [B, 1, H, W]), so that no
    background bleeds in at its edge. Gradient to image."""
    inside = silhouette.to(image.dtype)
    both = F.grid_sample(
        torch.cat([image * inside, inside], 1), grid.to(image.dtype), mode="bilinear", padding_mode="border", align_corners=False
    )
    colour, share = both[:, :-1], both[:, -1:]
    plain = F.grid_sample(image, grid.to(image.dtype), mode="bilinear", padding_mode="border", align_corners=False)
    return torch.where(share > LEAST, colour / share.clamp_min(LEAST), plain)


def grown(silhouette: Tensor) -> Tensor:
    """A mask [B, 1, H, W] bool with a margin around it."""
    return F.max_pool2d(silhouette.float(), 2 * MARGIN + 1, 1, MARGIN) > 0


def ground_of(image: Tensor, *silhouettes: Tensor) -> tuple[Tensor, Tensor]:
    """(background, known) of a photo: all but the people at `silhouettes` [B, 1, H, W] bool, which are filled."""
    hidden = grown(torch.stack(silhouettes).any(0))
    known = (~hidden).to(image.dtype)
    return fill_holes(image, known), known


def clothed(texture: Tensor, visible: Tensor, occluded: Tensor, seen_through: Tensor | None = None) -> Tensor:
    """Texture [B, 3, H, W] with a guess of the body where the photo does not show it: a smooth continuation of what is visible
    around it and, weakly, of what the photo shows in front of it, since clothes go around a body. Masks [B, 1, H, W] of 0 and 1;
    seen_through: where the texture of an occluded pixel is what lies in front of it (everywhere, unless given)."""
    through = occluded if seen_through is None else seen_through
    guess = fill_holes(texture, visible + IN_FRONT * through)
    return torch.where(occluded > 0, guess, texture) * (visible + occluded)


def shown_and_hidden(flow: MeshFlow, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """(visible, occluded) of a guide, each [B, 1, H, W] of 0 and 1."""
    return (flow.visibility[:, None] == 1).to(dtype), (flow.visibility[:, None] == 2).to(dtype)


def turned_view(
    image: Tensor, source: ViewRasters, target: ViewRasters, mesh: Tensor, ground: tuple[Tensor, Tensor] | None = None
) -> Guide:
    """Guide of the view `target` from a picture of the view `source` of the same bodies, row by row; mesh: of the target; ground:
    its background and where that is known, the picture's own where it is not given."""
    flow = source.flow_to(target)
    visible, occluded = shown_and_hidden(flow, image.dtype)
    texture = clothed(carry(image, source.silhouette, flow.grid), visible, occluded)
    return Guide(mesh, texture, visible, occluded, *(ground_of(image, source.covered) if ground is None else ground))


def untold_view(image: Tensor, source: ViewRasters, other: ViewRasters, mesh: Tensor) -> Guide:
    """Guide of the photo's own view, told only what a photo from the view `other` could tell of it: so reconstruction learns to
    fill in what a new view will lack, instead of copying."""
    there, back = source.flow_to(other), other.flow_to(source)
    carried = carry(image, source.silhouette, there.grid)  # the other view's picture
    through = carry(carried, other.silhouette, back.grid)  # ... seen from here, where the other view hides the surface
    shown = F.grid_sample((there.visibility == 1)[:, None].to(image.dtype), back.grid.to(image.dtype), align_corners=False) > 0.99
    visible, occluded = shown_and_hidden(back, image.dtype)
    texture = clothed(torch.where(visible > 0, image, through), visible, occluded, occluded * shown)
    background, known = ground_of(image, source.covered, other.covered)
    return Guide(mesh, texture, visible, occluded, background, known)


def between_photos(
    images: Tensor,
    partners: Tensor,
    source: ViewRasters,
    target: ViewRasters,
    mesh: Tensor,
    weight: Tensor | float,
    ground: tuple[Tensor, Tensor] | None = None,
) -> Guide:
    """Guide of a mix of two people in the pose of the first: `weight` of their own texture, the rest their partner's, carried
    from the partner's photo onto this body. source: the partners' bodies, target: these; ground: as `turned_view` has it."""
    flow = source.flow_to(target)
    visible, occluded = shown_and_hidden(flow, images.dtype)
    texture = weight * images + (1 - weight) * carry(partners, source.silhouette, flow.grid)
    ground = ground_of(images, target.covered) if ground is None else ground
    return Guide(mesh, clothed(texture, visible, occluded), visible, occluded, *ground)
