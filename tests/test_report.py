"""The report: every section there, nothing fetched, missing parts left out, bad files named."""

from __future__ import annotations

import base64
import itertools
import json
import math
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gcl_fast.report import write_report
from gcl_fast.report.curves import WIDTH, chart, log_ticks, smooth, ticks
from gcl_fast.report.formats import duration
from gcl_fast.report.run_data import Run, read_history
from gcl_fast.report.sections import cards
from gcl_fast.report.titles import group_of
from gcl_fast.report.warned import epochs_in_words

METRICS = {
    "untrained": {"mAP": 0.123, "rank1": 0.2},
    "stage1": {"mAP": 0.432, "rank1": 0.61, "rank5": 0.7},
    "stage2": {
        "novel_view_psnr": 19.43,
        "blank_background_psnr": 14.2,
        "mean_image_psnr": 15.83,
        "novel_view_psnr_body": 12.5,
        "mean_image_psnr_body": 9.25,
        "novel_view_psnr_per_yaw": {"45": 19.0, "90": 19.8},
        "novel_view_images": 56,
    },
    "stage3": {"mAP": 0.478, "rank1": 0.66},
    "control": {"mAP": 0.44, "rank1": 0.6},
    "times": {"world": 41.0, "stage1": 100.0},
    "seconds": 543.2,
    "device": "cpu <2 cores>",
}
VOID = {"meta", "img", "line", "circle", "polyline", "br"}


