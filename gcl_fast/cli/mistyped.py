"""Flags and choices that do not exist, each told in a line with what was probably meant."""

from __future__ import annotations

import difflib

from gcl_fast.cli.flags import flags_of
from gcl_fast.errors import did_you_mean

SHOWN = 4  # flags of one name, of which the first is taken to be meant


def mistakes(kind: type, argv: list[str], *, prog: str) -> list[str]:
    """What is wrong with the names of flags, and the values of those with choices, in a command line for the dataclass `kind`:
    a line each, none where tyro must say what is wrong."""
    known = {flag.name: flag.choices for flag in flags_of(kind)}
    lines = []
    for place, word in enumerate(argv):
        if not word.startswith("--") or len(word) < 3:
            continue
        name, joined, value = word[2:].partition("=")
        name = name.replace("_", "-")
        if name == "help" or name.startswith("tyro-"):
            continue
        if name not in known and _switched_on(name) not in known:
            lines.append(f"no option --{name}{_meant(name, list(known), argv)}; {prog} --help lists them")
            continue
        choices = known.get(name, ())
        if not joined:
            value = argv[place + 1] if place + 1 < len(argv) else ""
        if choices and value and not value.startswith("--") and value not in choices:
            lines.append(f"--{name} must be {_either(choices)}, got {value!r}{nearest(value, choices)}")
    return lines


def nearest(given: str, names: tuple[str, ...] | list[str]) -> str:
    """'; did you mean NAME?' for the name most like the one given; empty where none is."""
    within = [name for name in names if name.startswith(given)] if given else []
    return did_you_mean(given, within, cutoff=0.0) or did_you_mean(given, names)


def _switched_on(name: str) -> str:
    """'stage3.cluster.no-debias-cameras' -> 'stage3.cluster.debias-cameras'."""
    section, dot, leaf = name.rpartition(".")
    return f"{section}{dot}{leaf.removeprefix('no-')}"


def _meant(name: str, known: list[str], argv: list[str]) -> str:
    """The flags of other sections that end as this one does, the nearest section first; else the one spelt most alike."""
    leaf = name.rpartition(".")[2]
    same = [flag for flag in known if flag.rpartition(".")[2] == leaf]
    given = {word.partition("=")[2] or word for word in argv}
    same.sort(key=lambda flag: (not given & set(flag.split(".")[:-1]), flag.count(".")))  # sorted() keeps the order of the fields
    if same:
        others = ", ".join(f"--{flag}" for flag in same[1:SHOWN])
        more = " ..." if len(same) > SHOWN else ""
        return f"; did you mean --{same[0]}?" + (f" There are also {others}{more}" if others else "")
    if near := did_you_mean(name, known, before="--"):
        return near
    leaves = {flag.rpartition(".")[2]: flag for flag in reversed(known)}  # the first of a name
    close = difflib.get_close_matches(leaf, list(leaves), n=1, cutoff=0.75)
    return f"; did you mean --{leaves[close[0]]}?" if close else ""


def _either(choices: tuple[str, ...]) -> str:
    return f"{', '.join(choices[:-1])} or {choices[-1]}" if len(choices) > 1 else choices[0]
