"""Comparing the weights of networks."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor


def equal(one: Mapping[str, Tensor], two: Mapping[str, Tensor]) -> bool:
    """Whether two state dicts hold the same names and numbers, to the bit of equal numbers."""
    return one.keys() == two.keys() and all(torch.equal(value, two[name]) for name, value in one.items())
