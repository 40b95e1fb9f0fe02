"""From stored uint8 pictures to what a network reads, a batch at a time: crop, flip, colours, erasing, normalisation.

Planar pictures [3, H, W], since that is how they leave. On the CPU row by row through `augment.apply_change`, each picture
staying in the cache of the core; on a GPU as few operations on the whole batch (`finish_batch`), to the rounding of a division
(and colour jitter to one grey level). Every loader ends here; both forms share constants, draws and order with `augment`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from gcl_fast.data.augment import LUMA, Change, apply_change
from gcl_fast.data.resample import cropped, turned
from gcl_fast.images import mesh_from_uint8, normalise_
from gcl_fast.transfer import send


def finish_images(pixels: Tensor | Sequence[Tensor], changes: Sequence[Change] | None, pad: int) -> Tensor:
    """A batch of photos for a network, on the device of the pictures.

    Arguments:
        pixels: uint8 [B, 3, H, W], or on the CPU B pictures [3, H, W].
        changes: of each picture, drawn with that `pad`; None: not augmented.

    Returns: float32 [B, 3, H, W], ImageNet-normalised.
    """
    if isinstance(pixels, Tensor) and pixels.device.type != "cpu":
        return finish_batch(pixels, changes, pad)
    out = torch.empty(len(pixels), *pixels[0].shape, dtype=torch.float32)  # [B, 3, H, W]
    for row, picture in enumerate(pixels):
        if changes is None:
            out[row].copy_(picture)
        else:
            apply_change(out[row], picture, changes[row], pad)
        normalise_(out[row])
    return out


def finish_meshes(grey: Tensor | Sequence[Tensor]) -> Tensor:
    """uint8 [B, H, W], or B pictures [H, W], to float32 [B, 1, H, W] in [-1, 1], on the same device."""
    out = torch.empty(len(grey), 1, *grey[0].shape, dtype=torch.float32, device=grey[0].device)
    if isinstance(grey, Tensor):
        return mesh_from_uint8(grey.unsqueeze(1), out)
    for row, picture in enumerate(grey):
        mesh_from_uint8(picture, out[row, 0])
    return out


def finish_batch(pixels: Tensor, changes: Sequence[Change] | None, pad: int) -> Tensor:
    """`finish_images` as operations on the whole batch: for a GPU, where each operation costs a launch."""
    x = pixels  # [B, 3, H, W] uint8
    if changes:
        numbers = np.array([(c.flip, c.top, c.left, *(c.box or (0, 0, 0, 0))) for c in changes], dtype=np.int64)
        table = send(torch.from_numpy(numbers.reshape(len(changes), 7)), x.device)
        flip, top, left, *box = (column.unsqueeze(1) for column in table.unbind(1))  # [B, 1]
        if any(c.crop is not None for c in changes):
            whole = (0, 0, *x.shape[2:])
            x = cropped(x, send(torch.tensor([c.crop or whole for c in changes], dtype=torch.float32), x.device))
        x = _shifted(x, flip.bool(), top - pad, left - pad)
        if any(c.angle for c in changes):
            x = turned(x, send(torch.tensor([c.angle for c in changes], dtype=torch.float32), x.device))
        jitters = [c.jitter for c in changes]
        if any(jitter is not None for jitter in jitters):
            x = _jittered(x, send(torch.tensor(jitters, dtype=torch.float32), x.device))
        x = _erased(x, *box, fill=changes[0].fill)
    return normalise_(x.to(torch.float32))


def _shifted(pixels: Tensor, flip: Tensor, down: Tensor, right: Tensor) -> Tensor:
    """Pictures [B, 3, H, W] flipped where `flip`, then seen through a window moved by (down, right), black beside them."""
    height, width = pixels.shape[2:]
    row = torch.arange(height, device=pixels.device) + down  # [B, H]
    column = torch.arange(width, device=pixels.device) + right  # [B, W], in the flipped picture
    inside = ((row >= 0) & (row < height))[:, :, None] & ((column >= 0) & (column < width))[:, None, :]  # [B, H, W]
    column = torch.where(flip, width - 1 - column, column).clamp(0, width - 1)
    at = row.clamp(0, height - 1)[:, :, None] * width + column[:, None, :]  # [B, H, W]
    picked = pixels.flatten(2).gather(2, at.flatten(1)[:, None].expand(-1, 3, -1)).view_as(pixels)
    return picked * inside.unsqueeze(1)


def _jittered(pixels: Tensor, factors: Tensor) -> Tensor:
    """`jitter_colors` of uint8 [B, 3, H, W] with factors [B, 3]."""
    luma = _column(tuple(LUMA.tolist()), pixels.device)
    brightness, contrast, saturation = (f.view(-1, 1, 1, 1) for f in factors.unbind(1))
    x = pixels.to(torch.float32) * brightness
    grey = (x * luma).sum(1, keepdim=True).mean((2, 3), keepdim=True)
    x = (grey + (x - grey) * contrast).clamp(0, 255)
    grey = (x * luma).sum(1, keepdim=True)
    return (grey + (x - grey) * saturation).clamp(0, 255).round().to(torch.uint8)


def _erased(pixels: Tensor, top: Tensor, left: Tensor, height: Tensor, width: Tensor, *, fill: tuple[int, ...]) -> Tensor:
    """Pictures [B, 3, H, W] with a box of each filled; the box's numbers are [B, 1], the fill is that of the batch."""
    y, x = (torch.arange(n, device=pixels.device) for n in pixels.shape[2:])
    inside = ((y >= top) & (y < top + height))[:, :, None] & ((x >= left) & (x < left + width))[:, None, :]  # [B, H, W]
    return torch.where(inside.unsqueeze(1), _column(fill, pixels.device).to(torch.uint8), pixels)


_columns: dict[tuple[tuple[float, ...], torch.device], Tensor] = {}


def _column(values: tuple[float, ...], device: torch.device) -> Tensor:
    """[3, 1, 1] on a device, sent there once."""
    key = (values, device)
    if key not in _columns:
        _columns[key] = torch.tensor(values, dtype=torch.float32, device=device).view(3, 1, 1)
    return _columns[key]
