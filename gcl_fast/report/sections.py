"""Contents of the report's sections, each from a Run; empty (or None) where the run has nothing to show.

Plain text throughout: the templates place and escape it. Charts alone are ready HTML.
"""

from __future__ import annotations

import base64
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from gcl_fast.report.curves import MAX_SERIES, chart
from gcl_fast.report.formats import decibel, duration, is_number, percent, points, section_of
from gcl_fast.report.run_data import Row, Run
from gcl_fast.report.titles import (
    CAPTIONS,
    GENERATING,
    GROUPS,
    GUESSES,
    MEASURES,
    SCHEDULES,
    SCORES,
    STAGES,
    Measure,
    group_of,
    in_words,
    stage_name,
    stage_title,
)

NOT_SCALARS = ("stage", "epoch", "iteration", "time", "score")


@dataclass(frozen=True)
class Card:
    """One figure at the top of the page; verdict: "good", "bad" or none."""

    value: str
    text: str
    verdict: str = ""


@dataclass(frozen=True)
class Table:
    """The first cell of each row is its heading."""

    head: list[str]
    rows: list[list[str]]


@dataclass(frozen=True)
class Bar:
    """A value with a bar of `share` percent of the longest; ours: of this run, not of a guess."""

    title: str
    value: str
    share: float
    ours: bool


@dataclass(frozen=True)
class Scores:
    table: Table
    with_control: bool


@dataclass(frozen=True)
class NovelViewMeasure:
    """One measure of generated views: bars over all angles, and a table by angle."""

    title: str
    note: str
    bars: list[Bar]
    per_yaw: Table | None


@dataclass(frozen=True)
class NovelViewScores:
    """same_view: (decibels, stage) of reconstructions."""

    images: object
    measures: list[NovelViewMeasure]
    same_view: list[tuple[str, str]]


@dataclass(frozen=True)
class Panel:
    """chart: HTML."""

    title: str
    chart: str


@dataclass(frozen=True)
class StageCurves:
    """folded: of a stage that a later one has gone beyond, or the control's."""

    title: str
    panels: list[Panel]
    folded: bool = False


@dataclass(frozen=True)
class Picture:
    """png: the file in base64; folded: of a stage that a later one has gone beyond."""

    title: str
    caption: str
    png: str
    folded: bool = False


@dataclass(frozen=True)
class PictureGroup:
    title: str
    pictures: list[Picture] = field(default_factory=list)


def cards(run: Run) -> list[Card]:
    """The few figures one looks for first."""
    metrics, shown = run.metrics, []
    best = next((stage for stage in ("stage3", "stage1", "untrained") if "mAP" in section_of(metrics, stage)), None)
    if best:
        final = section_of(metrics, best)
        final_map = final["mAP"]
        shown.append(Card(percent(final_map), f"mAP, {stage_name(best)}"))
        if "rank1" in final:
            shown.append(Card(percent(final["rank1"]), f"Rank-1, {stage_name(best)}"))
        for other, text in (("untrained", "untrained"), ("stage1", "stage 1"), ("control", "the control")):
            base_map = section_of(metrics, other).get("mAP")
            if other != best and is_number(base_map) and is_number(final_map):
                gain = final_map - base_map
                shown.append(Card(points(gain), f"mAP points over {text}", "good" if gain > 0 else "bad" if gain < 0 else ""))
    for stage in reversed(GENERATING):
        view_psnr = section_of(metrics, stage).get("novel_view_psnr")
        if is_number(view_psnr):
            shown.append(Card(f"{decibel(view_psnr)} dB", f"PSNR of novel views, {stage_name(stage)}"))
            break
    seconds = metrics.get("seconds")
    total = seconds.get("total") if isinstance(seconds, Mapping) else seconds
    if is_number(total):
        shown.append(Card(duration(total), "total time"))
    return shown


def scores(run: Run) -> Scores | None:
    """Retrieval scores of every stage."""
    by_stage = {stage: section_of(run.metrics, stage) for stage in STAGES}
    present = [stage for stage, values in by_stage.items() if any(name in values for name in SCORES)]
    if not present:
        return None
    columns = [name for name in SCORES if any(name in by_stage[stage] for stage in present)]
    rows = [[STAGES[stage], *(percent(by_stage[stage].get(name)) for name in columns)] for stage in present]
    return Scores(Table(["", *(SCORES[name] for name in columns)], rows), with_control="control" in present)


def _bars(run: Run, measure: Measure) -> list[Bar]:
    """Generated views of each stage, then the guesses. Empty without a score."""
    views = [(stage, section_of(run.metrics, stage)) for stage in GENERATING]
    views = [(stage, values) for stage, values in views if is_number(values.get(f"novel_view_{measure.key}"))]
    if not views:
        return []
    entries = [(f"Generated views, {stage_name(stage)}", values[f"novel_view_{measure.key}"], True) for stage, values in views]
    entries += [(title, views[-1][1].get(f"{guess}_{measure.key}"), False) for guess, title in GUESSES.items()]
    numbers = [(title, float(value), ours) for title, value, ours in entries if is_number(value)]
    longest = max((value for _, value, _ in numbers if math.isfinite(value)), default=1.0)
    bars = []
    for title, value, ours in numbers:
        share = 100 * max(0.0, min(value / longest, 1.0)) if math.isfinite(value) and longest > 0 else 0.0
        bars.append(Bar(title, measure.text(value), share, ours))
    return bars


