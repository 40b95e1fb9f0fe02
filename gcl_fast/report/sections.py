"""The parts of the report, each from a Run to HTML; an empty string where the run has nothing to show."""

from __future__ import annotations

import base64
import math
import re
from collections.abc import Mapping
from html import escape
from typing import Any

from gcl_fast.report.curves import MAX_SERIES, chart
from gcl_fast.report.run_data import Run

ROWS = {
    "untrained": "Untrained network",
    "stage1": "Stage 1: identity encoder warm-up",
    "stage2": "Stage 2: generator warm-up",
    "stage3": "Stage 3: joint training",
    "control": "Control: stage 1 continued",
}
SCORES = {"mAP": "mAP", "rank1": "Rank-1", "rank5": "Rank-5", "rank10": "Rank-10", "mINP": "mINP"}
VIEWS = ("stage2", "stage3")  # stages that generate
GUESSES = {
    "blank_background_psnr": "Guess: background without a person",
    "mean_image_psnr": "Guess: mean training image",
    "source_image_psnr": "Guess: the photo, not turned",
}
CAPTIONS = {  # end of a picture's name -> what it shows, where the run gave no caption
    "novel_views": "People not trained on, turned to new angles: guiding mesh, generated view, truth.",
    "ranked_lists": "Queries drawn at random (blue) and their best gallery images: green the same person, red another; "
    "below each its cosine similarity.",
    "train": "Training images: what the generator makes of a photo and a mesh.",
    "test": "Images not trained on: what the generator makes of a photo and a mesh.",
}
GROUPS = {  # first part of a scalar's name -> panel title, in this order
    "total": "Total loss",
    "contrast": "Cluster contrast",
    "loss": "Loss",
    "image": "Image L1",
    "code": "Identity code L1",
    "adv": "Adversarial, generator",
    "dis": "Discriminator",
    "mem": "Memory contrast",
    "id": "Identity contrast",
    "scores": "Held-out scores",
    "clusters": "Pseudo-labels",
    "eps": "Clustering radius eps",
    "lr": "Learning rate",
}
ALIASES = {"outliers": "clusters", "largest": "clusters", "num": "clusters", "memory": "mem", "identity": "id"}
NOT_SCALARS = ("stage", "epoch", "iteration", "time", "score")


def _number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _percent(value: Any, points: bool = False) -> str:
    if not _number(value) or not math.isfinite(value):
        return "–"
    return f"{100 * value:+.1f}" if points else f"{100 * value:.1f}%"


def _decibel(value: Any) -> str:
    return f"{value:.2f}" if _number(value) else "–"


def _short(stage: str) -> str:
    return ROWS[stage].split(":")[0].lower()


def _duration(seconds: float) -> str:
    if not math.isfinite(seconds):
        return "–"
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"


