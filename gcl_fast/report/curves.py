"""Curves as inline SVG, coloured by the page's style sheet (light and dark alike)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from html import escape

import numpy as np

WIDTH, HEIGHT = 340, 200
LEFT, RIGHT, TOP, BOTTOM = 44, 14, 8, 24  # room around the plot area; on the left more where labels are longer
LETTER = 7.2  # room for a letter of a label, in the style sheet's size
GAP = 7  # between a label and the plot area
MAX_POINTS = 300  # drawn for a line; longer series are thinned
MAX_SERIES = 8  # colours the style sheet has
SAME = 1e-9  # values that differ by no more than this share of the largest are one value
LOG_RATIO = 50.0  # smoothed values that span more than this are drawn on a log axis

Series = tuple[Sequence[float], Sequence[float]]  # x, y


def constant(values: np.ndarray) -> bool:
    """Whether all of them are one value but for rounding."""
    return bool(values.max() - values.min() <= SAME * np.abs(values).max())


def smooth(values: np.ndarray) -> np.ndarray:
    """Centred moving average over about a twentieth of the series, twice; windows shrink at the ends."""
    half = len(values) // 40 + 1
    if len(values) < 8 or constant(values):
        return values
    places, low, high = np.arange(len(values)), values.min(), values.max()
    reach = np.minimum(half, np.minimum(places, places[::-1]))  # symmetric, so a slope is not bent at the ends
    for _ in range(2):
        sums = np.concatenate([[0.0], np.cumsum(values)])
        means = (sums[places + reach + 1] - sums[places - reach]) / (2 * reach + 1)
        values = np.clip(means, low, high)  # of sums that are large beside it a small value is rounded away, perhaps below 0
    return values


def ticks(low: float, high: float, count: int = 4) -> list[float]:
    """Round numbers inside [low, high], about `count` of them."""
    if not high > low:
        return [low]
    raw = (high - low) / count
    power = 10.0 ** math.floor(math.log10(raw))
    step = min((m * power for m in (1, 2, 2.5, 5, 10)), key=lambda s: abs(s - raw))
    first = math.ceil(low / step - 1e-9)
    return [k * step for k in range(first, math.floor(high / step + 1e-9) + 1)]


def log_ticks(low: float, high: float) -> list[float]:
    """Powers of ten inside [low, high], with their doubles and fives where there are few; in log10."""
    for digits in ((1,), (1, 3), (1, 2, 5)):
        places = range(math.floor(low), math.ceil(high) + 1)
        marks = [p + math.log10(d) for p in places for d in digits if low <= p + math.log10(d) <= high]
        if len(marks) >= 3:
            return marks[:: -(-len(marks) // 6)]
    return ticks(low, high)


def _thin(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    if len(x) <= MAX_POINTS:
        return x, y
    keep = np.unique(np.linspace(0, len(x) - 1, MAX_POINTS).round().astype(int))
    return x[keep], y[keep]


def _label(value: float) -> str:
    if value and not 1e-3 <= abs(value) < 1e5:
        return f"{value:.1e}".replace(".0e", "e").replace("e-0", "e-").replace("e+0", "e")
    return f"{value:.4g}"


@dataclass(frozen=True)
class _Curve:
    """One series without what is not finite: x, the values as logged and smoothed; number: its colour."""

    number: int
    name: str
    x: np.ndarray
    logged: np.ndarray
    smoothed: np.ndarray


@dataclass(frozen=True)
class _Axes:
    """From data to pixels; low and high are in log10 where the axis is logarithmic."""

    left: float
    right: float
    low: float
    high: float
    logarithmic: bool
    unit: str

    @cached_property
    def marks(self) -> list[tuple[float, str]]:
        """Places on the vertical axis, on its scale, and their labels."""
        places = log_ticks(self.low, self.high) if self.logarithmic else ticks(self.low, self.high)
        if len({self._text(place) for place in places}) < len(places):  # they differ in digits that are not shown
            places = [(self.low + self.high) / 2]
        return [(place, self._text(place)) for place in places]

    @cached_property
    def begin(self) -> float:
        """Where the plot area begins: the longest label stands whole before it."""
        return max(float(LEFT), GAP + LETTER * max(len(text) for _, text in self.marks))

    def _text(self, place: float) -> str:
        return _label(10**place if self.logarithmic else place) + self.unit

    def x(self, value: float) -> float:
        return float(self.begin + (value - self.left) / (self.right - self.left) * (WIDTH - self.begin - RIGHT))

    def y(self, scaled: float) -> float:
        return float(TOP + (self.high - scaled) / (self.high - self.low) * (HEIGHT - TOP - BOTTOM))

    def clipped(self, values: np.ndarray) -> np.ndarray:
        """On the axis's scale, inside its limits."""
        clipped: np.ndarray = np.clip(np.log10(values) if self.logarithmic else values, self.low, self.high)
        return clipped


