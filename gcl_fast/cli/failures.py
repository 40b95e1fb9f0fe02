"""How a command's error is shown: in one line where the user can mend it, with its traceback where only a programmer can."""

from __future__ import annotations

import errno
import sys
import traceback

from gcl_fast.errors import GclError
from gcl_fast.packages import package_of

CPU_ALLOCATOR = "DefaultCPUAllocator: can't allocate memory"  # torch raises a plain RuntimeError for it
NEEDED = ("torch", "numpy")  # by the package itself
# What the machine refuses, whoever asks; then a bad disk and a lost server; the last three are of paths that cannot be.
REFUSED = (
    *(errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.ENFILE),
    *(errno.EIO, errno.ESTALE),
    *(errno.ENAMETOOLONG, errno.ENOTDIR, errno.ELOOP),
)
TRACEBACK_HELP = "--traceback, known to every command, shows where an error came from."
SMALLER = "choose a smaller batch size or image size, or fewer workers (--stage1.batch-size ..., --height, --width, --workers)"


def explain(error: BaseException) -> str | None:
    """What the user can do about an error, or None for a programming error.

    The user's are the package's own errors, an optional package that is not installed, too little memory, and what the
    operating system refuses (permissions, a full disk).
    """
    if isinstance(error, GclError):
        return str(error)
    if isinstance(error, ModuleNotFoundError):
        if error.name in NEEDED:
            return f"gcl_fast needs {error.name}, which is not installed: pip install {error.name}"
        package = package_of(error.name or "")
        return None if package is None else f"{package.purpose} needs {error.name}, which is not installed: {package.install}"
    torch = sys.modules.get("torch")  # not imported for this: it may be what is missing
    if torch is not None and isinstance(error, torch.OutOfMemoryError):
        return f"not enough memory on the GPU: {SMALLER}. torch says: {_first_line(error)}"
    if isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and CPU_ALLOCATOR in str(error)):
        reason = _first_line(error)
        return f"not enough memory: {SMALLER}" + (f". {reason}" if reason else "")
    if isinstance(error, OSError) and error.errno in REFUSED:
        return str(error)
    return None


def show(error: BaseException, title: str, *, with_traceback: bool) -> int:
    """Print an error to stderr; the exit code of its command."""
    line = explain(error)
    if with_traceback or line is None:
        traceback.print_exception(error)
    if line is None:
        line = (
            "this is a mistake in gcl_fast, not in what you gave it: please report it with the lines above, your command "
            "and what `gcl-fast doctor` prints"
        )
    print(f"{title}: {line}", file=sys.stderr)
    return 1


def _first_line(error: BaseException) -> str:
    return str(error).partition("\n")[0]
