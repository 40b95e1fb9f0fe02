"""Which encoder made features: a short text to keep beside them."""

from __future__ import annotations

import hashlib

from torch import nn


def fingerprint(encoder: nn.Module, image_size: tuple[int, int]) -> str:
    """The start of a SHA-256 of all weights with their names, and the size of the images: "0123456789abcdef at 256 x 128".

    The same on every machine and device. Whole numbers (how many batches a norm has seen) make no features and do not count.
    """
    digest = hashlib.sha256()
    for name, value in sorted(encoder.state_dict().items()):
        if value.is_floating_point():
            digest.update(f"{name} {list(value.shape)} ".encode())
            digest.update(value.float().cpu().contiguous().numpy().astype("<f4", copy=False))
    return f"{digest.hexdigest()[:16]} at {image_size[0]} x {image_size[1]}"
