"""The flags that a dataclass has on the command line."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Annotated, Literal, NamedTuple, get_args, get_origin, get_type_hints

import tyro

POSITIONAL = get_args(tyro.conf.Positional[int])[1:]  # how tyro marks what is no flag


class Flag(NamedTuple):
    """A flag without its dashes: 'stage1.' and 'lr-steps', the dataclass it is a field of, and its choices where it has any."""

    section: str
    leaf: str
    owner: type
    choices: tuple[str, ...]

    @property
    def name(self) -> str:
        return self.section + self.leaf


def flags_of(kind: type, section: str = "") -> Iterator[Flag]:
    """Those of nested dataclasses too. A section that is annotated for tyro has none of its own name before its flags."""
    for field, hint in get_type_hints(kind, include_extras=True).items():
        annotated = get_origin(hint) is Annotated
        marks, plain = (hint.__metadata__, get_args(hint)[0]) if annotated else ((), hint)
        if any(mark in POSITIONAL for mark in marks):
            continue
        leaf = field.replace("_", "-")
        if dataclasses.is_dataclass(plain) and isinstance(plain, type):
            yield from flags_of(plain, section if annotated else f"{section}{leaf}.")
        else:
            yield Flag(section, leaf, kind, _choices(plain))


def _choices(hint: object) -> tuple[str, ...]:
    """Of a Literal, or of one beside None."""
    if get_origin(hint) is Literal:
        return tuple(map(str, get_args(hint)))
    inner = [part for part in get_args(hint) if part is not type(None)]
    if len(inner) == 1 and type(None) in get_args(hint) and get_origin(inner[0]) is Literal:
        return ("None", *_choices(inner[0]))
    return ()
