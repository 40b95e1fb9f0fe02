"""The networks of the method: identity encoder, generator, discriminator, and the import of published checkpoints."""

from gcl_fast.models.convert import convert_official
from gcl_fast.models.discriminator import Discriminator
from gcl_fast.models.generator import Generator
from gcl_fast.models.identity import IdentityEncoder
from gcl_fast.models.weights import load_weights

__all__ = ["Discriminator", "Generator", "IdentityEncoder", "convert_official", "load_weights"]
