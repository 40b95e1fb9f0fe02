"""The package's own errors: what a user can mend. The command line shows them as one line; any other error is a programming
error and keeps its traceback.

Each also is the built-in error that fits, so that callers may catch either.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class GclError(Exception):
    """Base of the package's own errors. The message names what is wrong, what was expected and what to do."""


class InputError(GclError, ValueError):
    """A setting, flag, file content or data set that cannot be used as it is."""


class ConfigError(InputError):
    """A configuration key or value that cannot be used; the message names it."""


class NoRadiusError(InputError):
    """A radius of clusters that is to be the mean of a share of the distances, and the share asks for none of them, or for too
    many."""


class MissingFileError(GclError, FileNotFoundError):
    """A file or folder that is not where it was looked for; the message names it and what was expected there."""


class MissingMeshesError(MissingFileError):
    """A data set without the meshes that stages 2 and 3 need."""


class FileError(GclError, OSError):
    """A file that cannot be read or written; the message names it and the reason."""


class FolderInUseError(GclError, FileExistsError):
    """A folder that was to be written but holds something else; the message names it and what to do."""


class CheckpointError(GclError, RuntimeError):
    """A checkpoint that cannot be used; the message names the file and what is wrong with it."""


class RunError(GclError, RuntimeError):
    """A run folder that cannot be used as asked; the message says what to do."""


class StageError(GclError, RuntimeError):
    """Training cannot go on; the message says why and what to try."""


class PeerError(GclError, RuntimeError):
    """Another process of the run ended; its own message says why."""


class NativeRuntimeError(GclError, RuntimeError):
    """An op without a kernel: nothing was built, or not for this device; the message says how to build it."""


class MissingPackageError(GclError, ImportError):
    """An optional package that is not installed; the message says how to install it."""


class TooLittleMemoryError(GclError, MemoryError):
    """What was asked for does not fit into memory; the message says how much is needed and what to choose instead."""


class ProgramError(GclError, RuntimeError):
    """Another program that was started for a command failed; its own output says why."""


class ExportError(GclError, RuntimeError):
    """An exported file that failed its check and was not kept; the message names it and the difference."""


def did_you_mean(given: str, names: Iterable[str], *, cutoff: float = 0.6, before: str = "") -> str:
    """'; did you mean NAME?', for the end of a message: the name spelt most like the one given, what stands `before` it added;
    empty where none is alike (cutoff: 0 any, 1 the same)."""
    near = difflib.get_close_matches(given, list(names), n=1, cutoff=cutoff)
    return f"; did you mean {before}{near[0]}?" if near else ""
