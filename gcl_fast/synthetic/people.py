"""The people of the world: body, way of walking, and what they wear. All drawn from one stream a person."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from gcl_fast.synthetic.gait import Stride
from gcl_fast.synthetic.seeds import stream
from gcl_fast.synthetic.world_config import WorldConfig

# sRGB in [0, 1]; ordered so that a smaller count keeps the commoner colours
SHIRTS = np.array(
    [
        (0.10, 0.10, 0.12),
        (0.88, 0.88, 0.86),
        (0.13, 0.20, 0.42),
        (0.72, 0.12, 0.13),
        (0.50, 0.51, 0.53),
        (0.18, 0.42, 0.25),
        (0.87, 0.72, 0.20),
        (0.40, 0.62, 0.82),
        (0.78, 0.45, 0.56),
        (0.45, 0.28, 0.52),
        (0.85, 0.45, 0.15),
        (0.55, 0.42, 0.30),
    ]
)
TROUSERS = np.array(
    [
        (0.10, 0.11, 0.13),
        (0.17, 0.24, 0.40),
        (0.62, 0.55, 0.43),
        (0.42, 0.43, 0.45),
        (0.45, 0.55, 0.70),
        (0.34, 0.27, 0.20),
        (0.85, 0.84, 0.80),
        (0.45, 0.14, 0.16),
    ]
)
SKINS = np.array([(0.93, 0.76, 0.66), (0.87, 0.66, 0.53), (0.76, 0.55, 0.41), (0.58, 0.39, 0.28), (0.38, 0.25, 0.18)])
HAIRS = np.array(
    [(0.07, 0.06, 0.06), (0.20, 0.13, 0.09), (0.40, 0.27, 0.16), (0.72, 0.56, 0.32), (0.55, 0.25, 0.12), (0.66, 0.65, 0.63)]
)
SHOES = np.array([(0.10, 0.10, 0.10), (0.88, 0.88, 0.88), (0.36, 0.22, 0.13), (0.65, 0.15, 0.15), (0.20, 0.27, 0.45)])
BAGS = np.array(
    [(0.12, 0.12, 0.13), (0.45, 0.16, 0.14), (0.17, 0.25, 0.40), (0.50, 0.40, 0.27), (0.24, 0.35, 0.22), (0.75, 0.62, 0.20)]
)

PATTERNS = ("hoops", "stripes", "checks", "dots", "block", "sleeves")


@dataclass(frozen=True)
class Outfit:
    """What a person wears. Colours are sRGB [3] float64; lengths are metres on the template (y down from the pelvis)."""

    skin: np.ndarray
    hair: np.ndarray
    hair_style: str  # bald, short, bob, long, bun, cap
    hat: np.ndarray
    beard: bool
    top: np.ndarray
    top_second: np.ndarray
    pattern: str  # plain or one of PATTERNS
    pattern_period: float
    sleeve: float  # 0 shoulder, 0.5 elbow, 1 wrist
    hem: float  # y where the top ends
    open_front: bool  # a jacket worn open over top_second
    loose: float  # thickness of the top
    chest_print: str  # none, logo, text
    back_print: str
    print_color: np.ndarray
    bottom_kind: str  # trousers, shorts, skirt
    bottom: np.ndarray
    bottom_stripe: bool
    bottom_end: float  # y where trouser legs or skirt end
    flare: float  # thickness of the trouser legs, or widening of the skirt
    shoes: np.ndarray
    sole: np.ndarray
    boot: float  # y where the shoe begins
    bag_kind: str  # none, backpack, shoulder
    bag: np.ndarray
    bag_side: int  # +1 at the person's left hip
    bag_size: float


@dataclass(frozen=True)
class Person:
    number: int
    phenotype: np.ndarray  # [6] gender, age, muscle, weight, height, proportions
    stride: Stride
    outfit: Outfit


def make_person(seed: int, number: int, config: WorldConfig) -> Person:
    """Person `number` of the world `seed`; independent of all others."""
    rng = stream(seed, "person", number)
    female = rng.random() < 0.5
    child = rng.random() < config.child_probability
    age = rng.uniform(0.36, 0.45) if child else np.clip(rng.normal(0.62, 0.09), 0.5, 0.92)
    height = np.clip(rng.normal(0.46, 0.09) - 0.35 * (age - 0.62), 0.2, 0.7)
    phenotype = np.array(
        [
            rng.uniform(0.82, 1.0) if female else rng.uniform(0.0, 0.18),
            age,
            rng.uniform(0.3, 0.75),
            np.clip(rng.normal(0.5, 0.2), 0.1, 0.98),
            height,
            rng.uniform(0.3, 0.8),
        ]
    )
    stride = Stride(
        length=rng.uniform(0.75, 1.15),
        arms=rng.uniform(0.5, 1.3),
        sway=rng.uniform(0.5, 1.5),
        lean=rng.uniform(-1.0, 5.0),
        elbow=rng.uniform(-4.0, 16.0),
        toes=rng.uniform(0.0, 9.0),
    )
    return Person(number, phenotype, stride, make_outfit(rng, config, female))


def make_outfit(rng: np.random.Generator, config: WorldConfig, female: bool) -> Outfit:
    shirts, trousers = SHIRTS[: config.shirt_colors], TROUSERS[: config.trouser_colors]
    first, second = rng.permutation(len(SHIRTS))[:2]
    top = shirts[first % len(shirts)]
    second_color = shirts[second % len(shirts)]
    if np.abs(second_color - top).sum() < 0.6:
        second_color = SHIRTS[1] if top.sum() < 1.5 else SHIRTS[0]
    patterned = rng.random() < config.pattern_probability
    pattern = str(rng.choice(PATTERNS, p=(0.26, 0.14, 0.16, 0.12, 0.18, 0.14))) if patterned else "plain"
    kind = str(rng.choice(("tee", "shirt", "jacket", "coat"), p=(0.4, 0.3, 0.22, 0.08)))
    sleeve = {"tee": rng.uniform(0.25, 0.45), "shirt": rng.uniform(0.85, 1.0), "jacket": 0.97, "coat": 1.0}[kind]
    hems = {"tee": rng.uniform(-0.02, 0.08), "shirt": rng.uniform(-0.06, 0.10), "jacket": rng.uniform(0.0, 0.08), "coat": 0.36}
    hem = hems[kind]
    bottom_kind = str(rng.choice(("trousers", "shorts", "skirt"), p=(0.5, 0.14, 0.36) if female else (0.76, 0.24, 0.0)))
    if kind == "coat" and bottom_kind != "trousers":
        bottom_kind = "trousers"
    ends = {"trousers": rng.uniform(0.72, 0.82), "shorts": rng.uniform(0.22, 0.42), "skirt": rng.uniform(0.28, 0.62)}
    bottom_end = ends[bottom_kind]
    style = ("short", "bob", "long", "bun", "cap") if female else ("short", "bald", "bob", "cap")
    style_p = (0.12, 0.24, 0.4, 0.16, 0.08) if female else (0.66, 0.12, 0.08, 0.14)
    bag_kind = str(rng.choice(("backpack", "shoulder"), p=(0.55, 0.45))) if rng.random() < config.bag_probability else "none"
    prints = [str(rng.choice(("logo", "text"))) if rng.random() < config.print_probability else "none" for _ in range(2)]
    jitter = lambda color, amount=0.03: np.clip(color + rng.normal(0, amount, 3), 0.03, 0.97)  # noqa: E731
    top, second_color = jitter(top), jitter(second_color)
    return Outfit(
        skin=jitter(SKINS[rng.choice(len(SKINS), p=(0.27, 0.27, 0.2, 0.14, 0.12))], 0.02),
        hair=jitter(HAIRS[rng.choice(len(HAIRS), p=(0.36, 0.27, 0.13, 0.1, 0.05, 0.09))], 0.02),
        hair_style=str(rng.choice(style, p=style_p)),
        hat=SHIRTS[rng.integers(len(SHIRTS))],
        beard=bool(not female and rng.random() < 0.2),
        top=top,
        top_second=second_color,
        pattern=pattern,
        pattern_period=float(rng.uniform(0.07, 0.15)),
        sleeve=float(sleeve),
        hem=float(hem),
        open_front=bool(kind in ("jacket", "coat") and rng.random() < 0.55),
        loose={"tee": 0.008, "shirt": 0.012, "jacket": 0.024, "coat": 0.028}[kind] + float(rng.uniform(0, 0.008)),
        chest_print=prints[0],
        back_print=prints[1],
        print_color=SHIRTS[1] if top.sum() < 1.4 else SHIRTS[rng.integers(len(SHIRTS))] * 0.8,
        bottom_kind=bottom_kind,
        bottom=jitter(trousers[rng.integers(len(trousers))]),
        bottom_stripe=bool(bottom_kind == "trousers" and rng.random() < 0.12),
        bottom_end=float(bottom_end),
        flare=float(rng.uniform(0.006, 0.028) if bottom_kind != "skirt" else rng.uniform(0.02, 0.09)),
        shoes=SHOES[rng.integers(len(SHOES))],
        sole=np.array((0.85, 0.85, 0.83)) if rng.random() < 0.5 else np.array((0.12, 0.11, 0.11)),
        boot=float(rng.uniform(0.55, 0.66) if rng.random() < (0.25 if female else 0.08) else 0.765),
        bag_kind=bag_kind,
        bag=jitter(BAGS[rng.integers(len(BAGS))]),
        bag_side=int(rng.choice((-1, 1))),
        bag_size=float(rng.uniform(0.85, 1.25)),
    )
