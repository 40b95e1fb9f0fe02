"""One process, or one torchrun, at a time on a run folder."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import socket
import threading
import time
from pathlib import Path
from typing import Any

from gcl_fast.errors import FileError, RunError
from gcl_fast.files import make_folder

NAME = "run.lock"
BEAT = 20.0  # seconds between signs of life
STALE = 300.0  # seconds without one after which a process of another machine counts as gone


class RunLock:
    """Holds a run folder from `RunLock(run_dir)` to `release()`.

    The system drops the lock of a process that ends, however it ends. Where it does not carry locks from one machine to another
    (some network file systems) the file's own words count: who, where, and a sign of life every 20 seconds.

    Errors: RunError naming the process, machine and time where another holds it; FileError where the file cannot be written.
    """

    def __init__(self, run_dir: Path) -> None:
        self.path = make_folder(run_dir) / NAME
        try:
            self._file = self._opened()
        except OSError as error:
            raise FileError(f"cannot write {self.path}: {error.strerror or error}") from error
        self._ended = threading.Event()
        self._write()
        threading.Thread(target=self._beat, name="run-lock", daemon=True).start()

    def release(self) -> None:
        """Let others have the folder; may be called twice."""
        if self._ended.is_set():
            return
        self._ended.set()
        with contextlib.suppress(OSError):
            self.path.unlink()
        os.close(self._file)

    def _opened(self) -> int:
        while True:
            file = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o644)
            try:
                self._take(file)
                if self._is_there(file):
                    return file
            except BaseException:
                os.close(file)
                raise
            os.close(file)  # released and removed by its holder meanwhile: once more

    def _take(self, file: int) -> None:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            locked = True
        except BlockingIOError:
            raise self._refusal(file) from None
        except OSError:  # a file system without locks
            locked = False
        owner = _owner(file)
        if not owner:
            return
        here = owner.get("host") == socket.gethostname()
        if here and not locked and _lives(int(owner["process"])):
            raise self._refusal(file)
        if not here and time.time() - os.fstat(file).st_mtime < STALE:
            raise self._refusal(file)

    def _refusal(self, file: int) -> RunError:
        owner = _owner(file)
        who = "another process"
        if owner:
            who = f"process {owner['process']} on {owner['host']}, which began at {owner['began']}"
        elsewhere = ""
        if owner and owner["host"] != socket.gethostname():
            elsewhere = f"; if it is gone, wait {STALE / 60:.0f} minutes or delete {self.path}"
        return RunError(f"{self.path.parent} is in use by {who}: wait for it, stop it, or use another --name{elsewhere}")

    def _is_there(self, file: int) -> bool:
        try:
            return os.path.samestat(os.fstat(file), os.stat(self.path))
        except FileNotFoundError:
            return False

    def _write(self) -> None:
        began = time.strftime("%Y-%m-%d %H:%M:%S")
        text = json.dumps({"process": os.getpid(), "host": socket.gethostname(), "began": began}) + "\n"
        os.ftruncate(self._file, 0)
        os.pwrite(self._file, text.encode(), 0)

    def _beat(self) -> None:
        while not self._ended.wait(BEAT):
            with contextlib.suppress(OSError):
                os.utime(self.path)


def _owner(file: int) -> dict[str, Any]:
    """What a lock file says; {} where it says nothing."""
    try:
        owner = json.loads(os.pread(file, 4096, 0))
        return owner if {"process", "host", "began"} <= set(owner) else {}
    except (ValueError, TypeError):
        return {}


def _lives(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
