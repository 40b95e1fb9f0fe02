"""From stored uint8 pictures to what a network reads, a batch at a time: crop, flip, colours, erasing, normalisation.

Planar pictures [3, H, W], since that is how they leave. On the CPU row by row, each picture staying in the cache of the
core; elsewhere as few operations on the whole batch. Both do what `Augment.apply` and `normalise` do: on the CPU the same
bits, elsewhere to the rounding of a division (and colour jitter to one grey level).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from gcl_fast.data.augment import FILL, LUMA, Change, jitter_colors
from gcl_fast.images import IMAGENET_MEAN, IMAGENET_STD

MESH_MEAN = MESH_STD = 0.5


def finish_images(pixels: Tensor | Sequence[Tensor], changes: Sequence[Change] | None, pad: int) -> Tensor:
    """uint8 [B, 3, H, W], or on the CPU B pictures [3, H, W], to float32 [B, 3, H, W], augmented by `changes` (drawn with
    that `pad`; None: not at all) and ImageNet-normalised, on the same device."""
    if isinstance(pixels, Tensor) and pixels.device.type != "cpu":
        return finish_batch(pixels, changes, pad)
    mean, std = torch.tensor(IMAGENET_MEAN).view(3, 1, 1), torch.tensor(IMAGENET_STD).view(3, 1, 1)
    out = torch.empty(len(pixels), *pixels[0].shape, dtype=torch.float32)  # [B, 3, H, W]
    for row, picture in enumerate(pixels):
        x = out[row]
        if changes is None:
            x.copy_(picture)
        else:
            _change(x, picture, changes[row], pad)
        x.div_(255).sub_(mean).div_(std)
    return out


def finish_meshes(grey: Tensor | Sequence[Tensor]) -> Tensor:
    """uint8 [B, H, W], or B pictures [H, W], to float32 [B, 1, H, W] in [-1, 1], on the same device."""
    out = torch.empty(len(grey), 1, *grey[0].shape, dtype=torch.float32, device=grey[0].device)
    if isinstance(grey, Tensor):
        return out.copy_(grey.unsqueeze(1)).div_(255).sub_(MESH_MEAN).div_(MESH_STD)
    for row, picture in enumerate(grey):
        out[row, 0].copy_(picture).div_(255).sub_(MESH_MEAN).div_(MESH_STD)
    return out


def _change(out: Tensor, picture: Tensor, change: Change, pad: int) -> None:
    """The changed picture [3, H, W] as floats 0 .. 255 into `out`."""
    height, width = picture.shape[1:]
    down, right = change.top - pad, change.left - pad
    source = picture.flip(2) if change.flip else picture
    if down or right:
        out.zero_()
    rows, columns = _overlap(height, down), _overlap(width, right)
    out[:, rows[0], columns[0]] = source[:, rows[1], columns[1]]
    if change.jitter is not None:
        pixels = out.to(torch.uint8).movedim(0, -1).contiguous().numpy()  # [H, W, 3]
        out.copy_(torch.from_numpy(jitter_colors(pixels, change.jitter)).movedim(-1, 0))
    if change.box is not None:
        top, left, h, w = change.box
        out[:, top : top + h, left : left + w] = torch.from_numpy(FILL.astype(np.float32)).view(3, 1, 1)


def _overlap(size: int, shift: int) -> tuple[slice, slice]:
    """Where out[i] = source[i + shift] has both: the part of out, the part of source."""
    low, high = max(0, -shift), min(size, size - shift)
    high = max(low, high)
    return slice(low, high), slice(low + shift, high + shift)


def finish_batch(pixels: Tensor, changes: Sequence[Change] | None, pad: int) -> Tensor:
    """`finish_images` as operations on the whole batch: for a GPU, where each operation costs a launch."""
    x = pixels  # [B, 3, H, W] uint8
    device = pixels.device
    if changes is not None:
        batch, _, height, width = pixels.shape
        numbers = np.array([(c.flip, c.top, c.left, *(c.box or (0, 0, 0, 0))) for c in changes], dtype=np.int64)
        table = _send(torch.from_numpy(numbers.reshape(batch, 7)), device)
        flip, top, left, box_top, box_left, box_h, box_w = (column.unsqueeze(1) for column in table.unbind(1))  # [B, 1]
        y, across = torch.arange(height, device=device), torch.arange(width, device=device)
        row = y + top - pad  # [B, H]
        column = across + left - pad  # [B, W], in the flipped picture
        inside = ((row >= 0) & (row < height))[:, :, None] & ((column >= 0) & (column < width))[:, None, :]  # [B, H, W]
        column = torch.where(flip.bool(), width - 1 - column, column).clamp(0, width - 1)
        at = row.clamp(0, height - 1)[:, :, None] * width + column[:, None, :]  # [B, H, W]
        x = pixels.flatten(2).gather(2, at.flatten(1)[:, None].expand(-1, 3, -1)).view_as(pixels)
        x = x * inside.unsqueeze(1)
        if any(c.jitter is not None for c in changes):
            x = _jitter_batch(x, _send(torch.tensor([c.jitter for c in changes], dtype=torch.float32), device))
        erased = ((y >= box_top) & (y < box_top + box_h))[:, :, None] & ((across >= box_left) & (across < box_left + box_w))[
            :, None, :
        ]
        x = torch.where(erased.unsqueeze(1), _column(FILL.tolist(), device).to(torch.uint8), x)
    x = x.to(torch.float32)
    return x.div_(255).sub_(_column(IMAGENET_MEAN, device)).div_(_column(IMAGENET_STD, device))


def _jitter_batch(pixels: Tensor, factors: Tensor) -> Tensor:
    """`jitter_colors` of uint8 [B, 3, H, W] with factors [B, 3]."""
    luma = _column(LUMA.tolist(), pixels.device)
    brightness, contrast, saturation = (f.view(-1, 1, 1, 1) for f in factors.unbind(1))
    x = pixels.to(torch.float32) * brightness
    grey = (x * luma).sum(1, keepdim=True).mean((2, 3), keepdim=True)
    x = (grey + (x - grey) * contrast).clamp(0, 255)
    grey = (x * luma).sum(1, keepdim=True)
    return (grey + (x - grey) * saturation).clamp(0, 255).round().to(torch.uint8)


_columns: dict[tuple, Tensor] = {}


def _column(values: Sequence[float], device: torch.device) -> Tensor:
    """[3, 1, 1] on a device, sent there once."""
    key = (tuple(values), device)
    if key not in _columns:
        _columns[key] = torch.tensor(values, dtype=torch.float32, device=device).view(3, 1, 1)
    return _columns[key]


def _send(tensor: Tensor, device: torch.device) -> Tensor:
    """To a device without waiting for it."""
    return (tensor.pin_memory() if device.type == "cuda" else tensor).to(device, non_blocking=True)
