"""Between plain values (YAML, checkpoints) and dataclasses, strictly: an unknown key or a bad value is a ConfigError that
names it."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import types
import typing
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from gcl_fast.errors import ConfigError, did_you_mean

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Section = TypeVar("Section", bound="DataclassInstance")
# What runs of earlier commits hold: (key, class) -> its key and value today.
RENAMED: dict[tuple[str, str], Callable[[Any], tuple[str, Any]]] = {
    ("amp", "TrainConfig"): lambda value: ("precision", "fp32" if value in ("off", False) else value)  # YAML 1.1: off is false
}


def require(ok: bool, name: str, expected: str, got: object) -> None:
    if not ok:
        raise ConfigError(f"{name} must be {expected}, got {got!r}")


def positive(section: object, *names: str) -> None:
    """Or None, where a field may be."""
    for name in names:
        value = getattr(section, name)
        require(value is None or value > 0, f"{type(section).__name__}.{name}", "above 0", value)
        require(value != math.inf, f"{type(section).__name__}.{name}", "finite", value)


def two_images(section: object, batch_size: int) -> None:
    """A batch for training: batch norm cannot learn from a single image."""
    require(batch_size >= 2, f"{type(section).__name__}.batch_size", "at least 2, which batch norm needs", batch_size)


def not_negative(section: object, *names: str) -> None:
    for name in names:
        value = getattr(section, name)
        require(value >= 0, f"{type(section).__name__}.{name}", "at least 0", value)
        require(value != math.inf, f"{type(section).__name__}.{name}", "finite", value)


def after_epochs(section: object, *names: str) -> None:
    """Lists of epochs after which something happens; or None, where a field may be."""
    for name in names:
        value = getattr(section, name)
        require(
            value is None or all(epoch >= 1 for epoch in value), f"{type(section).__name__}.{name}", "epochs of at least 1", value
        )


def shares(section: object, *names: str) -> None:
    for name in names:
        value = getattr(section, name)
        require(0 <= value <= 1, f"{type(section).__name__}.{name}", "a share, 0 to 1", value)


def shares_below_one(section: object, *names: str) -> None:
    for name in names:
        value = getattr(section, name)
        require(0 <= value < 1, f"{type(section).__name__}.{name}", "a share, 0 to below 1", value)


def to_dict(config: DataclassInstance) -> dict[str, Any]:
    """Plain containers only, for YAML and checkpoints."""
    return {key: _plain(value) for key, value in dataclasses.asdict(config).items()}


def _plain(value: object) -> object:
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    return [_plain(inner) for inner in value] if isinstance(value, (tuple, list)) else value


def from_dict(kind: type[Section], values: Mapping[str, Any], where: str = "", base: Section | None = None) -> Section:
    """Build the dataclass `kind` from plain values, strictly.

    Arguments:
        values: field -> value, sections as mappings of their own; keys of earlier versions are understood.
        where: what stands before a key in errors, as "stage1.".
        base: an instance whose fields stand where `values` says nothing; without it the defaults do.

    Errors: ConfigError that names the key, what it must be and what came.
    """
    hints = typing.get_type_hints(kind)
    start = base if base is not None else kind()
    merged: dict[str, Any] = {field.name: getattr(start, field.name) for field in dataclasses.fields(kind)}
    for given, value in values.items():
        key = given
        if (key, kind.__name__) in RENAMED:
            key, value = RENAMED[key, kind.__name__](value)
        if key not in merged:
            hint = _as_section(str(key), merged) or did_you_mean(str(key), merged, before=where)
            hint = hint or f"; known keys: {', '.join(sorted(merged))}"
            raise ConfigError(f"unknown configuration key {where}{key}{hint}")
        merged[key] = _convert(value, hints[key], where + key, getattr(start, key))
    try:
        return kind(**merged)
    except ConfigError as error:  # names the class, which somebody who writes YAML does not know
        raise ConfigError(where + str(error).removeprefix(f"{kind.__name__}.")) from None


def _as_section(key: str, known: Mapping[str, Any]) -> str:
    """'; write ...' for a section's key that is spelt as its flag is; empty for others."""
    section, dot, rest = key.partition(".")
    written = ": {".join([section, *rest.split(".")])
    return f"; write {written}: ...{'}' * written.count('{')}" if dot and dataclasses.is_dataclass(known.get(section)) else ""


def _convert(value: Any, kind: Any, where: str, base: Any = None) -> Any:
    """`value` as an instance of the type that a field is annotated with; `base`: the section whose fields it changes."""
    origin = typing.get_origin(kind)
    if dataclasses.is_dataclass(kind):
        require(isinstance(value, Mapping), where, "a section of keys", value)
        return from_dict(typing.cast("type[DataclassInstance]", kind), value, where + ".", base)
    if origin is Literal:
        choices = typing.get_args(kind)
        require(value in choices, where, "one of " + ", ".join(map(repr, choices)), value)
        return value
    if origin in (typing.Union, types.UnionType):
        inner = [k for k in typing.get_args(kind) if k is not type(None)]
        return None if value is None else _convert(value, inner[0], where)
    if origin is tuple:
        require(isinstance(value, (list, tuple)), where, "a list", value)
        return tuple(_convert(v, typing.get_args(kind)[0], f"{where}[{i}]") for i, v in enumerate(value))
    return _scalar(value, kind, where)


def _scalar(value: Any, kind: type, where: str) -> Any:
    if kind is float and isinstance(value, (int, str)) and not isinstance(value, bool):
        with contextlib.suppress(ValueError, OverflowError):  # YAML 1.1 reads 1e-4 as text
            value = float(value)
    right = isinstance(value, kind) and not (kind is int and isinstance(value, bool))
    words = {"int": "a whole number", "float": "a number", "str": "text", "bool": "true or false"}
    require(right, where, words[kind.__name__], value)
    require(kind is not float or math.isfinite(value), where, "finite", value)
    return value