def _per_yaw(run: Run, measure: Measure) -> Table | None:
    """A row for each stage and each guess, a column an angle; None where no angle has a score."""

    def by_yaw(stage: str, author: str) -> Mapping[str, object]:
        return section_of(section_of(run.metrics, stage), f"{author}_{measure.key}_per_yaw")

    stages = [stage for stage in GENERATING if by_yaw(stage, "novel_view")]
    if not stages:
        return None
    rows = {f"Generated, {stage_name(stage)}": by_yaw(stage, "novel_view") for stage in stages}
    rows |= {title: by_yaw(stages[-1], guess) for guess, title in GUESSES.items()}
    yaws = list(by_yaw(stages[-1], "novel_view"))
    table = [[title, *(measure.text(row.get(yaw)) for yaw in yaws)] for title, row in rows.items() if row]
    return Table(["Angle", *(f"{yaw}°" for yaw in yaws)], table)


def novel_view_scores(run: Run) -> NovelViewScores | None:
    """How near generated views come to the true ones, beside guesses that need no generator."""
    measures = [NovelViewMeasure(each.title, each.note, _bars(run, each), _per_yaw(run, each)) for each in MEASURES]
    measures = [measure for measure in measures if measure.bars]
    if not measures:
        return None
    views = [(stage, section_of(run.metrics, stage)) for stage in GENERATING]
    counts = [values["novel_view_images"] for _, values in views if is_number(values.get("novel_view_images"))]
    same_view = [(stage, values.get("same_view_psnr")) for stage, values in views]
    return NovelViewScores(
        images=counts[-1] if counts else None,
        measures=measures,
        same_view=[(decibel(value), stage_name(stage)) for stage, value in same_view if is_number(value)],
    )


def _panels(rows: list[Row]) -> list[Panel]:
    """Every scalar of one stage's history, one panel a group."""
    series: dict[str, tuple[list[float], list[float]]] = {}
    for row in rows:
        step = row.get("iteration", row.get("epoch"))
        for name, value in row.items():
            if name not in NOT_SCALARS and is_number(value) and is_number(step):
                x, y = series.setdefault(name, ([], []))
                x.append(step)
                y.append(value)
    groups: dict[str, dict[str, tuple[list[float], list[float]]]] = {}
    for name, curve in series.items():
        if any(math.isfinite(value) for value in curve[1]):
            groups.setdefault(group_of(name), {})[name] = curve
    order = {name: place for place, name in enumerate(GROUPS)}
    panels = []
    for group in sorted(groups, key=lambda name: (order.get(name, len(order)), name)):
        members = list(groups[group].items())
        title = GROUPS.get(group, in_words(group))
        for start in range(0, len(members), MAX_SERIES):
            shown = dict(members[start : start + MAX_SERIES])
            panels.append(Panel(title, chart(shown, percent=group == "scores", steps=group in SCHEDULES)))
    return panels


def curves(run: Run) -> list[StageCurves]:
    """Loss curves, stage by stage; the last stage's stand open."""
    rows: dict[str, list[Row]] = {}
    for row in run.history:
        rows.setdefault(str(row["stage"]), []).append(row)
    order = {name: place for place, name in enumerate(STAGES)}
    stages = sorted(rows, key=lambda name: (order.get(name, len(order)), name))
    last = [stage for stage in stages if stage != "control"][-1:] or stages[-1:]
    drawn = [StageCurves(stage_title(stage), _panels(rows[stage]), folded=stage not in last) for stage in stages]
    return [stage for stage in drawn if stage.panels]


def _stage_of(stem: str) -> str:
    """ "stage3" of "stage3_novel_views"; empty for the picture of no stage."""
    found = re.match(r"stage\d", stem.lower())
    return found[0] if found else ""


def pictures(run: Run) -> list[PictureGroup]:
    """The run's pictures: novel views, then ranked lists, then the rest; of each the last stage's first, the others folded."""
    groups = {title: PictureGroup(title) for title in ("Novel views", "Ranked lists", "Pictures")}
    last: dict[str, str] = {}
    for file, caption in sorted(run.pictures, key=lambda picture: _stage_of(picture[0].stem), reverse=True):
        stem = file.stem.lower()
        group = "Novel views" if "novel" in stem or "view" in stem else "Ranked lists" if "rank" in stem else "Pictures"
        folded = _stage_of(stem) < last.setdefault(group, _stage_of(stem))
        title = re.sub(r"^stage(\d)", r"stage \1:", re.sub("[_-]", " ", file.stem)).capitalize()
        caption = caption or next((text for end, text in CAPTIONS.items() if stem.endswith(end)), "")
        png = base64.b64encode(file.read_bytes()).decode("ascii")
        groups[group].pictures.append(Picture(title, caption, png, folded))
    return [group for group in groups.values() if group.pictures]
