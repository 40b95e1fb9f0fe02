"""Files written whole: the old content or the new one, never a part, and an error that names path and reason."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import IO

import pytest

from gcl_fast.errors import FileError, GclError
from gcl_fast.files import check_writable, write_whole


def names(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"\x00\xff\r\n", b"\x00\xff\r\n"),
        ("Ärger\n", "Ärger\n".encode()),
        (os.fsdecode(b"caf\xe9\n"), b"caf\\udce9\n"),
        ("", b""),
        (lambda file: [file.write(part) for part in (b"one ", b"two")], b"one two"),
    ],
)
def test_each_kind_of_content_is_written_as_it_is(tmp_path, content, expected):
    path = tmp_path / "deep" / "er" / "file.bin"
    for target in (path, str(path)):  # anew, and over what is there
        assert write_whole(target, content) == path
        assert path.read_bytes() == expected and names(path.parent) == ["file.bin"]


def test_a_function_may_seek_in_the_file(tmp_path):
    def content(file: IO[bytes]) -> None:
        file.write(b"length?body")
        file.seek(0)
        file.write(b"6     :")

    assert write_whole(tmp_path / "a", content).read_bytes() == b"6     :body"


@pytest.mark.parametrize("error", [ValueError("half way"), KeyboardInterrupt(), GclError("ours")])
def test_what_the_content_raises_passes_and_leaves_the_old_file(tmp_path, error):
    path = write_whole(tmp_path / "a", b"old")

    def content(file: IO[bytes]) -> None:
        file.write(b"new")
        raise error

    with pytest.raises(type(error)) as caught:
        write_whole(path, content)
    assert caught.value is error
    assert path.read_bytes() == b"old" and names(tmp_path) == ["a"]


def test_a_full_disk_names_path_and_reason_and_leaves_the_old_file(tmp_path):
    path = write_whole(tmp_path / "a", b"old")

    def full(file: IO[bytes]) -> None:
        file.write(b"new")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(FileError, match=f"cannot write {path}: No space left on device") as caught:
        write_whole(path, full)
    assert isinstance(caught.value, OSError) and isinstance(caught.value.__cause__, OSError)
    assert path.read_bytes() == b"old" and names(tmp_path) == ["a"]


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    blocked = tmp_path / "a"
    blocked.write_bytes(b"a file")
    with pytest.raises(FileError, match=f"cannot write {blocked / 'b'}: "):
        write_whole(blocked / "b", b"new")
    with pytest.raises(FileError, match=f"cannot write {tmp_path}: "):
        write_whole(tmp_path, b"new")  # a folder is there
    assert blocked.read_bytes() == b"a file" and names(tmp_path) == ["a"]
    assert names(tmp_path.parent).count(tmp_path.name) == 1 and not list(tmp_path.parent.glob(f".{tmp_path.stem}.*.tmp*"))


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="the superuser may write everywhere")
def test_a_folder_without_permission_is_named(tmp_path):
    folder = tmp_path / "locked"
    folder.mkdir(mode=0o500)
    try:
        with pytest.raises(FileError, match=f"cannot write {folder / 'a'}: Permission denied"):
            write_whole(folder / "a", b"new")
        assert names(folder) == []
    finally:
        folder.chmod(0o700)


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs SIGKILL")
def test_a_writer_that_is_killed_leaves_the_old_file(tmp_path):
    path = write_whole(tmp_path / "a", b"old")
    script = (
        "import os, signal, sys\n"
        "from gcl_fast.files import write_whole\n"
        "def content(file):\n"
        "    file.write(b'new' * 100_000)\n"
        "    file.flush()\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
        "write_whole(sys.argv[1], content)\n"
    )
    done = subprocess.run([sys.executable, "-c", script, str(path)], check=False)
    assert done.returncode == -signal.SIGKILL
    assert path.read_bytes() == b"old"
    assert write_whole(path, b"new").read_bytes() == b"new"  # what the killed one left is in nobody's way


def test_what_killed_writers_left_is_removed_where_the_file_is_to_be_written(tmp_path):
    """Old halves of this very file alone: another may be another writer's."""
    gone, new, other, foreign = (tmp_path / f".{name}" for name in ("a.1.2.tmp.npz", "a.3.4.tmp.npz", "a.b.1.2.tmp.npz", "a.npz"))
    for path in (gone, new, other, foreign):
        path.write_bytes(b"half")
    for path in (gone, other, foreign):
        os.utime(path, (0, 0))
    check_writable(tmp_path / "a.npz")
    assert names(tmp_path) == sorted(path.name for path in (new, other, foreign))


def test_two_writers_at_once_leave_the_whole_of_one(tmp_path):
    path, contents = tmp_path / "a", [bytes([n]) * 200_000 for n in range(2)]
    errors: list[BaseException] = []
    seen: set[bytes] = set()
    write_whole(path, contents[0])

    def write(content: bytes) -> None:
        try:
            for _ in range(10):
                write_whole(path, content)
        except BaseException as error:
            errors.append(error)

    writers = [threading.Thread(target=write, args=(content,)) for content in contents]
    for writer in writers:
        writer.start()
    while any(writer.is_alive() for writer in writers):
        seen.add(path.read_bytes())
    for writer in writers:
        writer.join()
    assert not errors and seen <= set(contents) and path.read_bytes() in contents and names(tmp_path) == ["a"]
