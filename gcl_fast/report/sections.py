"""The parts of the report, each from a Run to HTML; an empty string where the run has nothing to show."""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping
from html import escape
from typing import Any

from .curves import MAX_SERIES, chart
from .files import Run

ROWS = {
    "untrained": "Untrained network",
    "stage1": "Stage 1: identity encoder warm-up",
    "stage2": "Stage 2: generator warm-up",
    "stage3": "Stage 3: joint training",
    "control": "Control: stage 1 continued",
}
SCORES = {"mAP": "mAP", "rank1": "Rank-1", "rank5": "Rank-5", "rank10": "Rank-10", "mINP": "mINP"}
GUESSES = {
    "novel_view_psnr": "Generated views",
    "blank_background_psnr": "Guess: background without a person",
    "mean_image_psnr": "Guess: mean training image",
    "source_image_psnr": "Guess: the photo, not turned",
}
BODY_GUESSES = {
    "novel_view_psnr_body": "Generated views",
    "mean_image_psnr_body": "Guess: mean training image",
    "source_image_psnr_body": "Guess: the photo, not turned",
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


def _duration(seconds: float) -> str:
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
        found.append((_percent(final["mAP"]), f"mAP, {ROWS[best].split(':')[0].lower()}", ""))
        if "rank1" in final:
            found.append((_percent(final["rank1"]), f"Rank-1, {ROWS[best].split(':')[0].lower()}", ""))
        for other, text in (("untrained", "untrained"), ("stage1", "stage 1"), ("control", "the control")):
            base = _part(metrics, other).get("mAP")
            if other != best and _number(base):
                gain = final["mAP"] - base
                found.append((_percent(gain, points=True), f"mAP points over {text}", "good" if gain > 0 else "bad"))
    views = _part(metrics, "stage2")
    if _number(views.get("novel_view_psnr")):
        found.append((f"{views['novel_view_psnr']:.2f} dB", "PSNR of novel views", ""))
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


def _psnr_table(values: Mapping[str, Any], names: Mapping[str, str]) -> str:
    rows = [(key, title, float(values[key])) for key, title in names.items() if _number(values.get(key))]
    finite = [v for _, _, v in rows if math.isfinite(v) and v > 0]
    top = max(finite, default=1.0)
    cells = []
    for key, title, value in rows:
        share = 100 * max(0.0, min(value / top, 1.0)) if math.isfinite(value) else 0
        kind = "own" if key.startswith("novel_view") else ""
        cells.append([title, f"{value:.2f} dB", f'<td class="bar"><i class="{kind}" style="width:{share:.1f}%"></i></td>'])
    return _table([], cells)


def novel_view_scores(run: Run) -> str:
    """PSNR of generated views beside guesses that need no generator."""
    values = _part(run.metrics, "stage2")
    if not any(_number(values.get(key)) for key in GUESSES):
        return ""
    count = values.get("novel_view_images")
    images = f", {count} images" if _number(count) else ""
    html = f"<h2>Novel views against the truth</h2>{_psnr_table(values, GUESSES)}"
    html += f"<p class=faint>PSNR on RGB in [0, 1], mean over images of each image's own PSNR{images}; higher is better.</p>"
    per_yaw = values.get("novel_view_psnr_per_yaw")
    if isinstance(per_yaw, Mapping) and per_yaw:
        head = ["Angle", *(f"{escape(str(yaw))}°" for yaw in per_yaw)]
        html += _table(head, [["Generated views, dB", *(f"{v:.2f}" if _number(v) else "–" for v in per_yaw.values())]])
    if any(_number(values.get(key)) for key in BODY_GUESSES):
        html += f"<h3>On the person's pixels alone</h3>{_psnr_table(values, BODY_GUESSES)}"
    return html


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
        title = escape(file.stem.replace("_", " ").replace("-", " ").capitalize())
        text = f"<b>{title}.</b> {escape(caption)}" if caption else f"<b>{title}</b>"
        image = f'<img src="data:image/png;base64,{data}" alt="{escape(caption or title)}">'
        kinds[kind].append(f"<figure>{image}<figcaption>{text}</figcaption></figure>")
    return "".join(f"<h2>{kind}</h2>{''.join(figures)}" for kind, figures in kinds.items() if figures)


def times(run: Run) -> str:
    """Seconds of each part; without them, the times the history holds."""
    seconds = run.metrics.get("seconds")
    parts = {str(k): v for k, v in seconds.items() if _number(v)} if isinstance(seconds, Mapping) else {}
    if not parts and _number(seconds):
        parts = {"total": seconds}
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
    known = {*SCORES, *GUESSES, *BODY_GUESSES, "novel_view_psnr_per_yaw", "novel_view_images"}
    rows = []
    for key, value in run.metrics.items():
        if key == "seconds":
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
