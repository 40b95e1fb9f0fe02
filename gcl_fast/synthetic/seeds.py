"""One independent random stream for every thing in the world, so that no draw depends on the order of work."""

from __future__ import annotations

import zlib

import numpy as np


def stream(seed: int, purpose: str, *indices: int) -> np.random.Generator:
    """Generator keyed by (seed, purpose, indices): the same key gives the same numbers whatever was drawn before."""
    key = np.random.SeedSequence([seed, zlib.crc32(purpose.encode()), *indices])
    return np.random.Generator(np.random.Philox(key))
