"""The demo's own decisions; its training is what the end-to-end tests run."""

from __future__ import annotations

import json
import pathlib
from types import SimpleNamespace

import pytest

from gcl_fast import synthetic
from gcl_fast.config import to_dict, yaml_text
from gcl_fast.errors import RunError
from gcl_fast.runs import synthetic_demo as demo
from gcl_fast.runs import training
from gcl_fast.runs.folder import write_metrics
from gcl_fast.runs.lock import RunLock


@pytest.fixture
def stopped() -> list[bool]:
    """Not empty: training is stopped in stage 1."""
    return []


@pytest.fixture
def calls(monkeypatch, stopped):
    made: list[str] = []

    def write_world(root, **options):
        made.append("world")
        root.mkdir(parents=True, exist_ok=True)
        return SimpleNamespace(created=True)

    def train(config, stages, *, resume, control):
        made.append(f"train {stages} {resume} {control}")
        (config.run_dir / "config.yaml").write_text(yaml_text(to_dict(config)))
        (config.run_dir / "report.html").write_text("")  # written while it trains, too
        write_metrics(config.run_dir, {"stage1": {"mAP": 0.5, "rank1": 0.5}})
        if not stopped:
            write_metrics(config.run_dir, {"control": {"mAP": 0.5, "rank1": 0.5}})
            picture = config.run_dir / "pictures" / "stage3_ranked_lists.png"  # the last
            picture.parent.mkdir(exist_ok=True)
            picture.write_bytes(b"")

    monkeypatch.setattr(synthetic, "write_world", write_world)
    monkeypatch.setattr(training, "train", train)
    return made


def test_a_finished_demo_is_not_repeated_unless_fresh(tmp_path, calls):
    out = tmp_path / "demo"
    demo.run_demo(out)
    assert calls == ["world", "train (1, 2, 3) True True"]
    assert json.loads((out / "metrics.json").read_text())["seconds"] >= 0
    demo.run_demo(out)
    assert len(calls) == 2
    (out / "stage1").mkdir()
    demo.run_demo(out, fresh=True)
    assert len(calls) == 4 and not (out / "stage1").exists()


def test_a_stopped_demo_goes_on(tmp_path, calls, stopped):
    stopped.append(True)
    demo.run_demo(tmp_path / "demo")
    assert not demo.finished(tmp_path / "demo")
    stopped.clear()
    demo.run_demo(tmp_path / "demo")
    assert calls.count("train (1, 2, 3) True True") == 2 and demo.finished(tmp_path / "demo")


def test_a_demo_stopped_after_its_last_score_still_gets_its_pictures(tmp_path, calls):
    out = tmp_path / "demo"
    demo.run_demo(out)
    (out / "pictures" / "stage3_ranked_lists.png").unlink()
    assert not demo.finished(out)
    demo.run_demo(out)
    assert calls.count("train (1, 2, 3) True True") == 2 and demo.finished(out)


def test_fresh_deletes_nothing_under_a_process_at_work(tmp_path, calls):
    out = tmp_path / "demo"
    demo.run_demo(out)
    held = RunLock(out)
    try:
        with pytest.raises(RunError, match="is in use by process"):
            demo.run_demo(out, fresh=True)
    finally:
        held.release()
    assert demo.finished(out) and len(calls) == 2


def test_the_demo_of_another_seed_is_not_shown_for_this_one(tmp_path, calls):
    demo.run_demo(tmp_path / "demo", seed=1)
    with pytest.raises(RunError, match="holds the demo of seed 1: --fresh removes it and makes that of seed 5"):
        demo.run_demo(tmp_path / "demo", seed=5)
    demo.run_demo(tmp_path / "demo", seed=5, fresh=True)
    assert len(calls) == 4


def test_the_command_says_what_is_to_come_and_what_came(tmp_path, calls, capsys):
    from gcl_fast.cli.main import main

    out = tmp_path / "my demo"
    assert main(["demo", "--out", str(out)]) == 0
    first, *rest = capsys.readouterr().out.splitlines()
    assert "about ten minutes on two quiet cores" in first and str(out) in first and "docs/own_photos.md" in rest[-1]
    assert rest[-2].endswith(f"gcl-fast generate '{out}' --turntable --num 4")  # to be pasted into a shell
    assert main(["demo", "--out", str(out)]) == 0
    assert "ten minutes" not in capsys.readouterr().out  # it is there


def test_fresh_does_not_delete_what_is_no_demo(tmp_path, calls):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("all of it")
    with pytest.raises(RunError, match="not deleted"):
        demo.run_demo(tmp_path / "mine", fresh=True)
    assert (tmp_path / "mine" / "thesis.txt").exists() and calls == []


def test_the_demo_fits_the_published_method():
    config = demo.demo_config(3, pathlib.Path("runs/demo"))
    assert config.seed == 3 and config.root == "runs/demo/data" and config.run_dir.as_posix() == "runs/demo"
    assert config.stage3.lr_encoder == 3.5e-4 and config.stage3.temperature == 0.04


def test_the_demo_may_lie_in_the_folder_one_stands_in(tmp_path, monkeypatch):
    (tmp_path / "here/inside").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "here/inside")
    for out, folder in ((".", "here/inside"), ("..", "here")):
        config = demo.demo_config(1, pathlib.Path(out))
        assert config.run_dir == tmp_path / folder and config.name == config.run_dir.name


def test_summary_has_every_score():
    scores = {"mAP": 0.5, "rank1": 0.6}
    text = demo.summary(
        {
            "untrained": scores,
            "stage1": scores,
            "stage3": scores,
            "control": scores,
            "seconds": 400.0,
            "stage2": {"novel_view_psnr": 17.5, "mean_image_psnr": 17.9, "blank_background_psnr": 19.0},
        }
    )
    for word in ("untrained", "stage1", "stage3", "control", "50.0%", "17.50 dB", "400 seconds"):
        assert word in text
    assert "after stage3" not in text  # no generator of stage 3 was scored


def test_summary_shows_the_views_of_both_stages_beside_the_guesses():
    views = {"novel_view_psnr": 22.5, "novel_view_psnr_body": 19.0, "novel_view_ssim": 0.687, "source_image_psnr": 18.8}
    after_3 = {**views, "novel_view_psnr": 22.75, "mAP": 0.7, "rank1": 0.8}
    lines = demo.summary({"stage2": views, "stage3": after_3}).splitlines()
    table = {line[:28].strip(): line[28:].split() for line in lines}
    assert table["novel views of new people"] == ["PSNR", "body", "SSIM"]
    assert table["after stage2"] == ["22.50", "dB", "19.00", "dB", "0.687"]
    assert table["after stage3"][0] == "22.75"
    assert table["guess: source image"] == ["18.80", "dB"]
