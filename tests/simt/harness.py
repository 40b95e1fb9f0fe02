"""Compiles a driver of tests/simt with sanitizers, once for each version of its sources, and runs its kernels on arrays."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path

import numpy as np

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
CSRC = Path(os.environ.get("GCL_SIMT_CSRC") or ROOT / "csrc")  # faults.py names a copy with a planted fault
BUILD = CSRC.parent / "build" / "simt"
ORDERS = ("forward", "reverse", "random")
KERNEL_ORDERS = ("forward", "random")  # all three for every case of a kernel would take half as long again
MIXED = "mixed"  # random, several blocks at once, and a thread stops after every atomic; not with the race detector
FLAGS = ("-std=c++20", "-g1", "-O1", "-Wall", "-Wextra", "-ffp-contract=off", "-DGCL_SIMT", f"-I{HERE}", f"-I{CSRC}")
SANITIZE = ("-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-fno-omit-frame-pointer")
RACE = ("-fsanitize=thread", "-DSIMT_RACE")  # instruments accesses; race.h is what they call
SECONDS = 120  # of one run; a kernel that loops for ever is an error, not a hang


class SimtError(RuntimeError):
    """The emulation or a sanitizer found a fault; the text is what it said."""


def compiler() -> list[str]:
    program = shutil.which(os.environ.get("CXX") or "g++") or shutil.which("c++")
    if program is None:
        raise SimtError("no C++ compiler: install g++ or set CXX")
    return [program]


def digest_of(sources: list[Path], *words: str, csrc: Path = CSRC) -> str:
    """A name for what is made from these files, every header of csrc and of the emulation, and these words."""
    headers = [*HERE.glob("*.h"), *csrc.rglob("*.h"), *csrc.rglob("*.cuh")]
    digest = hashlib.sha256("\n".join(words).encode())
    for source in sorted([*sources, *headers]):
        digest.update(f"{source.name}\n".encode() + source.read_bytes())
    return digest.hexdigest()[:16]


@cache
def build(driver: str, race: bool = False) -> Path:
    """The program made from `driver`.cpp, with sanitizers, or with the race detector.

    The program is kept below build/simt, by the contents of every source.
    """
    command = compiler()
    version = subprocess.run([*command, "--version"], capture_output=True, text=True, check=True).stdout
    # clang: the program's thread-local storage stays its own
    flags = [*FLAGS, *(RACE if race else SANITIZE), *(["-shared-libasan"] if "clang" in version and not race else [])]
    name = f"{driver}-{'race' if race else 'sanitized'}"
    program = BUILD / f"{name}-{digest_of([HERE / f'{driver}.cpp'], *command, version, *flags)}"
    if program.is_file():
        return program
    program.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=program.parent) as folder:
        linked, compiled = Path(folder) / driver, Path(folder) / f"{driver}.o"
        compile_command = [*command, *flags, "-c", str(HERE / f"{driver}.cpp"), "-o", str(compiled)]
        link_command = [*command, *(() if race else flags), str(compiled), "-o", str(linked)]  # the detector is in the program
        done = subprocess.run(compile_command, capture_output=True, text=True, check=False)
        if done.returncode == 0:
            done = subprocess.run(link_command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            missing = any(name in done.stderr for name in ("lasan", "lubsan", "libasan", "libubsan"))
            hint = " (install the compiler's libasan and libubsan)" if missing else ""
            raise SimtError(f"{driver}.cpp does not compile{hint}:\n{done.stderr[:6000]}")
        for old in program.parent.glob(f"{name}-*"):
            if old != program:  # another process may have made it meanwhile
                old.unlink(missing_ok=True)
        linked.replace(program)  # whole or not at all
    return program


def run(
    driver: str, kernel: str, order: str, seed: int = 0, *, race: bool = False, **arrays: np.ndarray | int
) -> dict[str, np.ndarray]:
    """Runs `kernel` of `driver` with threads in `order`: "forward", "reverse", "random" or "mixed" (by `seed`).

    Address and undefined-behaviour sanitizers watch, or the race detector with `race`. Integers travel as int64. Returns
    the driver's outputs by name. Raises SimtError with the finding.
    """
    if race and order == MIXED:
        raise ValueError("the race detector watches one block at a time: not in mixed order")
    program = build(driver, race)
    with tempfile.TemporaryDirectory() as folder:
        into, out = Path(folder) / "in", Path(folder) / "out"
        with into.open("wb") as file:
            for name, value in arrays.items():
                array = np.ascontiguousarray(value, dtype=np.int64 if isinstance(value, int) else None)
                shape = np.shape(value)  # ascontiguousarray makes a scalar one-dimensional
                file.write(" ".join([name, f"{array.dtype.kind}{array.dtype.itemsize}", *map(str, shape)]).encode() + b"\n")
                file.write(array.tobytes() + b"\n")
        # Leaks are of no interest in a test program, and looking for them fails under a debugger.
        environment = os.environ | {
            "ASAN_OPTIONS": "detect_leaks=0:detect_stack_use_after_return=0:abort_on_error=0:exitcode=99",
            "UBSAN_OPTIONS": "print_stacktrace=1",
        }
        command = [str(program), kernel, str(into), str(out), order, str(seed)]
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=SECONDS, env=environment)
        except subprocess.TimeoutExpired:
            raise SimtError(f"{driver}: {kernel} with threads in {order} order did not end in {SECONDS} s") from None
        if done.returncode != 0:
            said = done.stderr[:6000]
            raise SimtError(f"{driver}: {kernel} with threads in {order} order, exit code {done.returncode}:\n{said}")
        return _read(out)


def _read(path: Path) -> dict[str, np.ndarray]:
    arrays: dict[str, np.ndarray] = {}
    with path.open("rb") as file:
        while line := file.readline():
            name, kind, *shape = line.decode().split()
            dtype = np.dtype(kind)
            sizes = tuple(map(int, shape))
            count = int(np.prod(sizes, dtype=np.int64))
            arrays[name] = np.frombuffer(file.read(count * dtype.itemsize), dtype).reshape(sizes)
            file.read(1)
    return arrays
