"""What `auto` became in a run: shown, written down, and kept when the run goes on elsewhere."""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from gcl_fast import distributed
from gcl_fast.config import TrainConfig
from gcl_fast.records import Record
from gcl_fast.runs.device import choose_device
from gcl_fast.stages.amp import use_bfloat16
from gcl_fast.stages.layout import chosen

# settings that may be auto, and keep what they became
CHOICES = ("device", "precision", "channels_last", "compile", "loader", "meshes")
Resolved = dict[str, Any]


def choices_of(config: TrainConfig) -> Resolved:
    """What `auto` becomes on this machine, for the settings that the machine decides."""
    device = choose_device(config.device)
    return {
        "device": device.type if config.device == "auto" else config.device,
        "precision": "bf16" if use_bfloat16(config.precision, device) else "fp32",
        "channels_last": "on" if chosen(config.channels_last, device.type == "cuda") else "off",
        "compile": "off" if config.compile == "auto" else config.compile,
    }


def resolve(config: TrainConfig, *, loader: str, meshes: str, listed: list[Record], root: Path) -> Resolved:
    """All that is written down of a run beside its settings.

    Arguments:
        loader, meshes: the kinds in use.
        listed: the training images that the data set lists.
        root: the folder that their names are told from.
    """
    device = choose_device(config.device)
    return {
        **choices_of(config),
        "loader": loader,
        "meshes": meshes,
        "threads": torch.get_num_threads(),
        "hardware": torch.cuda.get_device_name(device) if device.type == "cuda" else processor(),
        "processes": distributed.world(),
        "torch": str(torch.__version__),
        "images": len(listed),
        "image_names": name_digest(listed, root),
    }


def processor() -> str:
    """The processor's name as the system gives it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or platform.machine())


def name_digest(records: list[Record], root: Path) -> str:
    """A short fingerprint of the images' names below a data set's folder, wherever that lies."""

    def name(record: Record) -> str:
        path = record.path
        return path.relative_to(root).as_posix() if path.is_relative_to(root) else path.name

    names = "\n".join(f"{name(record)} {record.pid} {record.camera}" for record in records)
    return hashlib.sha256(names.encode(errors="surrogateescape")).hexdigest()[:16]


def line_of(resolved: Mapping[str, Any]) -> str:
    """What the console says of it."""
    shown = ("device", "precision", "loader", "meshes", "channels_last", "compile", "threads")
    parts = [f"{key} {resolved[key]}" for key in shown]
    return "  ".join(parts + ([f"processes {resolved['processes']}"] if resolved["processes"] > 1 else []))


def keep_choices(config: TrainConfig, before: Mapping[str, Any]) -> TrainConfig:
    """The settings with `auto` replaced by what it was in the run so far; says where this machine would choose otherwise."""
    open_choices = [key for key in CHOICES if getattr(config, key) == "auto" and key in before]
    kept = {key: before[key] for key in open_choices}
    if kept.get("device") == "cuda" and not torch.cuda.is_available():
        print("device: the run was on a GPU, none is found here: it goes on on the CPU")
        del kept["device"]
    if kept.get("meshes") == "none":
        del kept["meshes"]
    here = choices_of(config)
    for key, value in kept.items():
        if here.get(key, value) != value:
            print(f"{key}: {here[key]} would be chosen here, the run keeps its {value}")
    return replace(config, **kept)
