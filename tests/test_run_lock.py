"""The lock of a run folder: free when its holder is gone, whichever way it went.

That a run in use is refused by name stands in test_run_folders.py.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from gcl_fast.errors import RunError
from gcl_fast.runs import lock as run_lock
from gcl_fast.runs.lock import RunLock


def test_the_lock_of_a_killed_process_is_free(tmp_path: Path) -> None:
    code = (
        f"import sys, time; from pathlib import Path; from gcl_fast.runs.lock import RunLock; RunLock(Path({str(tmp_path)!r}));"
    )
    code += "print('held', flush=True); time.sleep(600)"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stdout.readline() == "held\n"
        with pytest.raises(RunError, match=f"process {process.pid} on"):
            RunLock(tmp_path)
        process.kill()
    assert (tmp_path / run_lock.NAME).exists()
    RunLock(tmp_path).release()


def test_a_lock_that_its_holder_removes_meanwhile_is_taken_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else two processes hold the folder: one by the file that is gone, the next by a new one."""
    take, taken = RunLock._take, []

    def removed_at_first(lock: RunLock, file: int) -> None:
        take(lock, file)
        taken.append(file)
        if len(taken) == 1:
            lock.path.unlink()

    monkeypatch.setattr(RunLock, "_take", removed_at_first)
    held = RunLock(tmp_path)
    try:
        with pytest.raises(RunError, match="in use"):
            RunLock(tmp_path)
    finally:
        held.release()


def _sign(folder: Path, host: str, process: int, age: float) -> None:
    path = folder / run_lock.NAME
    path.write_text(json.dumps({"process": process, "host": host, "began": "2024-02-03 04:05:06"}))
    os.utime(path, (time.time() - age,) * 2)


def test_a_lock_of_another_machine_is_free_when_it_shows_no_life(tmp_path: Path) -> None:
    _sign(tmp_path, "elsewhere", 7, age=20)
    with pytest.raises(RunError, match=r"process 7 on elsewhere, which began at 2024-02-03 04:05:06.*or delete"):
        RunLock(tmp_path)
    _sign(tmp_path, "elsewhere", 7, age=run_lock.STALE + 1)
    RunLock(tmp_path).release()


def test_file_systems_without_locks_go_by_the_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_locks(*_: object) -> None:
        raise OSError(95, "not supported")

    monkeypatch.setattr(run_lock.fcntl, "flock", no_locks)
    _sign(tmp_path, socket.gethostname(), os.getppid(), age=0)
    with pytest.raises(RunError, match="in use"):
        RunLock(tmp_path)
    gone = multiprocessing.get_context("spawn").Process(target=int)
    gone.start()
    gone.join()
    _sign(tmp_path, socket.gethostname(), int(gone.pid or 0), age=0)
    RunLock(tmp_path).release()
    (tmp_path / run_lock.NAME).write_text("{half")
    RunLock(tmp_path).release()

    def of_another_user(*_: object) -> None:
        raise PermissionError(1, "not permitted")

    monkeypatch.setattr(run_lock.os, "kill", of_another_user)
    _sign(tmp_path, socket.gethostname(), 7, age=0)
    with pytest.raises(RunError, match="in use by process 7"):
        RunLock(tmp_path)
    (tmp_path / run_lock.NAME).unlink()
    RunLock(tmp_path).release()
