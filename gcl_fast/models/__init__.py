"""The networks of the method: identity encoder, generator, discriminator, and the import of published checkpoints."""

from .convert import convert_official
from .discriminator import Discriminator
from .generator import Generator
from .identity import IdentityEncoder
from .weights import load_weights

__all__ = ["Discriminator", "Generator", "IdentityEncoder", "convert_official", "load_weights"]
