"""The pooled map as the feature: what MLC tests, and others compare without their head."""

from __future__ import annotations

from torch import Tensor, nn

from gcl_fast.models.identity import PARTS, IdentityEncoder


class BeforeNorm(nn.Module):
    """An identity encoder whose feature is the pooled map [B, C], before the head: image [B, 3, H, W] -> (code, feature).

    Source: Wang and Zhang, CVPR 2020 (MMCL), whose code tests features of its `pool5`.
    """

    def __init__(self, encoder: IdentityEncoder) -> None:
        super().__init__()
        self.encoder = encoder
        self.feature_dim = encoder.code_dim // PARTS

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        return self.encoder.pooled(image)
