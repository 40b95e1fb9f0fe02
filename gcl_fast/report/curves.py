"""Curves as inline SVG, coloured by the page's style sheet (light and dark alike)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape

import numpy as np

WIDTH, HEIGHT = 340, 200
LEFT, RIGHT, TOP, BOTTOM = 44, 14, 8, 24  # room around the plot area
MAX_POINTS = 300  # drawn for a line; longer series are thinned
MAX_SERIES = 8  # colours the style sheet has
LOG_RATIO = 50.0  # smoothed values that span more than this are drawn on a log axis

Series = tuple[Sequence[float], Sequence[float]]  # x, y


def smooth(values: np.ndarray) -> np.ndarray:
    """Centred moving average over about a twentieth of the series, twice; windows shrink at the ends."""
    half = len(values) // 40 + 1
    if len(values) < 8:
        return values
    places = np.arange(len(values))
    reach = np.minimum(half, np.minimum(places, places[::-1]))  # symmetric, so a slope is not bent at the ends
    for _ in range(2):
        sums = np.concatenate([[0.0], np.cumsum(values)])
        values = (sums[places + reach + 1] - sums[places - reach]) / (2 * reach + 1)
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
        return f"{value:.0e}".replace("e-0", "e-").replace("e+0", "e")
    return f"{value:.4g}"


def chart(series: Mapping[str, Series], *, percent: bool = False) -> str:
    """One panel: for every series a faint raw line and a smoothed one over it, with axes and a legend.

    series   name -> (x, y); points that are not finite are left out
    percent  y are fractions of 1, written as percent
    Returns an <svg> and its legend, as HTML. Raises ValueError if no finite point is left.
    """
    lines: list[tuple[str, np.ndarray, np.ndarray, np.ndarray]] = []
    for name, (x_values, y_values) in list(series.items())[:MAX_SERIES]:
        x, y = np.asarray(x_values, dtype=float), np.asarray(y_values, dtype=float) * (100 if percent else 1)
        finite = np.isfinite(x) & np.isfinite(y)
        if finite.any():
            lines.append((name, x[finite], y[finite], smooth(y[finite])))
    if not lines:
        raise ValueError("series: expected at least one finite point, got none")

    raw = np.concatenate([y for _, _, y, _ in lines])
    even = np.concatenate([s for _, _, _, s in lines])
    logarithmic = raw.min() > 0 and even.max() / even.min() > LOG_RATIO and not percent
    if logarithmic:
        raw, even = np.log10(raw), np.log10(even)
    # single wild values do not squeeze the curve: the axis spans the smoothed lines and nearly all raw points
    low = min(even.min(), np.quantile(raw, 0.01))
    high = max(even.max(), np.quantile(raw, 0.99))
    room = 0.06 * (high - low) or 0.05 * abs(high) or 0.5
    low, high = low - room, high + room
    x_low, x_high = min(x[0] for _, x, _, _ in lines), max(x[-1] for _, x, _, _ in lines)
    if x_low == x_high:
        x_low, x_high = x_low - 0.5, x_high + 0.5

    def px(x: float | np.ndarray) -> float | np.ndarray:
        return LEFT + (x - x_low) / (x_high - x_low) * (WIDTH - LEFT - RIGHT)

    def py(y: float | np.ndarray) -> float | np.ndarray:
        return TOP + (high - y) / (high - low) * (HEIGHT - TOP - BOTTOM)

    parts = [f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(", ".join(n for n, *_ in lines))}">']
    for mark in log_ticks(low, high) if logarithmic else ticks(low, high):
        y, text = float(py(mark)), _label(10**mark if logarithmic else mark) + ("%" if percent else "")
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text x="{LEFT - 7}" y="{y + 4:.1f}" text-anchor="end">{text}</text>')
    marks = [m for m in ticks(x_low, x_high, 4) if m == int(m)]
    for mark in marks:
        parts.append(f'<text x="{float(px(mark)):.1f}" y="{HEIGHT - 7}" text-anchor="middle">{mark:g}</text>')
    parts.append(f'<line class="axis" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{HEIGHT - BOTTOM}" y2="{HEIGHT - BOTTOM}"/>')

    def path(x: np.ndarray, y: np.ndarray, kind: str, number: int) -> str:
        x, y = _thin(x, np.log10(y) if logarithmic else y)
        y = np.clip(y, low, high)
        if len(x) == 1:
            return f'<circle class="c{number} dot" cx="{float(px(x[0])):.1f}" cy="{float(py(y[0])):.1f}" r="3"/>'
        points = " ".join(f"{a:.1f},{b:.1f}" for a, b in zip(px(x), py(y), strict=True))
        return f'<polyline class="c{number} {kind}" points="{points}"/>'

    for number, (_, x, y, _) in enumerate(lines):
        if len(x) >= 8:  # a shorter series is its own smooth line
            parts.append(path(x, y, "raw", number))
    for number, (_, x, _, even_y) in enumerate(lines):
        parts.append(path(x, even_y, "smooth", number))
        if 1 < len(x) < 24:
            ys = np.clip(np.log10(even_y) if logarithmic else even_y, low, high)
            dots = zip(px(x), py(ys), strict=True)
            parts += [f'<circle class="c{number} dot" cx="{a:.1f}" cy="{b:.1f}" r="2.2"/>' for a, b in dots]
    parts.append("</svg>")
    legend = "".join(f'<span><i class="b{n}"></i>{escape(name)}</span>' for n, (name, *_) in enumerate(lines))
    note = '<span class="x">log scale</span>' if logarithmic else ""
    return f'{"".join(parts)}<div class="legend">{legend}{note}</div>'