def _part(metrics: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = metrics.get(key)
    return value if isinstance(value, Mapping) else {}


def _total_seconds(metrics: Mapping[str, Any]) -> float | None:
    seconds = metrics.get("seconds")
    seconds = seconds.get("total") if isinstance(seconds, Mapping) else seconds
    return float(seconds) if _number(seconds) else None


def _table(head: list[str], rows: list[list[str]]) -> str:
    """Cells are HTML already; the first of each row is its heading."""
    top = "".join(f"<th>{cell}</th>" for cell in head)
    body = ""
    for title, *cells in rows:
        body += f"<tr><th>{title}</th>{''.join(c if c.startswith('<td') else f'<td>{c}</td>' for c in cells)}</tr>"
    return f'<div class="table"><table>{f"<thead><tr>{top}</tr></thead>" if head else ""}<tbody>{body}</tbody></table></div>'


def cards(run: Run) -> str:
    """The few figures one looks for first."""
    metrics, found = run.metrics, []
    best = next((k for k in ("stage3", "stage1", "untrained") if "mAP" in _part(metrics, k)), None)
    if best:
        final = _part(metrics, best)
        found.append((_percent(final["mAP"]), f"mAP, {_short(best)}", ""))
        if "rank1" in final:
            found.append((_percent(final["rank1"]), f"Rank-1, {_short(best)}", ""))
        for other, text in (("untrained", "untrained"), ("stage1", "stage 1"), ("control", "the control")):
            base = _part(metrics, other).get("mAP")
            if other != best and _number(base):
                gain = final["mAP"] - base
                found.append((_percent(gain, points=True), f"mAP points over {text}", "good" if gain > 0 else "bad"))
    views = [stage for stage in VIEWS if _number(_part(metrics, stage).get("novel_view_psnr"))]
    if views:
        found.append((f"{metrics[views[-1]]['novel_view_psnr']:.2f} dB", f"PSNR of novel views, {_short(views[-1])}", ""))
    total = _total_seconds(metrics)
    if total is not None:
        found.append((_duration(total), "total time", ""))
    body = ""
    for value, text, kind in found:
        body += f'<div class="card"><b class="{kind}">{value}</b><small>{escape(text)}</small></div>'
    return f'<div class="cards">{body}</div>' if body else ""


def scores(run: Run) -> str:
    """Retrieval scores of every stage."""
    present = [key for key in ROWS if any(name in _part(run.metrics, key) for name in SCORES)]
    columns = [name for name in SCORES if any(name in _part(run.metrics, key) for key in present)]
    if not present:
        return ""
    rows = [[ROWS[key], *(_percent(_part(run.metrics, key).get(name)) for name in columns)] for key in present]
    note = ""
    if "control" in present:
        note = (
            "<p class=faint>The control continues stage 1 for as many updates of the identity encoder as stage 3 made: "
            "the difference to stage 3 is what the generator adds.</p>"
        )
    return f"<h2>Scores</h2>{_table(['', *(SCORES[c] for c in columns)], rows)}{note}"


def _psnr_table(run: Run, suffix: str = "") -> str:
    """Generated views of each stage, then the guesses, with bars; `suffix` chooses the pixels. Empty without a score."""
    own = [(stage, _part(run.metrics, stage)) for stage in VIEWS]
    own = [(stage, values) for stage, values in own if _number(values.get("novel_view_psnr" + suffix))]
    if not own:
        return ""
    rows = [(f"Generated views, {_short(stage)}", values["novel_view_psnr" + suffix], "own") for stage, values in own]
    rows += [(title, own[-1][1].get(key + suffix), "") for key, title in GUESSES.items()]
    rows = [(title, float(value), kind) for title, value, kind in rows if _number(value)]
    top = max((v for _, v, _ in rows if math.isfinite(v)), default=1.0)
    cells = []
    for title, value, kind in rows:
        share = 100 * max(0.0, min(value / top, 1.0)) if math.isfinite(value) and top > 0 else 0
        bar = f'<td class="bar"><i class="{kind}" style="width:{share:.1f}%"></i></td>'
        cells.append([title, f"{value:.2f} dB", bar])
    return _table([], cells)


def novel_view_scores(run: Run) -> str:
    """PSNR of generated views beside guesses that need no generator."""
    table = _psnr_table(run)
    if not table:
        return ""
    stages = [(stage, _part(run.metrics, stage)) for stage in VIEWS]
    counts = [values["novel_view_images"] for _, values in stages if _number(values.get("novel_view_images"))]
    images = f", {counts[-1]} images" if counts else ""
    html = f"<h2>Novel views against the truth</h2>{table}"
    html += f"<p class=faint>PSNR on RGB in [0, 1], mean over images of each image's own PSNR{images}; higher is better.</p>"
    turned = [(stage, values.get("novel_view_psnr_per_yaw")) for stage, values in stages]
    turned = [(stage, angles) for stage, angles in turned if isinstance(angles, Mapping) and angles]
    if turned:
        yaws = list(turned[-1][1])
        rows = [[f"{_short(stage).capitalize()}, dB", *(_decibel(by_yaw.get(yaw)) for yaw in yaws)] for stage, by_yaw in turned]
        html += _table(["Angle", *(f"{escape(str(yaw))}°" for yaw in yaws)], rows)
    same = [(stage, values["same_view_psnr"]) for stage, values in stages if _number(values.get("same_view_psnr"))]
    if same:
        figures = ", ".join(f"{_decibel(value)} dB in {_short(stage)}" for stage, value in same)
        html += f"<p class=faint>In the photo's own view (a reconstruction, not counted above): {figures}.</p>"
    body = _psnr_table(run, "_body")
    return html + (f"<h3>On the person's pixels alone</h3>{body}" if body else "")


def group_of(name: str) -> str:
    """The panel a scalar belongs to: "image_rec" -> "image", "mAP" -> "scores", "train/loss" -> "train"."""
    if name in SCORES or name.lower().startswith(("rank", "cmc")):
        return "scores"
    first = name.split("/")[0] if "/" in name else name.split("_")[0]
    return ALIASES.get(first, first)


def panels(rows: list[dict[str, Any]]) -> str:
    """Every scalar of one stage's history, one panel a group."""
    series: dict[str, tuple[list[float], list[float]]] = {}
    for row in rows:
        step = row.get("iteration", row.get("epoch"))
        for name, value in row.items():
            if name not in NOT_SCALARS and _number(value) and _number(step):
                x, y = series.setdefault(name, ([], []))
                x.append(step)
                y.append(value)
    groups: dict[str, dict[str, tuple[list[float], list[float]]]] = {}
    for name, points in series.items():
        if any(math.isfinite(v) for v in points[1]):
            groups.setdefault(group_of(name), {})[name] = points
    order = {name: i for i, name in enumerate(GROUPS)}
    html = []
    for group in sorted(groups, key=lambda g: (order.get(g, len(order)), g)):
        members = list(groups[group].items())
        title = escape(GROUPS.get(group, group.replace("_", " ").capitalize()))
        for start in range(0, len(members), MAX_SERIES):
            curves = chart(dict(members[start : start + MAX_SERIES]), percent=group == "scores")
            html.append(f'<div class="panel"><h4>{title}</h4>{curves}</div>')
    return "".join(html)


def curves(run: Run) -> str:
    """Loss curves, stage by stage."""
    stages: dict[str, list[dict[str, Any]]] = {}
    for row in run.history:
        stages.setdefault(str(row["stage"]), []).append(row)
    order = {name: i for i, name in enumerate(ROWS)}
    html = ""
    for stage in sorted(stages, key=lambda s: (order.get(s, len(order)), s)):
        body = panels(stages[stage])
        if body:
            html += f'<h3>{escape(ROWS.get(stage, stage))}</h3><div class="panels">{body}</div>'
    note = "<p class=faint>Over the iterations of each stage; faint: as logged, strong: smoothed.</p>"
    return f"<h2>Curves</h2>{note}{html}" if html else ""


def pictures(run: Run) -> str:
    """The run's pictures: novel views, then ranked lists, then the rest."""
    kinds: dict[str, list[str]] = {"Novel views": [], "Ranked lists": [], "Pictures": []}
    for file, caption in run.pictures:
        stem = file.stem.lower()
        kind = "Novel views" if "novel" in stem or "view" in stem else "Ranked lists" if "rank" in stem else "Pictures"
        data = base64.b64encode(file.read_bytes()).decode("ascii")
        caption = caption or next((text for end, text in CAPTIONS.items() if stem.endswith(end)), "")
        title = escape(re.sub(r"^stage(\d)", r"stage \1:", re.sub("[_-]", " ", file.stem)).capitalize())
        text = f"<b>{title}.</b> {escape(caption)}" if caption else f"<b>{title}</b>"
        image = f'<img src="data:image/png;base64,{data}" alt="{escape(caption or title)}">'
        kinds[kind].append(f"<figure>{image}<figcaption>{text}</figcaption></figure>")
    return "".join(f"<h2>{kind}</h2>{''.join(figures)}" for kind, figures in kinds.items() if figures)


def times(run: Run) -> str:
    """Seconds of each part; without them, the times the history holds."""
    seconds = run.metrics.get("seconds")
    named = seconds if isinstance(seconds, Mapping) else _part(run.metrics, "times")
    parts = {str(k): v for k, v in named.items() if _number(v)}
    if _number(seconds):
        parts["total"] = seconds
    if not parts:
        for row in run.history:
            if _number(row.get("time")):
                parts[str(row["stage"])] = max(parts.get(str(row["stage"]), 0.0), row["time"])
    if not parts:
        return ""
    parts = {**{k: v for k, v in parts.items() if k != "total"}, **({"total": parts["total"]} if "total" in parts else {})}
    rows = [[escape(ROWS.get(name, name.replace("_", " ").capitalize())), _duration(value)] for name, value in parts.items()]
    return f"<h2>Times</h2>{_table([], rows)}"


def other_metrics(run: Run) -> str:
    """Whatever else metrics.json says."""
    known = {*SCORES, *GUESSES, *(key + "_body" for key in GUESSES)}
    known |= {"novel_view_psnr", "novel_view_psnr_body", "novel_view_psnr_per_yaw", "novel_view_images", "same_view_psnr"}
    rows = []
    for key, value in run.metrics.items():
        if key in ("seconds", "times"):
            continue
        inner = {f"{key}.{k}": v for k, v in value.items() if k not in known} if isinstance(value, Mapping) else {key: value}
        for name, v in inner.items():
            if isinstance(v, (str, int, float)):
                rows.append([escape(name), escape(f"{v:.5g}" if isinstance(v, float) else str(v))])
    return f"<h2>Further figures</h2>{_table([], rows)}" if rows else ""


def configuration(run: Run) -> str:
    if not run.config.strip():
        return ""
    return f"<h2>Configuration</h2><details><summary>config.yaml</summary><pre>{escape(run.config)}</pre></details>"
