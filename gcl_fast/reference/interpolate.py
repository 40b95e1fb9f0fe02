"""Plain definition of interpolate: one image at a time."""

from __future__ import annotations

from torch import Tensor


def interpolate(attributes: Tensor, faces: Tensor, face_id: Tensor, bary: Tensor) -> Tensor:
    """See `gcl_fast.ops.interpolate`: at every pixel the sum over the corners of the pixel's face of bary * attribute."""
    batch, height, width = face_id.shape
    out = bary.new_zeros(batch, height, width, attributes.shape[-1])
    for b in range(batch):
        values = attributes if attributes.dim() == 2 else attributes[b]  # [V, C]
        inside = face_id[b] >= 0  # [H, W]
        corners = values[faces[face_id[b][inside].long()].long()]  # [pixels, 3, C]
        out[b, inside] = (bary[b][inside].unsqueeze(-1) * corners).sum(1)
    return out
