"""Between plain values (YAML, checkpoints) and dataclasses, strictly: an unknown key or a bad value is a ConfigError that
names it."""

from __future__ import annotations

import dataclasses
import difflib
import types
import typing
from collections.abc import Callable
from typing import Any, Literal

from gcl_fast.errors import ConfigError

# What runs of earlier commits hold: (key, class) -> its key and value today.
RENAMED: dict[tuple[str, str], Callable[[Any], tuple[str, Any]]] = {
    ("amp", "TrainConfig"): lambda value: ("precision", "fp32" if value in ("off", False) else value)  # YAML 1.1: off is false
}


def require(ok: bool, name: str, expected: str, got: object) -> None:
    if not ok:
        raise ConfigError(f"{name} must be {expected}, got {got!r}")


def positive(section: object, *names: str) -> None:
    for name in names:
        value = getattr(section, name)
        require(value > 0, f"{type(section).__name__}.{name}", "above 0", value)


def not_negative(section: object, *names: str) -> None:
    for name in names:
        value = getattr(section, name)
        require(value >= 0, f"{type(section).__name__}.{name}", "at least 0", value)


def to_dict(config: Any) -> dict[str, Any]:
    """Plain containers only, for YAML and checkpoints."""
    plain = dataclasses.asdict(config)

    def listed(value: Any) -> Any:
        if isinstance(value, dict):
            return {k: listed(v) for k, v in value.items()}
        return [listed(v) for v in value] if isinstance(value, (tuple, list)) else value

    return listed(plain)


def _convert(value: Any, kind: Any, where: str) -> Any:
    origin = typing.get_origin(kind)
    if dataclasses.is_dataclass(kind):
        if not isinstance(value, dict):
            raise ConfigError(f"{where} must be a section of keys, got {value!r}")
        return from_dict(kind, value, where + ".")
    if origin is Literal:
        require(value in typing.get_args(kind), where, "one of " + ", ".join(map(repr, typing.get_args(kind))), value)
        return value
    if origin in (typing.Union, types.UnionType):
        inner = [k for k in typing.get_args(kind) if k is not type(None)]
        return None if value is None else _convert(value, inner[0], where)
    if origin is tuple:
        require(isinstance(value, (list, tuple)), where, "a list", value)
        return tuple(_convert(v, typing.get_args(kind)[0], f"{where}[{i}]") for i, v in enumerate(value))
    if kind is float and isinstance(value, str):
        try:  # YAML 1.1 reads 1e-4 as text
            return float(value)
        except ValueError:
            pass
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    right = isinstance(value, kind) and not (kind is int and isinstance(value, bool))
    words = {"int": "a whole number", "float": "a number", "str": "text", "bool": "true or false"}
    require(right, where, words[kind.__name__], value)
    return value


def from_dict(kind: type, values: dict[str, Any], where: str = "", base: Any = None) -> Any:
    """Build the dataclass `kind` from plain values, strictly.

    base: an instance whose fields stand where `values` says nothing. Raises ConfigError naming the key.
    """
    hints = typing.get_type_hints(kind)
    known = {f.name for f in dataclasses.fields(kind)}
    merged: dict[str, Any] = {f.name: getattr(base, f.name) for f in dataclasses.fields(kind)} if base is not None else {}
    blank = base if base is not None else kind()
    for key, value in values.items():
        if (key, kind.__name__) in RENAMED:
            key, value = RENAMED[key, kind.__name__](value)
        if key not in known:
            near = difflib.get_close_matches(str(key), known, n=1)
            hint = f"; did you mean {where}{near[0]}?" if near else f"; known keys: {', '.join(sorted(known))}"
            raise ConfigError(f"unknown configuration key {where}{key}{hint}")
        if dataclasses.is_dataclass(hints[key]) and isinstance(value, dict):
            merged[key] = from_dict(hints[key], value, f"{where}{key}.", getattr(blank, key))
        else:
            merged[key] = _convert(value, hints[key], where + key)
    return kind(**merged)
