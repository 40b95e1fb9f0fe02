"""Typed options of the commands, from YAML and flags."""

from __future__ import annotations

import argparse
from typing import Any, TypeVar

from gcl_fast.config import TrainConfig, load_shipped, load_yaml, shipped

T = TypeVar("T")


def base_config(argv: list[str]) -> tuple[TrainConfig, list[str]]:
    """The configuration that flags then change: --config FILE (or a shipped name), else the dataset's shipped YAML."""
    first = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    first.add_argument("--config")
    first.add_argument("--dataset")
    known, _ = first.parse_known_args(argv)
    rest = list(argv)
    if known.config is not None:
        at = next(i for i, a in enumerate(rest) if a == "--config" or a.startswith("--config="))
        del rest[at : at + (1 if "=" in rest[at] else 2)]
        return (load_shipped(known.config) if known.config in shipped() else load_yaml(known.config)), rest
    if known.dataset in shipped():
        return load_shipped(known.dataset), rest
    return TrainConfig(), rest


def positional() -> Any:
    """Marks a field as an argument without a flag."""
    import tyro

    return tyro.conf.Positional


def parse(kind: type[T], argv: list[str], *, prog: str, default: Any = None) -> T:
    """tyro over the dataclass `kind`: every field is a flag, nested ones as --section.field."""
    import tyro

    return tyro.cli(kind, args=argv, prog=prog, default=default)
