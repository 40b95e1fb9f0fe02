"""Images a second of the loaders: cached (warm), DALI (mixed decoding on a GPU), and the official way of loading."""

from __future__ import annotations

import importlib
from typing import Any

import torch

from bench import loader
from bench.gpu_check.catalogue import Number
from bench.gpu_check.measuring import Prepared

TOY = {"IMAGES": 16, "BATCH": 4, "BATCHES": 2, "SIZE": (32, 16)}
FULL = {"IMAGES": 512, "BATCH": 64, "BATCHES": 8}


def prepare(number: Number, device: torch.device) -> Prepared:
    case = number.case
    for name, value in (TOY if case["toy"] else FULL).items():
        setattr(loader, name, value)
    importlib.import_module("PIL")
    if case["loader"] == "dali":
        importlib.import_module("nvidia.dali")

    def check() -> str:
        if number.implementation == "native":
            loader.check(case, device)
            return loader.CHECK
        return "it is what the loaders are compared with"

    run = loader.call("native" if number.implementation == "native" else "reference", case, device)
    images = loader.BATCH * loader.BATCHES
    extra: dict[str, Any] = {"images": images, "images_per_batch": loader.BATCH}
    return Prepared([run], check, None, "files and threads", seconds="queued_seconds", rounds=10, profiled=False, extra=extra)
