"""What a run took and what it ran on, and the figures of metrics.json that no other section shows."""

from __future__ import annotations

from collections.abc import Mapping

from gcl_fast.report.formats import duration, is_number, section_of
from gcl_fast.report.run_data import Run
from gcl_fast.report.sections import Table
from gcl_fast.report.titles import GUESSES, MEASURES, RESOLVED, SCORES, STAGES, in_words, stage_name

NOT_READ = ("image_names",)  # fingerprints, compared by the program alone


def times(run: Run) -> Table | None:
    """Seconds of each part, the total last; without them, the times the history holds."""
    seconds = run.metrics.get("seconds")
    named = seconds if isinstance(seconds, Mapping) else section_of(run.metrics, "times")
    parts = {str(name): float(value) for name, value in named.items() if is_number(value)}
    if is_number(seconds):
        parts["total"] = seconds
    if not parts:
        for row in run.history:
            stage, time = str(row["stage"]), row.get("time")
            if is_number(time):
                parts[stage] = max(parts.get(stage, 0.0), time)
    if not parts:
        return None
    if "total" in parts:
        parts["total"] = parts.pop("total")
    return Table([], [[STAGES.get(name, in_words(name)), duration(value)] for name, value in parts.items()])


def chosen(run: Run) -> Table | None:
    """The machine, and what the settings on `auto` became."""
    values = section_of(run.metrics, "resolved")
    named = {**RESOLVED, **{key: in_words(key) for key in values if key not in RESOLVED}}
    rows = [[title, str(values[key])] for key, title in named.items() if key in values and key not in NOT_READ]
    return Table([], rows) if rows else None


def further_figures(run: Run) -> Table | None:
    """Whatever else metrics.json says."""
    shown = {*SCORES, "novel_view_images", "same_view_psnr"}
    for author in ("novel_view", *GUESSES):
        shown |= {f"{author}_{measure.key}{end}" for measure in MEASURES for end in ("", "_per_yaw")}
    rows = []
    for key, value in run.metrics.items():
        if key in ("seconds", "times", "resolved", "with_control"):
            continue
        named = {k: v for k, v in value.items() if k not in shown} if isinstance(value, Mapping) else {"": value}
        for name, figure in named.items():
            if isinstance(figure, str | int | float):
                rows.append(_figure(key, name, figure))
    return Table([], rows) if rows else None


def _figure(section: str, name: str, value: str | float) -> list[str]:
    """A row: a score of the photo's own view has a title, another figure the name that metrics.json gives it."""
    for measure in MEASURES:
        if name == f"same_view_{measure.key}" and section in STAGES:
            title = f"{stage_name(section).capitalize()}, the photo's own view (not turned): {measure.title}"
            return [title, measure.text(value)]
    return [f"{section}.{name}" if name else section, f"{value:.5g}" if isinstance(value, float) else str(value)]
