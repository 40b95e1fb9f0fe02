"""Values of metrics.json and history.jsonl as text; what is no number reads as a dash."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TypeGuard

NOTHING = "–"


def is_number(value: object) -> TypeGuard[float]:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def percent(value: object) -> str:
    """A fraction of 1 as percent."""
    return f"{100 * value:.1f}%" if is_number(value) and math.isfinite(value) else NOTHING


def points(value: float) -> str:
    """A difference of two fractions, in percentage points with its sign."""
    return f"{100 * value:+.1f}" if math.isfinite(value) else NOTHING


def decibel(value: object) -> str:
    return f"{value:.2f}" if is_number(value) else NOTHING


def duration(seconds: float) -> str:
    if not math.isfinite(seconds):
        return NOTHING
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"


def section_of(metrics: Mapping[str, object], key: str) -> Mapping[str, object]:
    """The object below `key`; empty where there is none."""
    value = metrics.get(key)
    return value if isinstance(value, Mapping) else {}