def _finite_curves(series: Mapping[str, Series], factor: float, steps: bool) -> list[_Curve]:
    curves: list[_Curve] = []
    for name, (x_values, y_values) in list(series.items())[:MAX_SERIES]:
        x, y = np.asarray(x_values, dtype=float), np.asarray(y_values, dtype=float) * factor
        finite = np.isfinite(x) & np.isfinite(y)
        if finite.any():
            kept = np.full_like(y[finite], np.median(y[finite])) if constant(y[finite]) else y[finite]
            curves.append(_Curve(len(curves), name, x[finite], kept, kept if steps else smooth(kept)))
    if not curves:
        raise ValueError("series: expected at least one finite point, got none")
    return curves


def _axes(curves: Sequence[_Curve], percent: bool) -> _Axes:
    """Single wild values do not squeeze the curve: the axis spans the smoothed lines and nearly all logged points."""
    logged = np.concatenate([curve.logged for curve in curves])
    smoothed = np.concatenate([curve.smoothed for curve in curves])
    logarithmic = bool(logged.min() > 0 and smoothed.max() / smoothed.min() > LOG_RATIO and not percent)
    if logarithmic:
        logged, smoothed = np.log10(logged), np.log10(smoothed)
    low = float(min(smoothed.min(), np.quantile(logged, 0.01)))
    high = float(max(smoothed.max(), np.quantile(logged, 0.99)))
    if high - low <= SAME * max(abs(low), abs(high)):
        low = high
    room = 0.06 * (high - low) or 0.05 * abs(high) or 0.5
    left, right = float(min(curve.x[0] for curve in curves)), float(max(curve.x[-1] for curve in curves))
    if left == right:
        left, right = left - 0.5, right + 0.5
    return _Axes(left, right, low - room, high + room, logarithmic, "%" if percent else "")


def _frame(axes: _Axes) -> list[str]:
    """Grid lines with their labels, the labels of x, and the x axis."""
    parts = []
    across = f'x1="{axes.begin:g}" x2="{WIDTH - RIGHT}"'
    for mark, text in axes.marks:
        y = axes.y(mark)
        parts.append(f'<line class="grid" {across} y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text x="{axes.begin - GAP:g}" y="{y + 4:.1f}" text-anchor="end">{text}</text>')
    for mark in ticks(axes.left, axes.right, 4):
        if mark == int(mark):
            text = f"{mark:g}"
            x = min(axes.x(mark), WIDTH - LETTER * len(text) / 2)  # a long one ends at the edge
            parts.append(f'<text x="{x:.1f}" y="{HEIGHT - 7}" text-anchor="middle">{text}</text>')
    parts.append(f'<line class="axis" {across} y1="{HEIGHT - BOTTOM}" y2="{HEIGHT - BOTTOM}"/>')
    return parts


def _dot(axes: _Axes, number: int, x: float, y: float, radius: str) -> str:
    return f'<circle class="c{number} dot" cx="{axes.x(x):.1f}" cy="{axes.y(y):.1f}" r="{radius}"/>'


def _polyline(axes: _Axes, curve: _Curve, values: np.ndarray, kind: str) -> str:
    x, y = _thin(curve.x, axes.clipped(values))
    if len(x) == 1:
        return _dot(axes, curve.number, x[0], y[0], "3")
    points = " ".join(f"{axes.x(a):.1f},{axes.y(b):.1f}" for a, b in zip(x, y, strict=True))
    return f'<polyline class="c{curve.number} {kind}" points="{points}"/>'


def _stairs(curve: _Curve) -> _Curve:
    """The same values, each held until the next one is set."""
    x, y = np.repeat(curve.x, 2)[1:], np.repeat(curve.smoothed, 2)[:-1]
    return _Curve(curve.number, curve.name, x, y, y)


def chart(series: Mapping[str, Series], *, percent: bool = False, steps: bool = False) -> str:
    """One panel: for every series a faint line as logged and a smoothed one over it, with axes and a legend.

    Arguments:
        series: name -> (x, y); points that are not finite are left out.
        percent: y are fractions of 1, written as percent.
        steps: values that are set: not smoothed, and each stands until the next.

    Returns: an <svg> and its legend, as HTML.
    Errors: ValueError if no finite point is left.
    """
    curves = _finite_curves(series, 100 if percent else 1, steps)
    axes = _axes(curves, percent)
    names = escape(", ".join(curve.name for curve in curves))
    parts = [f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{names}">', *_frame(axes)]
    twofold = [curve for curve in curves if len(curve.x) >= 8 and not steps]  # of the others both are one line
    parts += [_polyline(axes, curve, curve.logged, "raw") for curve in twofold]
    for curve in curves:
        drawn = _stairs(curve) if steps else curve
        parts.append(_polyline(axes, drawn, drawn.smoothed, "smooth"))
        if 1 < len(curve.x) < 24:
            dots = zip(curve.x, axes.clipped(curve.smoothed), strict=True)
            parts += [_dot(axes, curve.number, x, y, "2.2") for x, y in dots]
    parts.append("</svg>")
    legend = "".join(f'<span><i class="b{curve.number}"></i>{escape(curve.name)}</span>' for curve in curves)
    note = '<span class="x">log scale</span>' if axes.logarithmic else ""
    return f'{"".join(parts)}<div class="legend">{legend}{note}</div>'
