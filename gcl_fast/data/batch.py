"""The one value that travels from any loader into any stage."""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
from torch import Tensor


@dataclass
class Batch:
    """One batch of training or evaluation samples.

    image       [B, 3, H, W] float32, ImageNet-normalised
    mesh        [B, 1, H, W] float32 in [-1, 1], the body in the photo's own view; None where no mesh was asked for
    mesh_novel  [B, 1, H, W] float32 in [-1, 1], the same body turned; None likewise
    pid         [B] int64, person (-1 unknown); never used for training
    camera      [B] int64, zero-based
    index       [B] int64, position in the records the loader was made from (row of the memory bank)
    """

    image: Tensor
    mesh: Tensor | None
    mesh_novel: Tensor | None
    pid: Tensor
    camera: Tensor
    index: Tensor

    def __len__(self) -> int:
        return self.image.shape[0]

    def to(
        self, device: torch.device | str, *, non_blocking: bool = True, memory_format: torch.memory_format = torch.preserve_format
    ) -> Batch:
        """memory_format: of the images."""

        def move(tensor: Tensor | None) -> Tensor | None:
            layout = memory_format if tensor is not None and tensor.dim() == 4 else torch.preserve_format
            return None if tensor is None else tensor.to(device, non_blocking=non_blocking, memory_format=layout)

        return Batch(**{f.name: move(getattr(self, f.name)) for f in fields(self)})
