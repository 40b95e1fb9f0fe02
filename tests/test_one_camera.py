"""Data on which no query, or not every one, has its person under another camera: said at start, trained, not scored."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

pytest.importorskip("tyro", reason="the command line needs tyro")
pytest.importorskip("torchvision", reason="the backbones need torchvision")

from gcl_fast.cli.main import main
from gcl_fast.evaluation import answerable, evaluate_features, identities, scoring_note
from gcl_fast.files import json_text
from gcl_fast.records import Record
from gcl_fast.stages.checkpoint import load_checkpoint
from gcl_fast.visuals import ranked_lists_from_features
from tests.toy_world import SETTINGS, write_toy_world


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Everybody is seen by camera 1 alone."""
    root = write_toy_world(tmp_path / "data", people=3, images=4)
    for image in sorted(root.rglob("*_c2s1_*")):
        image.rename(image.with_name(image.name.replace("_c2s1_", "_c1s1_")))
    return root


def strictly(path: Path) -> dict:
    """JSON as browsers read it: without NaN."""

    def refuse(word: str) -> None:
        raise AssertionError(f"{word} in {path}")

    return json.loads(path.read_text(), parse_constant=refuse)


def test_a_run_on_one_camera_ends_with_a_report(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings, runs = tmp_path / "toy.yaml", tmp_path / "runs"
    settings.write_text(SETTINGS)
    command = ["train", "--config", str(settings), "--root", str(root), "--runs", str(runs), "--stage", "1"]
    assert main(command) == 0, capsys.readouterr().err
    output = capsys.readouterr().out
    assert "no scores: no query has a match in the gallery: 4 have their person there only in their own camera" in output
    assert "--same-camera" in output and "nan" not in output
    run = runs / "run"
    assert "untrained" not in strictly(run / "metrics.json") and (run / "report.html").exists()
    for line in (run / "history.jsonl").read_text().splitlines():
        assert "NaN" not in line
    assert load_checkpoint(run / "stage1" / "best.pt")["epoch"] == load_checkpoint(run / "stage1" / "last.pt")["epoch"] == 2
    assert main([*command, "--resume"]) == 0
    capsys.readouterr()
    assert main(["evaluate", str(run)]) == 1
    assert "no query has a match" in capsys.readouterr().err
    scores = tmp_path / "scores.json"
    assert main(["evaluate", str(run), "--same-camera", "--output", str(scores), "--ranked-lists", str(tmp_path / "a.png")]) == 0
    assert 0 < strictly(scores)["plain"]["mAP"] <= 1
    assert main([*command, "--resume", "--same-camera"]) == 0  # the choice may come later
    assert main([*command, "--name", "wide", "--same-camera"]) == main(["evaluate", str(runs / "wide")]) == 0  # as it was trained
    assert "rank1" in strictly(run / "metrics.json")["untrained"] and (run / "pictures/stage1_ranked_lists.png").exists()


def people(*rows: tuple[int, int, str]) -> list[Record]:
    return [Record(Path(name), pid, camera) for pid, camera, name in rows]


QUERY = people((1, 0, "a"), (2, 0, "b"), (3, 1, "c"), (-1, 0, "d"), (9, 0, "e"))
GALLERY = people((1, 1, "f"), (2, 0, "g"), (3, 1, "c"), (4, 0, "h"))


def test_why_queries_are_not_scored() -> None:
    assert answerable(QUERY, GALLERY) == [0] and answerable(QUERY, GALLERY, same_camera=True) == [0, 1]
    note = scoring_note(QUERY, GALLERY)
    assert note.startswith("4 of 5 queries are not scored: 1 carry no identity, 1 show people who are not in the gallery, 2 have")
    assert note.endswith("--same-camera counts those, too")
    assert "1 have their person there only as the very same image" in scoring_note(QUERY, GALLERY, same_camera=True)
    assert scoring_note(QUERY[:1], GALLERY) == "" and "no gallery" in scoring_note(QUERY, [])
    junk = people((-1, 1, "i"))  # a stranger is no match of a stranger
    assert answerable(QUERY, GALLERY + junk) == [0]
    alone = people((5, -2, "j"))  # of an unknown camera: each file has a number of its own below 0
    note = scoring_note(alone, alone)
    assert note.endswith("1 have their person there only as the very same image") and "--same-camera" not in note
    assert scoring_note(QUERY[4:], GALLERY).startswith(
        "no scores: no query has a match in the gallery: 1 show people who are not"
    )


def test_matches_of_the_same_camera_count_but_never_the_query_itself() -> None:
    features = torch.eye(4)
    gallery = torch.stack([features[0], features[3], features[2], features[1]])  # of person 2 another picture, far away
    strict = evaluate_features(features[:3], gallery, QUERY[:3], GALLERY)
    wide = evaluate_features(features[:3], gallery, QUERY[:3], GALLERY, same_camera=True)
    assert strict.num_valid == 1 and strict.mAP == 1
    assert wide.num_valid == 2 and 0.5 < wide.mAP < 1
    assert identities(QUERY, GALLERY, same_camera=True)[2][2] == identities(QUERY, GALLERY, same_camera=True)[3][2]
    itself = people((3, 1, "sub/../c"), (3, 1, "f"))  # the same file by another name, and another one
    scores = evaluate_features(features[2:3], features[[2, 0]], QUERY[2:3], itself, same_camera=True)
    assert scores.num_valid == 1 and scores.mAP == 1 and answerable(QUERY[2:3], itself[:1], same_camera=True) == []


def test_ranked_lists_of_one_camera(root: Path) -> None:
    from gcl_fast.data.datasets.load import load_dataset

    data, size = load_dataset("market1501", root), (40, 20)
    features = torch.nn.functional.normalize(torch.randn(12, 4, generator=torch.Generator().manual_seed(0)), dim=1)
    query, gallery = features[: len(data.query)], features[: len(data.gallery)]
    with pytest.raises(ValueError, match="under another camera"):
        ranked_lists_from_features(query, gallery, data.query, data.gallery, image_size=size)
    assert ranked_lists_from_features(query, gallery, data.query, data.gallery, image_size=size, same_camera=True).shape[2] == 3


def test_json_is_json() -> None:
    text = json_text({"a": float("nan"), "b": [1.5, float("-inf"), (2, "x")], "c": {"d": None}})
    assert json.loads(text, parse_constant=lambda word: pytest.fail(word)) == {
        "a": None,
        "b": [1.5, None, [2, "x"]],
        "c": {"d": None},
    }
