"""Which image of a data set an estimator means by a name."""

from __future__ import annotations

import pathlib
import re
from collections.abc import Iterator, Mapping, Sequence

from gcl_fast.errors import InputError
from gcl_fast.images import IMAGE_SUFFIXES

Key = tuple[str, str]  # split and mesh key of an image
PERSON = re.compile(r"(.+)_(?:0|[1-9]\d?)")  # 4D-Humans writes <image>_<person>.obj
NUMBERED = (".obj", ".ply")


class ImageNames:
    """From an estimator's name of an image to the data set's: by as many folders of the path as they share, then by the stem."""

    def __init__(self, paths: Mapping[Key, pathlib.PurePath]) -> None:
        self.by_stem: dict[str, list[tuple[Key, tuple[str, ...]]]] = {}  # with the folders above it, the nearest first
        for key, path in paths.items():
            self.by_stem.setdefault(path.stem, []).append((key, path.parts[:-1][::-1]))
        self.paths = paths
        self._claims: dict[Key, tuple[int, str]] = {}  # folders shared, and the name without its person

    def key(self, name: str) -> Key | None:
        """The image that an estimator calls `name`; None where the data set has none, or a better name of that image came before.

        Errors: InputError where the name, or the image, may be one of several.
        """
        path = pathlib.PurePath(name.replace("\\", "/"))
        stem = next((stem for stem in _stems(path) if stem in self.by_stem), None)
        if stem is None:
            return None
        candidates, folders = self.by_stem[stem], path.parts[:-1][::-1]
        shared = [_common_length(above, folders) for _, above in candidates]
        if shared.count(max(shared)) > 1:
            raise InputError(f"the estimate {name} may be of {len(candidates)} images of that name; give more of the path")
        key = candidates[shared.index(max(shared))][0]
        return key if self._may_claim(key, max(shared), "/".join((*folders[::-1], stem)), name) else None

    def _may_claim(self, key: Key, shared: int, whole: str, name: str) -> bool:
        """Whether this is the best name of an image so far: estimates of other folders must not end in it by their stem alone."""
        before = self._claims.get(key)
        if before is not None and before[1] != whole:
            if shared < before[0]:
                return False
            if shared == before[0]:
                raise InputError(
                    f"the estimates {before[1]} and {name} may both be of the image {self.paths[key]}: put them under the "
                    "folders that the images lie in"
                )
        self._claims[key] = (shared, whole)
        return True

    def folders_shared(self, key: Key) -> int:
        """By how many folders the best name of an image agrees with it."""
        return self._claims[key][0]


def _stems(path: pathlib.PurePath) -> Iterator[str]:
    """Stems that an image may have: `000` for 000.jpg, 000.npz, 000.jpg.obj and, of surfaces, 000_0.obj."""
    yield path.stem
    yield path.name
    inner = pathlib.PurePath(path.stem)
    if inner.suffix.lower() in IMAGE_SUFFIXES:
        yield inner.stem
    if path.suffix.lower() in NUMBERED:
        for stem in (path.stem, inner.stem):
            person = PERSON.fullmatch(stem)
            if person:
                yield person[1]
                bare = pathlib.PurePath(person[1])
                if bare.suffix.lower() in IMAGE_SUFFIXES:
                    yield bare.stem


def _common_length(a: Sequence[str], b: Sequence[str]) -> int:
    """How many entries two sequences share from their start."""
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
