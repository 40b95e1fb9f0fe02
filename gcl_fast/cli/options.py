"""Typed options of the commands: dataclasses whose fields are flags, and the YAML file that gives `train` its defaults."""

from __future__ import annotations

import argparse
import contextlib
import inspect
import io
import re
import sys
from pathlib import Path
from typing import Annotated, TypeVar

import tyro

from gcl_fast.cli.failures import TRACEBACK_HELP
from gcl_fast.cli.flags import flags_of
from gcl_fast.cli.mistyped import mistakes
from gcl_fast.config import METHODS, TrainConfig, load_shipped, load_yaml, recipe, shipped
from gcl_fast.config.plain_values import require
from gcl_fast.constants import DATASETS
from gcl_fast.errors import ConfigError

Options = TypeVar("Options")
SizeOption = Annotated[
    int | None, tyro.conf.arg(metavar="INT", help_behavior_hint="(default: as trained; 256 x 128 for weights that do not tell)")
]


def named(flag: str, path: Path | None, *suffixes: str) -> None:
    """Errors: ConfigError where a file that is to be written has none of the suffixes."""
    require(path is None or path.suffix.lower() in suffixes, flag, f"a file named {suffixes[0]}", str(path))


def named_png(flag: str, path: Path | None) -> None:
    named(flag, path, ".png")


def default_config(argv: list[str]) -> TrainConfig:
    """The settings that flags then change: those of --config (a shipped name or a YAML file), else of the data set's shipped
    YAML, over the recipe of --method. These flags stay in `argv` for tyro; they are read early because its defaults depend on
    them."""
    early = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    early.add_argument("--config", nargs="?")  # nothing after it: tyro says so
    early.add_argument("--dataset", nargs="?")
    early.add_argument("--method", "--stage1.method", nargs="?", dest="method")
    flags, _ = early.parse_known_args(argv)
    method = flags.method if flags.method in METHODS else None  # tyro names a wrong one
    if flags.config is not None:
        return load_shipped(flags.config, method=method) if flags.config in shipped() else load_yaml(flags.config, method=method)
    if flags.dataset is None:  # what --dataset is then
        return load_shipped(TrainConfig().dataset, method=method)
    return load_shipped(flags.dataset, method=method) if flags.dataset in DATASETS else recipe(method or METHODS[0])


def parse(kind: type[Options], argv: list[str], *, prog: str, default: Options | None = None) -> Options:
    """The command line read into the dataclass `kind`: every field is a flag, nested ones as --section.field.

    Errors: SystemExit 2 after a message for a flag or value that cannot be, 0 after --help.
    """
    description = f"{inspect.getdoc(kind)}\n\n{TRACEBACK_HELP}"
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            if default is None:
                return tyro.cli(kind, args=argv, prog=prog, description=description)
            return tyro.cli(kind, args=argv, prog=prog, description=description, default=default)
    except (SystemExit, ConfigError) as end:
        error = _cause(end)
        if error is not None:
            lines = [_by_flag(kind, error, argv)]
        else:
            lines = mistakes(kind, argv, prog=prog) if isinstance(end, SystemExit) and end.code else []
        if not lines:
            sys.stderr.write(said.getvalue())
            raise
        for line in lines:
            print(f"{prog}: {line}", file=sys.stderr)
        raise SystemExit(2) from None


def _cause(end: BaseException | None) -> ConfigError | None:
    """The bad setting that tyro ended over, which it would show by the names of our classes."""
    while end is not None and not isinstance(end, ConfigError):
        end = end.__context__
    return end


def _by_flag(kind: type, error: ConfigError, argv: list[str]) -> str:
    """'Stage1Config.lr must be ...' -> '--stage1.lr must be ...'; the flag that was given where two sections are of one class."""
    name, _, words = str(error).partition(" ")
    owner, _, field = name.partition(".")
    sections = dict.fromkeys(flag.section for flag in flags_of(kind) if flag.owner.__name__ == owner)
    flags = [f"--{section}{field}".replace("_", "-") for section in sections]
    given = [flag for flag in flags if any(word.partition("=")[0] == flag for word in argv)]
    words = re.sub(r"^and (\w+) must", lambda match: f"and --{match[1].replace('_', '-')} must", words)  # two settings together
    return f"{(given or flags or [name])[0]} {words}"
