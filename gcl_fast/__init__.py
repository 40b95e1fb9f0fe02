"""gcl_fast: unsupervised person re-identification by generated views and memory-bank contrast.

    import gcl_fast

    gcl_fast.train(gcl_fast.config.TrainConfig(dataset="csv", root="photos"), stages=(1,))
    encoder = gcl_fast.load_encoder("runs/run")
    features = encoder(["a.jpg", "b.jpg"])  # [2, D], length 1

Importing the package needs torch and numpy only; the names below are loaded when they are first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gcl_fast import (
        compat,
        config,
        data,
        errors,
        evaluation,
        generation,
        images,
        memory,
        meshes,
        models,
        ops,
        pseudo_labels,
        records,
        reference,
        report,
        runs,
        stages,
        synthetic,
        visuals,
    )
    from gcl_fast.encoder import Encoder, load_encoder
    from gcl_fast.runs.training import train

__version__ = "0.1.0"
__all__ = [
    "Encoder",
    "compat",
    "config",
    "data",
    "errors",
    "evaluation",
    "generation",
    "images",
    "load_encoder",
    "memory",
    "meshes",
    "models",
    "ops",
    "pseudo_labels",
    "records",
    "reference",
    "report",
    "runs",
    "stages",
    "synthetic",
    "train",
    "visuals",
]

_HOMES = {"Encoder": "gcl_fast.encoder", "load_encoder": "gcl_fast.encoder", "train": "gcl_fast.runs.training"}


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module 'gcl_fast' has no attribute {name!r}")
    if name in _HOMES:
        value: object = getattr(importlib.import_module(_HOMES[name]), name)
        globals()[name] = value
        return value
    return importlib.import_module(f"gcl_fast.{name}")


def __dir__() -> list[str]:
    return sorted({*__all__, "__version__"})
