"""Plans of what an epoch reads: batches of record positions, decided before it starts, so that any loader can follow them and
a killed run can resume inside them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from gcl_fast.errors import InputError

Seed = int | Sequence[int]


@dataclass(frozen=True)
class Plan:
    """Batches of one epoch in order; each a non-empty int64 array of positions in the loader's records.

    first_rows: where these are shares of joint batches, the row of each share's first entry there; empty: all 0.
    """

    batches: tuple[np.ndarray, ...]
    first_rows: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        for i, batch in enumerate(self.batches):
            fits = isinstance(batch, np.ndarray) and batch.dtype == np.int64 and batch.ndim == 1 and batch.size > 0
            if not fits:
                got = f"{batch.dtype} {list(batch.shape)}" if isinstance(batch, np.ndarray) else type(batch).__name__
                raise ValueError(f"Plan: batches[{i}] must be a non-empty int64 numpy array [B], got {got}")
            if batch.min() < 0:
                raise ValueError(f"Plan: batches[{i}] must hold positions of at least 0, got {batch.min()}")

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[np.ndarray]:
        return iter(self.batches)

    def first_row(self, position: int) -> int:
        return self.first_rows[position] if self.first_rows else 0

    def share(self, rank: int, world: int, *, unit: int = 1) -> Plan:
        """What process `rank` of `world` reads: an equal, contiguous part of every batch, cut between units of `unit` rows.

        Rows beyond the last full share are left out (a batch smaller than asked for, where there are too few images).

        Errors: InputError where a batch has less than a unit for each process.
        """
        if world == 1:
            return self
        sizes = [batch.size // (world * unit) * unit for batch in self.batches]
        if min(sizes, default=1) == 0:
            smallest = min(batch.size for batch in self.batches)
            raise InputError(f"Plan.share: every batch must have {unit} rows for each of {world} processes, got {smallest} rows")
        shares = (batch[rank * size : (rank + 1) * size] for batch, size in zip(self.batches, sizes, strict=True))
        return Plan(tuple(shares), tuple(rank * size for size in sizes))

    @property
    def num_samples(self) -> int:
        return sum(b.size for b in self.batches)


def sequential(n: int, batch_size: int) -> Plan:
    """0 .. n-1 in order, the last batch as small as it comes. For reading features."""
    _at_least("sequential", "n", n, 0)
    _at_least("sequential", "batch_size", batch_size, 1)
    order = np.arange(n, dtype=np.int64)
    return Plan(tuple(order[i : i + batch_size] for i in range(0, n, batch_size)))


def shuffled(
    indices: Sequence[int] | np.ndarray, batch_size: int, *, seed: Seed, drop_last: bool = True, num_batches: int | None = None
) -> Plan:
    """`indices` in random order, cut into batches. The same seed gives the same plan anywhere.

    Arguments:
        indices: [N] integers, positions of records.
        batch_size: rows of a batch.
        seed: an integer, or several (such as run seed and epoch).
        drop_last: leave out the last incomplete batch.
        num_batches: exactly so many batches (the official --iters): passes follow each other, each shuffled anew and cut as
            above; a part of a pass where fewer are asked for.

    Errors: InputError where `indices` fill no batch; ValueError naming a bad argument.
    """
    _at_least("shuffled", "batch_size", batch_size, 1)
    indices = _integers("shuffled", "indices", indices)
    full = indices.size // batch_size if drop_last else -(-indices.size // batch_size)
    if full == 0:
        raise InputError(f"shuffled: indices must fill a batch of batch_size={batch_size}, got {indices.size} of them")
    rng = _generator("shuffled", seed)
    wanted = full if num_batches is None else _at_least("shuffled", "num_batches", num_batches, 1)
    batches: list[np.ndarray] = []
    while len(batches) < wanted:
        order = rng.permutation(indices)
        batches += [order[i * batch_size : (i + 1) * batch_size] for i in range(full)]
    return Plan(tuple(batches[:wanted]))


def identity_batches(labels: Sequence[int] | np.ndarray, P: int, K: int, *, seed: Seed, num_batches: int | None = None) -> Plan:
    """P identities a batch, K images of each, side by side (row p * K + k). For cluster-contrast and its kin.

    No identity comes twice in a batch. The K images are drawn without replacement; of an identity with fewer than K,
    each is repeated as evenly as possible. Where there are fewer than P identities every batch holds all of them
    (fewer rows than P * K).

    Arguments:
        labels: [N] integers, one a record; -1 (outlier) is left out.
        P, K: identities a batch, images of each.
        seed: as `shuffled` has it.
        num_batches: None: as many as cover every identity once, the last one filled up from a new shuffle; a number
            (the official --iters): passes over the identities follow each other without a gap, each shuffled anew.

    Errors: InputError where there is no identity; ValueError naming a bad argument.
    """

    def pick(images: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        return rng.permutation(images)

    return _by_identity("identity_batches", labels, P, K, pick, seed, num_batches)


def camera_aware_batches(
    labels: Sequence[int] | np.ndarray,
    cameras: Sequence[int] | np.ndarray,
    P: int,
    K: int,
    *,
    seed: Seed,
    num_batches: int | None = None,
) -> Plan:
    """As `identity_batches`, with the K images of an identity spread over its cameras (cameras [N] integers): each
    camera gives one before any gives a second, and so on while it has images left.

    Source: the intent of SpCL's RandomMultipleGallerySampler (Ge et al., NeurIPS 2020): pairs across cameras are what an
        embedding learns invariance from.
    """
    labels, cameras = _labels_and_cameras("camera_aware_batches", labels, cameras)

    def pick(images: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        order = rng.permutation(images)
        turn = np.empty(order.size, dtype=np.int64)  # how many images of its camera come before this one
        for camera in np.unique(cameras[order]):
            mine = cameras[order] == camera
            turn[mine] = np.arange(mine.sum())
        return order[np.argsort(turn, kind="stable")]

    return _by_identity("camera_aware_batches", labels, P, K, pick, seed, num_batches)


def multiple_gallery_batches(
    labels: Sequence[int] | np.ndarray,
    cameras: Sequence[int] | np.ndarray,
    P: int,
    K: int,
    *,
    seed: Seed,
    num_batches: int | None = None,
) -> Plan:
    """As `identity_batches`, with one image of an identity and K - 1 of it that other cameras saw (cameras [N] integers); where
    no other camera saw it, K - 1 others of the same camera. They are drawn without repetition where there are K of them, else
    with it; an identity of a single image repeats that.

    Source: SpCL's RandomMultipleGallerySampler (Ge et al., NeurIPS 2020), as Cluster Contrast uses it.
    """
    name = "multiple_gallery_batches"
    labels, cameras = _labels_and_cameras(name, labels, cameras)

    def pick(images: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        first = images[rng.integers(images.size)]
        others = images[cameras[images] != cameras[first]]
        if not others.size:
            others = images[images != first]
        if not others.size:
            return images
        return np.concatenate([[first], rng.choice(others, K - 1, replace=others.size < K)])

    return _by_identity(name, labels, P, K, pick, seed, num_batches)


def _labels_and_cameras(
    name: str, labels: Sequence[int] | np.ndarray, cameras: Sequence[int] | np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Both as integers [N]. Errors: ValueError where their sizes differ."""
    labels, cameras = _integers(name, "labels", labels), _integers(name, "cameras", cameras)
    if cameras.size != labels.size:
        raise ValueError(f"{name}: cameras must have shape [N={labels.size}] as labels has, got [{cameras.size}]")
    return labels, cameras


