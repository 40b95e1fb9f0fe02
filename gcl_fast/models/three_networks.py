"""The three networks of the method, held together."""

from __future__ import annotations

from dataclasses import dataclass

from gcl_fast.models.discriminator import Discriminator
from gcl_fast.models.generator import Generator
from gcl_fast.models.identity import IdentityEncoder


@dataclass
class Networks:
    """Identity encoder, generator and discriminator of one run."""

    encoder: IdentityEncoder
    generator: Generator
    discriminator: Discriminator