class Page(HTMLParser):
    """Checks nesting, collects tags, attributes and visible text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.feed(text)
        assert self.open == [], self.open

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] not in ("style", "title"):
            self.text.append(data)


@pytest.fixture
def run(tmp_path):
    folder = tmp_path / "demo"
    (folder / "pictures").mkdir(parents=True)
    (folder / "config.yaml").write_text("seed: 0\nname: '<demo>'\n")
    (folder / "metrics.json").write_text(json.dumps(METRICS))
    rows = []
    for stage in ("stage1", "stage2", "stage3"):
        for i in range(30):
            losses = {"total": 3.0 / (i + 1), "image_rec": 1.0, "adv_nv": 0.5}
            rows.append({"stage": stage, "epoch": i // 10, "iteration": i, "time": 0.5 * i, **losses})
        rows.append({"stage": stage, "epoch": 2, "iteration": 29, "mAP": 0.25, "rank1": 0.5, "clusters": 12.0})
    (folder / "history.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    from gcl_fast.visuals import save_png

    picture = np.zeros((8, 8, 3), dtype=np.uint8)
    save_png(folder / "pictures" / "stage2_novel_views.png", picture, caption="A caption with <angles> & more")
    save_png(folder / "pictures" / "stage3_ranked_lists.png", picture)
    save_png(folder / "pictures" / "other.png", picture)
    return folder


def test_all_sections(run):
    path = write_report(run)
    assert path == run / "report.html"
    html = path.read_text(encoding="utf-8")
    page = Page(html)
    text = "\n".join(page.text)
    for section in (
        "Scores",
        "Novel views against the truth",
        "Curves",
        "Novel views",
        "Ranked lists",
        "Pictures",
        "Times",
        "Configuration",
        "Untrained network",
        "Stage 1: identity encoder warm-up",
        "Stage 3: joint training",
        "Control: stage 1 continued",
        "12.3%",
        "43.2%",
        "47.8%",
        "44.0%",
        "19.43 dB",
        "14.20 dB",
        "15.83 dB",
        "12.50 dB",
        "9 min 03 s",
        "45°",
        "A caption with <angles> & more",
        "name: '<demo>'",
        "cpu <2 cores>",
        "Total loss",
        "Image L1",
        "Adversarial, generator",
        "Held-out scores",
        "Pseudo-labels",
    ):
        assert section in text, section
    assert "+4.6" in text and "+3.8" in text and "+35.5" in text  # points over stage 1, the control, untrained


def test_pictures_of_earlier_stages_are_folded(run):
    from gcl_fast.visuals import save_png

    save_png(run / "pictures" / "stage3_novel_views.png", np.ones((8, 8, 3), dtype=np.uint8))
    html = write_report(run).read_text(encoding="utf-8")
    pictures = html[html.index("<h2>Novel views</h2>") : html.index("<h2>Times</h2>")]
    assert re.findall(r"<details><summary>(.*?)</summary>", pictures) == ["Stage 2: novel views"]
    assert html.index("<b>Stage 3: novel views") < html.index("<summary>Stage 2: novel views")


def test_what_is_rarely_read_is_folded(run):
    """Angle by angle, the curves of stages gone by, the machine, further figures, settings; scores and pictures stand open."""
    metrics = {**METRICS, "resolved": {"device": "cpu", "images": 96, "image_names": "466d4f3890c821f9", "loader_queue": 3}}
    metrics |= {"stages": [1, 2, 3], "with_control": True}
    metrics["stage2"] = {**METRICS["stage2"], "same_view_psnr_body": 29.7523, "odd_figure": 0.5}
    (run / "metrics.json").write_text(json.dumps(metrics))
    html = write_report(run).read_text(encoding="utf-8")
    Page(html)
    folds = re.findall(r"<details([^>]*)><summary>(.*?)</summary>", html)
    assert [title for attributes, title in folds if "open" in attributes] == ["Stage 3: joint training"]
    assert [title for attributes, title in folds if "open" not in attributes] == [
        "Whole image, PSNR, by angle",
        "Stage 1: identity encoder warm-up",
        "Stage 2: generator warm-up",
        "Machine and automatic settings",
        "Further figures",
        "Configuration (config.yaml)",
    ]
    outside = re.sub(r"<details>.*?</details>", "", html, flags=re.DOTALL)
    assert "47.8%" in outside and "19.43 dB" in outside and outside.count("<img") == 3
    assert "466d4f3890c821f9" not in html and "resolved" not in html and "with_control" not in html
    for title, value in (
        ("Training images", "96"),
        ("Loader queue", "3"),
        ("Stage 2, the photo&#39;s own view (not turned): On the person&#39;s pixels alone, PSNR", "29.75 dB"),
        ("stage2.odd_figure", "0.5"),
    ):
        assert f"<tr><th>{title}</th><td>{value}</td></tr>" in html


def test_the_report_is_written_anew_by_a_command(run, capsys):
    from gcl_fast.cli.main import main

    assert main(["report", str(run)]) == 0
    assert capsys.readouterr().out == f"report: {run / 'report.html'}\n" and (run / "report.html").exists()
    assert main(["report", str(run / "none")]) == 1
    assert "expected a run folder here, found nothing" in capsys.readouterr().err
    assert main(["report", str(run / "report.html")]) == 1
    assert "report.html: expected a run folder here, found a file: give the folder of its run" in capsys.readouterr().err


def test_nothing_is_fetched(run):
    html = write_report(run).read_text(encoding="utf-8")
    page = Page(html)
    assert not re.search(r"https?:|//[a-z]", re.sub(r"data:image/png;base64,[A-Za-z0-9+/=]*", "", html))
    assert "url(" not in html and "@import" not in html
    assert not {"script", "link", "iframe", "object", "embed"} & {tag for tag, _ in page.tags}
    sources = [attributes["src"] for tag, attributes in page.tags if tag == "img"]
    assert len(sources) == 3
    for source in sources:
        kind, data = source.split(",", 1)
        assert kind == "data:image/png;base64" and base64.b64decode(data).startswith(b"\x89PNG")
    assert all("href" not in attributes and "srcset" not in attributes for _, attributes in page.tags)


def test_half_a_picture_of_a_killed_run_is_not_shown(run):
    before = write_report(run).read_bytes()
    (run / "pictures" / ".stage3_test.123.456.tmp.png").write_bytes(b"half a picture")
    assert write_report(run).read_bytes() == before


def test_deterministic_and_leaves_no_temporary_files(run):
    first = write_report(run).read_bytes()
    assert write_report(run).read_bytes() == first
    assert sorted(p.name for p in run.iterdir()) == ["config.yaml", "history.jsonl", "metrics.json", "pictures", "report.html"]


def test_light_and_dark_have_the_same_variables(run):
    html = write_report(run).read_text(encoding="utf-8")
    light, dark = html.split("@media (prefers-color-scheme: dark)")[:2]
    assert set(re.findall(r"--(\w+):", light)) == set(re.findall(r"--(\w+):", dark.split("}")[0]))


def test_stage_1_only(tmp_path):
    (tmp_path / "history.jsonl").write_text('{"stage": "stage1", "epoch": 0, "iteration": 0, "time": 1.0, "contrast": 2.0}\n')
    text = "\n".join(Page(write_report(tmp_path).read_text(encoding="utf-8")).text)
    assert "Cluster contrast" in text and "Times" in text
    for absent in ("Scores", "Novel views", "Ranked lists", "Configuration", "Stage 3"):
        assert absent not in text


def test_metrics_only(tmp_path):
    (tmp_path / "metrics.json").write_text(json.dumps({"stage1": {"mAP": 0.5}, "seconds": {"total": 7.0, "stage1": 5.0}}))
    text = "\n".join(Page(write_report(tmp_path).read_text(encoding="utf-8")).text)
    assert "50.0%" in text and "7.0 s" in text and "Curves" not in text


def test_a_loss_is_shown_as_a_loss(tmp_path):
    (tmp_path / "metrics.json").write_text(json.dumps({"stage1": {"mAP": 0.5}, "stage3": {"mAP": 0.4}}))
    html = write_report(tmp_path).read_text(encoding="utf-8")
    assert '<b class="bad">-10.0</b>' in html


def test_warnings_stand_above_the_scores_and_not_in_a_table(run):
    """In a table a sentence has one line, however long it is."""
    with (run / "history.jsonl").open("a") as file:
        for epoch, size in ((0, 60), (1, 43), (4, 41)):
            row = {"stage": "stage1", "epoch": epoch, "warnings": [f"one cluster holds {size} of 96 images: lower --<eps>"]}
            file.write(json.dumps(row) + "\n")
    html = write_report(run).read_text(encoding="utf-8")
    Page(html)
    told = "<b>Stage 1, epochs 1, 2 and 5 (figures of epoch 5)</b><br>one cluster holds 41 of 96 images: lower --&lt;eps&gt;"
    assert html.count("one cluster holds") == 1
    assert html.index("<h1>") < html.index(told) < html.index("<h2>Scores</h2>") < html.index("<table>")


@pytest.mark.parametrize(
    ("epochs", "words"),
    [
        ([4], "epoch 4"),
        ([1, 2], "epochs 1 and 2"),
        ([1, 2, 3], "epochs 1 to 3"),
        ([2, 4, 9], "epochs 2, 4 and 9"),
        ([1, 3, 5, 7, 9, 11], "6 of the epochs 1 to 11"),
    ],
)
def test_epochs_in_words(epochs, words):
    assert epochs_in_words(epochs) == words


@pytest.mark.parametrize("value", [None, "n/a", float("nan"), True])
def test_odd_values_do_not_stop_the_report(tmp_path, value):
    metrics = {
        "stage1": {"mAP": value},
        "stage2": {"novel_view_psnr": value},
        "stage3": "none",
        "seconds": value,
        "control": {"mAP": 0.5},
    }
    (tmp_path / "metrics.json").write_text(json.dumps(metrics))
    Page(write_report(tmp_path).read_text(encoding="utf-8"))


def test_missing_and_broken_files_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        write_report(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match="history.jsonl or metrics.json"):
        write_report(tmp_path)
    (tmp_path / "metrics.json").write_text("{")
    with pytest.raises(ValueError, match="metrics.json: expected JSON"):
        write_report(tmp_path)
    (tmp_path / "metrics.json").write_text("[1]")
    with pytest.raises(ValueError, match="expected a JSON object, got list"):
        write_report(tmp_path)
    assert not (tmp_path / "report.html").exists()


def test_history_of_a_killed_and_resumed_run(tmp_path):
    file = tmp_path / "history.jsonl"
    row = '{"stage": "stage1", "epoch": 0, "iteration": %d, "total": %f}'
    file.write_text("\n".join([row % (0, 5.0), row % (1, 4.0), row % (1, 4.5), '{"stage": "sta']))
    assert [(r["iteration"], r["total"]) for r in read_history(file)] == [(0, 5.0), (1, 4.5)]
    file.write_text('{"stage": "s", "iteration": 3, "a": 1, "b": 1}\n{"stage": "s", "iteration": 3, "b": 2}\n')
    assert read_history(file) == [{"stage": "s", "iteration": 3, "a": 1, "b": 2}]  # losses and scores of one step
    file.write_text("\n".join([row % (0, 5.0), '{"stage": "sta', row % (1, 4.0), ""]))
    with pytest.raises(ValueError, match="history.jsonl, line 2"):
        read_history(file)
    file.write_text('{"epoch": 1}\n')
    with pytest.raises(ValueError, match="line 1: expected an object with the key 'stage'"):
        read_history(file)


@pytest.mark.parametrize(
    ("name", "group"),
    [
        ("mAP", "scores"),
        ("rank1", "scores"),
        ("image_rec", "image"),
        ("outliers", "clusters"),
        ("largest_cluster", "clusters"),
        ("lr_encoder", "lr"),
        ("total", "total"),
        ("train/loss", "train"),
        ("id_mix", "id"),
        ("mem_self", "mem"),
    ],
)
def test_groups(name, group):
    assert group_of(name) == group


def coordinates(svg: str, kind: str) -> np.ndarray:
    points = re.search(rf'class="c0 {kind}" points="([^"]*)"', svg).group(1)
    return np.array([[float(v) for v in p.split(",")] for p in points.split()])


def test_chart_draws_rising_values_upwards():
    svg = chart({"a": (range(40), [0.5 * i for i in range(40)])})
    line = coordinates(svg, "smooth")
    assert len(line) == 40 and (np.diff(line[:, 0]) > 0).all() and (np.diff(line[:, 1]) < 0).all()
    assert line[:, 0].max() <= WIDTH and "log scale" not in svg


@pytest.mark.parametrize(("low", "high"), [(-0.0135, -0.0115), (-1.2e-7, -1e-8), (0.0, 1e6), (123.46, 123.48), (0.0, 1.0)])
def test_labels_of_the_axes_stand_whole(low, high):
    """0.62 of the font size a letter: in wide fonts (Verdana, DejaVu Sans) a digit is 0.64, a point or a minus sign 0.36."""
    svg = chart({"a": ([0, 1_000_000], [low, high])})
    labels = re.findall(r'<text x="([\d.]+)" y="[\d.]+" text-anchor="(\w+)">([^<]*)</text>', svg)
    assert len(labels) > 4
    for x, anchor, text in labels:
        width = 0.62 * 11.5 * len(text)
        begin = float(x) - (width if anchor == "end" else width / 2)
        assert begin >= 0 and begin + width <= WIDTH + 0.1, text
    grid = float(re.search(r'class="grid" x1="([\d.]+)"', svg)[1])
    line = np.array([[float(v) for v in p.split(",")] for p in re.search(r'points="([^"]*)"', svg)[1].split()])
    assert line[:, 0].min() == pytest.approx(grid, abs=0.1)


def test_chart_leaves_out_what_is_not_finite():
    values = [1.0, math.nan, 2.0, math.inf, 3.0, -math.inf]
    svg = chart({"a": (range(6), values)})
    assert len(coordinates(svg, "smooth")) == 3 and "nan" not in svg and "inf" not in svg
    with pytest.raises(ValueError, match="finite"):
        chart({"a": ([0], [math.nan])})


def test_chart_of_wide_range_is_logarithmic():
    svg = chart({"a": (range(60), [10.0 ** (-i / 10) for i in range(60)])})
    line = coordinates(svg, "raw")
    assert "log scale" in svg
    np.testing.assert_allclose(np.diff(line[3:-3, 1]), np.diff(line[3:-3, 1]).mean(), atol=0.11)  # a straight line


def labels(svg):
    """Of the vertical axis, from the lowest."""
    return re.findall(r'text-anchor="end">([^<]*)</text>', svg)


def test_scores_are_never_on_a_logarithmic_axis():
    rising = {"mAP": (range(6), [0.002, 0.01, 0.1, 0.3, 0.6, 0.9])}
    assert "log scale" in chart(rising) and "log scale" not in chart(rising, percent=True)


def test_an_axis_over_many_powers_of_ten_keeps_few_labels():
    svg = chart({"a": (range(15), [10.0**-i for i in range(15)])})
    assert "log scale" in svg and 3 <= len(labels(svg)) <= 6


@pytest.mark.filterwarnings("error")
def test_a_loss_that_vanishes_beside_its_start_is_drawn():
    """Sums of the first values leave nothing of the last ones."""
    values = np.array([10.0**-i for i in range(40)])
    assert smooth(values).min() >= values.min()
    svg = chart({"a": (range(40), values)})
    assert "log scale" in svg and "inf" not in svg and "nan" not in svg
    assert (np.diff(coordinates(svg, "smooth")[:, 1]) >= 0).all()  # downwards


@pytest.mark.parametrize("wild", [-500.0, 500.0])
def test_a_single_wild_value_does_not_squeeze_the_curve(wild):
    values = 2 + np.sin(np.arange(400))
    values[200] = wild
    assert all(abs(float(text)) < 50 for text in labels(chart({"a": (range(400), values)})))


def test_times_are_rounded_and_not_cut():
    seconds = (0.04, 59.94, 119.6, 3599.7, 7140.0)
    assert [duration(s) for s in seconds] == ["0.0 s", "59.9 s", "2 min 00 s", "1 h 00 min", "1 h 59 min"]


def test_the_last_stage_that_generates_is_on_the_cards():
    run = Run("x", metrics={"stage2": {"novel_view_psnr": 19.0}, "stage3": {"novel_view_psnr": 21.5}})
    assert [(card.value, card.text) for card in cards(run)] == [("21.50 dB", "PSNR of novel views, stage 3")]


def test_long_series_are_thinned_and_names_escaped():
    svg = chart({"<a>": (range(5000), np.sin(np.arange(5000)))})
    assert len(coordinates(svg, "raw")) <= 300 and "<a>" not in svg and "&lt;a&gt;" in svg


@settings(deadline=None, max_examples=30, derandomize=True)
@given(st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=120), st.booleans())
def test_any_series_gives_a_sound_chart(values, percent):
    Page(chart({"a": (range(len(values)), values)}, percent=percent))
    assert not re.search(r"nan|inf", chart({"a": (range(len(values)), values)}).replace("polyline", ""))


@settings(deadline=None, max_examples=30, derandomize=True)
@given(st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=200))
def test_smoothing_stays_within_the_values(values):
    array = np.array(values)
    made = smooth(array)
    assert made.shape == array.shape
    assert made.min() >= array.min() - 1e-6 and made.max() <= array.max() + 1e-6


def test_smoothing_keeps_lines_and_reduces_noise():
    line = np.linspace(5, -3, 100)
    np.testing.assert_allclose(smooth(line), line, atol=1e-9)
    noise = np.random.Generator(np.random.Philox(0)).standard_normal(400)
    assert smooth(noise)[30:-30].std() < 0.4 * noise.std()


@settings(deadline=None, max_examples=50, derandomize=True)
@given(st.floats(-1e4, 1e4), st.floats(1e-3, 1e4))
def test_ticks_are_inside_and_not_too_many(low, span):
    marks = ticks(low, low + span)
    assert 1 <= len(marks) <= 12
    assert all(low - 1e-6 * span <= m <= low + span * (1 + 1e-6) for m in marks)
    inside = log_ticks(low / 1e3, (low + span) / 1e3)
    assert all(low / 1e3 - 1e-6 <= m <= (low + span) / 1e3 + 1e-6 for m in inside)


def points_of(svg: str) -> list[list[tuple[float, float]]]:
    lines = re.findall(r'<polyline class="[^"]*" points="([^"]*)"', svg)
    return [[tuple(map(float, pair.split(","))) for pair in line.split()] for line in lines]


@pytest.mark.parametrize("steps", [False, True])
def test_a_constant_is_a_level_line_whatever_its_last_digits(steps):
    for base in (7e-6, 3.5e-4, -2.0, 1.0):
        values = [base * (1 + (i % 3) * 2e-16) for i in range(50)]
        svg = chart({"lr": (range(50), values)}, steps=steps)
        assert all(len({y for _, y in line}) == 1 for line in points_of(svg)), base
        assert f">{base:g}<".replace("e-0", "e-") in svg or f">{base:.1e}<".replace("e-0", "e-") in svg
    (line,) = points_of(chart({"lr": (range(20), [0.0] * 20)}, steps=True))
    assert len({y for _, y in line}) == 1


def test_a_schedule_is_drawn_as_it_was_set():
    values = [1.0] * 30 + [0.1] * 30
    (line,) = points_of(chart({"lr": (range(60), values)}, steps=True))
    assert len({y for _, y in line}) == 2  # two levels, and nothing between
    (fall,) = [x for (x, y), (x2, y2) in itertools.pairwise(line) if y != y2 and x == x2]
    left, right = line[0][0], line[-1][0]
    assert fall == pytest.approx(left + (right - left) * 30 / 59, abs=0.2)
    smoothed = points_of(chart({"loss": (range(60), values)}))[-1]
    assert len({y for _, y in smoothed}) > 2


def test_learning_rates_of_a_run_are_schedules(run):
    rows = [{"stage": "stage1", "epoch": e, "iteration": e, "lr_encoder": 1.0 if e < 30 else 0.5} for e in range(60)]
    (run / "history.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (line,) = points_of(write_report(run).read_text(encoding="utf-8"))
    assert len({y for _, y in line}) == 2


def test_a_live_page_says_so_and_reloads(run):
    live = write_report(run, live=True).read_text(encoding="utf-8")
    Page(live)
    assert '<meta http-equiv="refresh" content="60">' in live and "while the run was going on" in live
    ended = write_report(run).read_text(encoding="utf-8")
    assert "http-equiv" not in ended and "going on" not in ended