def _by_identity(
    name: str,
    labels: Sequence[int] | np.ndarray,
    P: int,
    K: int,
    pick: Callable[[np.ndarray, np.random.Generator], np.ndarray],
    seed: Seed,
    num_batches: int | None,
) -> Plan:
    """`pick` orders the images of one identity; the first K are used, from the start again where it has fewer."""
    labels = _integers(name, "labels", labels)
    _at_least(name, "P", P, 1)
    _at_least(name, "K", K, 1)
    rng = _generator(name, seed)
    order = np.argsort(labels, kind="stable")
    identities, starts = np.unique(labels[order], return_index=True)
    groups = dict(zip(identities.tolist(), np.split(order, starts[1:]), strict=True)) if labels.size else {}
    groups.pop(-1, None)
    if not groups:
        raise InputError(f"{name}: labels must hold at least one identity, got {labels.size} labels, all -1")
    identities = np.array(list(groups), dtype=np.int64)
    take = min(P, identities.size)
    wanted = -(-identities.size // take) if num_batches is None else _at_least(name, "num_batches", num_batches, 1)
    waiting = np.empty(0, dtype=np.int64)
    batches = []
    for _ in range(wanted):
        if waiting.size < take:
            fresh = rng.permutation(identities)
            again = np.isin(fresh, waiting)  # last in the new pass, so that no batch holds one twice
            waiting = np.concatenate([waiting, fresh[~again], fresh[again]])
        now, waiting = waiting[:take], waiting[take:]
        batches.append(np.concatenate([np.resize(pick(groups[i], rng), K) for i in now.tolist()]))  # [take * K]
    return Plan(tuple(batches))


def _generator(name: str, seed: Seed) -> np.random.Generator:
    parts = [seed] if isinstance(seed, (int, np.integer)) else list(seed)
    if not parts or any(isinstance(s, bool) or not isinstance(s, (int, np.integer)) or s < 0 for s in parts):
        raise ValueError(f"{name}: seed must be an integer of at least 0, or several, got {seed!r}")
    words = [len(parts)]  # with the lengths, so that 0 and (0, 0), or 2**32 and (0, 1), are different seeds
    for part in map(int, parts):
        words += [max(1, -(-part.bit_length() // 32)), part]
    return np.random.Generator(np.random.Philox(np.random.SeedSequence(words)))


def _integers(name: str, argument: str, values: Sequence[int] | np.ndarray) -> np.ndarray:
    array = np.asarray(values)
    if array.ndim != 1 or (array.size and not np.issubdtype(array.dtype, np.integer)):
        raise ValueError(f"{name}: {argument} must be integers [N], got {array.dtype} {list(array.shape)}")
    if array.size and array.min() < -1:
        raise ValueError(f"{name}: {argument} must be at least -1, got {array.min()}")
    return array.astype(np.int64)


def _at_least(name: str, argument: str, value: int, low: int) -> int:
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < low:
        raise ValueError(f"{name}: {argument} must be an integer of at least {low}, got {value!r}")
    return int(value)
