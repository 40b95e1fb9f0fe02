"""The plan of a world: every image with its split, identity and shot, before anything is drawn."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from gcl_fast.synthetic.cameras import Camera
from gcl_fast.synthetic.schedule import Shot, travel_frames, walk
from gcl_fast.synthetic.seeds import stream
from gcl_fast.synthetic.world_config import WorldConfig

DISTRACTOR, JUNK = 0, -1


@dataclass(frozen=True)
class Entry:
    """One image. split: train, query or gallery; pid: its identity, DISTRACTOR or JUNK; occluded: something stands in
    front; companion: the number of a passer-by in the picture, or -1."""

    shot: Shot
    split: str
    pid: int
    occluded: bool
    companion: int


@dataclass(frozen=True)
class WorldPlan:
    """entries in writing order; people: how many persons are needed; passers_by: the persons beyond train and test."""

    entries: list[Entry]
    people: int
    passers_by: range


def make_plan(
    seed: int, train_ids: int, test_ids: int, images_per_id: int, cameras: list[Camera], junk: bool, config: WorldConfig
) -> WorldPlan:
    """Persons 0 .. train_ids - 1 are trained on, the next test_ids are in query and gallery, the rest pass by.

    Of each test person one image per camera is a query, the rest is gallery. Identity numbers are a shuffle of 1, 2, ...
    """
    total = train_ids + test_ids
    pids = 1 + stream(seed, "identity numbers").permutation(total)
    travel = travel_frames(seed, len(cameras), config)
    span = 400 * max(1, total)
    entries: list[Entry] = []

    def add(shot: Shot, split: str, pid: int) -> None:
        rng = stream(seed, "look", shot.person, shot.index)
        occluded, together = rng.random() < config.occluder_probability, rng.random() < config.companion_probability
        who = passers.start + int(rng.random() * len(passers))
        entries.append(Entry(shot, split, pid, bool(occluded), who if together else -1))

    gallery = test_ids * images_per_id
    stray = math.ceil(config.distractor_share * gallery)
    passers = range(total, total + max(4, math.ceil(stray / 2)))
    for person in range(total):
        queried: set[int] = set()
        for shot in walk(seed, person, images_per_id, cameras, travel, span, config):
            split = "train" if person < train_ids else "gallery" if shot.camera in queried else "query"
            queried.add(shot.camera)
            add(shot, split, int(pids[person]))
    shots = [s for p in passers for s in walk(seed, p, 2, cameras, travel, span, config)]
    for shot in shots[:stray]:
        add(shot, "gallery", DISTRACTOR)
    if junk:
        rng = stream(seed, "junk")
        of_test = [e.shot for e in entries if e.split != "train"]
        for k in range(math.ceil(config.junk_share * gallery) if of_test else 0):
            shot = of_test[int(rng.integers(len(of_test)))]
            add(replace(shot, index=10_000 + k, frame=shot.frame + int(rng.integers(1, 4))), "gallery", JUNK)
    return WorldPlan(entries, passers.stop, passers)


def own_identities(plan: WorldPlan) -> WorldPlan:
    """The same plan with an identity of its own for every distractor person, for layouts without a distractor number."""
    first = 1 + max((e.pid for e in plan.entries), default=0)
    numbers = {p: first + i for i, p in enumerate(sorted({e.shot.person for e in plan.entries if e.pid == DISTRACTOR}))}
    entries = [replace(e, pid=numbers[e.shot.person]) if e.pid == DISTRACTOR else e for e in plan.entries]
    return WorldPlan(entries, plan.people, plan.passers_by)


def groups(count: int, size: int) -> list[list[int]]:
    """0 .. count - 1 in groups of `size`, in order."""
    return [list(range(first, min(first + size, count))) for first in range(0, count, size)]
