"""The colour of every visible point of a person, from where on the body it lies. No pictures: rules on rest coordinates."""

from __future__ import annotations

import numpy as np

from gcl_fast.synthetic.garments import BACKPACK, BODY, HAIR, HAIRLINE, KNOB, SHOULDER_BAG, SKIRT
from gcl_fast.synthetic.people import Outfit

SHOULDER_Y = -0.44  # where sleeves join on, template metres
ARM_LENGTH = 0.50


def albedo(outfit: Outfit, part: np.ndarray, coords: np.ndarray) -> np.ndarray:
    """sRGB colours [P, 3] of P points: part [P] (garments.BODY ...), coords [P, 11] as in garments.Wardrobe."""
    x, y, z, arm, hand, head, sleeve, leg, _foot, right, forward = coords.T
    body = part == BODY
    color = np.tile(outfit.skin, (len(part), 1))
    angle = np.arctan2(right, -forward)  # 0 in front of the trunk or limb

    bottom = body & (head < 0.5) & (arm < 0.5) & (y >= outfit.hem) & (y < outfit.bottom_end) | (part == SKIRT)
    color[bottom] = outfit.bottom
    if outfit.bottom_stripe:
        outer = (right * x > 0) & (np.abs(right) > 0.6 * np.hypot(right, forward)) & (np.abs(forward) < 0.018)
        color[bottom & (leg > 0.5) & outer] = (0.9, 0.9, 0.9)

    on_arm = body & (arm > 0.5) & (hand < 0.5) & (sleeve < outfit.sleeve)
    neck = -0.515 + 0.05 * np.clip(1 - np.abs(x) / 0.05, 0, 1) * (z < -0.02)  # a rounded collar, lower in front
    on_trunk = body & (head < 0.5) & (arm <= 0.5) & (y < outfit.hem) & (y > neck)
    top = on_arm | on_trunk
    if outfit.hem > 0.3:  # a coat: its skirt is the loose part
        top |= (part == SKIRT) & (y < outfit.hem + 0.01)
    along = np.where(on_arm, SHOULDER_Y + ARM_LENGTH * sleeve, y)
    around = angle * np.where(on_arm, 0.055, 0.15)
    color[top] = _fabric(outfit, along[top], around[top], on_arm[top])
    if outfit.open_front:
        color[on_trunk & (np.abs(x) < 0.045 + 0.03 * (y + 0.5)) & (z < -0.03)] = outfit.top_second
    _prints(outfit, color, on_trunk, x, y, z)
    _straps(outfit, color, on_trunk | (body & (head < 0.5) & (arm <= 0.5) & (y < 0.05)), x, y, z)

    shoe = body & (leg > 0.5) & (y > outfit.boot)
    color[shoe] = outfit.shoes
    color[shoe & (y > 0.798)] = outfit.sole
    _head(outfit, color, body & (head > 0.5), x, y, z)

    color[part == HAIR] = outfit.hair
    color[part == KNOB] = outfit.hair if outfit.hair_style == "bun" else outfit.hat
    bag = (part == BACKPACK) | (part == SHOULDER_BAG)
    color[bag] = outfit.bag
    color[bag & ((np.abs(y + 0.25) < 0.05) | ((z > 0.7) & (y > 0.1) & (y < 0.2)))] = 0.55 * outfit.bag
    return color


def _fabric(outfit: Outfit, along: np.ndarray, around: np.ndarray, on_arm: np.ndarray) -> np.ndarray:
    """Top colours [P, 3]; `along` runs down the garment, `around` its girth, both in metres."""
    period = outfit.pattern_period
    a, b = np.mod(along / period, 1), np.mod(around / period + 0.25, 1)
    plain = np.zeros(len(along), bool)
    second = {
        "plain": plain,
        "hoops": a < 0.45,
        "stripes": b < 0.4,
        "checks": (a < 0.5) ^ (b < 0.5),
        "dots": (a - 0.5) ** 2 + (b - 0.5) ** 2 < 0.075,
        "block": along > -0.24,
        "sleeves": on_arm,
    }[outfit.pattern]
    return np.where(second[:, None], outfit.top_second, outfit.top)


def _prints(outfit: Outfit, color: np.ndarray, on_trunk: np.ndarray, x: np.ndarray, y: np.ndarray, z: np.ndarray) -> None:
    for kind, side in ((outfit.chest_print, z < -0.04), (outfit.back_print, z > 0.0)):
        if kind == "logo":
            color[on_trunk & side & (x**2 + (y + 0.30) ** 2 < 0.065**2)] = outfit.print_color
        elif kind == "text":
            lines = (np.abs(y + 0.34) < 0.022) | (np.abs(y + 0.27) < 0.018)
            color[on_trunk & side & lines & (np.abs(x) < 0.105)] = outfit.print_color


def _straps(outfit: Outfit, color: np.ndarray, where: np.ndarray, x: np.ndarray, y: np.ndarray, z: np.ndarray) -> None:
    dark = 0.7 * outfit.bag
    if outfit.bag_kind == "backpack":
        color[where & (np.abs(np.abs(x) - 0.105) < 0.022) & (y > -0.54) & (y < -0.18) & (z < 0.03)] = dark
    elif outfit.bag_kind == "shoulder":
        line = outfit.bag_side * (-0.10 + (y + 0.50) * 0.50)
        color[where & (np.abs(x - line) < 0.020) & (y < 0.03)] = dark


def _head(outfit: Outfit, color: np.ndarray, on_head: np.ndarray, x: np.ndarray, y: np.ndarray, z: np.ndarray) -> None:
    face = on_head & (z < -0.09)
    color[face & (np.abs(np.abs(x) - 0.031) < 0.015) & (np.abs(y + 0.697) < 0.009)] = (0.13, 0.10, 0.09)
    color[face & (np.abs(np.abs(x) - 0.031) < 0.020) & (np.abs(y + 0.718) < 0.005)] = 0.6 * outfit.hair
    mouth = (np.abs(x) < 0.022) & (np.abs(y + 0.628) < 0.006)
    color[face & mouth] = 0.65 * outfit.skin
    if outfit.beard:
        color[on_head & (z < -0.07) & (y > -0.640) & (y < -0.585) & ~mouth] = 0.8 * outfit.hair
    if outfit.hair_style != "bald":
        color[on_head & (y < np.interp(z, *HAIRLINE))] = outfit.hair
    if outfit.hair_style == "cap":
        color[on_head & (y < -0.725 + 0.02 * (z > 0))] = outfit.hat
