"""Own photos: a folder or a list of paths is enough to train, to embed and to search."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

from gcl_fast import load_encoder
from gcl_fast.cli.main import main
from gcl_fast.images import pillow
from gcl_fast.models.fingerprint import fingerprint
from gcl_fast.runs.feature_files import read_features, write_features
from gcl_fast.runs.folder import read_metrics
from gcl_fast.runs.photo_features import PhotoFeatures, encoder_and_size
from gcl_fast.runs.photo_search import GREY, nearest, search_sheet, short
from gcl_fast.stages.checkpoint import load_trained, save_checkpoint
from gcl_fast.visuals.canvas import BLUE, compose, enlargement
from tests.toy_world import SETTINGS, SIZE, write_toy_world

pytest.importorskip("tyro", reason="the command line needs tyro")
STAGE1 = SETTINGS.replace("epochs: 2, iters: 3", "epochs: 1, iters: 2")


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """24 photos in folders by nothing in particular, and nothing else."""
    folder = tmp_path_factory.mktemp("own")
    world = write_toy_world(folder / "world")
    for i, path in enumerate(sorted((world / "market1501" / "bounding_box_train").iterdir())):
        target = folder / "photos" / f"day{i % 2}" / f"{i:03d}.jpg"
        target.parent.mkdir(parents=True, exist_ok=True)
        path.rename(target)
    return folder / "photos"


@pytest.fixture(scope="module")
def run(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Stage 1 on the folder alone."""
    runs = tmp_path_factory.mktemp("runs")
    (runs / "toy.yaml").write_text(STAGE1)
    command = ["train", "--config", str(runs / "toy.yaml"), "--dataset", "folder", "--root", str(photos), "--stage", "1"]
    assert main([*command, "--runs", str(runs), "--name", "own"]) == 0
    return runs / "own"


def test_a_folder_of_photos_trains_without_scores(run: Path) -> None:
    assert (run / "stage1/best.pt").is_file() and (run / "report.html").is_file()
    assert not {"untrained", "stage1"} & set(read_metrics(run))


def test_a_list_of_paths_trains(photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "toy.yaml").write_text(STAGE1)
    (tmp_path / "train.csv").write_text("path\n" + "".join(f"{p}\n" for p in sorted(photos.rglob("*.jpg"))))
    command = ["train", "--config", str(tmp_path / "toy.yaml"), "--dataset", "csv", "--root", str(tmp_path), "--stage", "1"]
    assert main([*command, "--runs", str(tmp_path), "--name", "listed"]) == 0
    assert (tmp_path / "listed/stage1/last.pt").is_file() and "24 without identity" in capsys.readouterr().out


def test_embed_gives_the_encoder_s_features(run: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "features.npz"
    assert main(["embed", str(photos), "--weights", str(run), "--out", str(out), "--device", "cpu", "--batch-size", "7"]) == 0
    assert "24 photos" in capsys.readouterr().out
    with np.load(out) as file:
        paths, features, folder = file["paths"].tolist(), file["features"], str(file["folder"])
        assert str(file["encoder"]) == fingerprint(load_encoder(run, device="cpu").network, (80, 40))
    assert paths == sorted(p.relative_to(photos).as_posix() for p in photos.rglob("*.jpg")) and folder == str(photos)
    expected = load_encoder(run, device="cpu")([photos / path for path in paths], batch_size=7)
    torch.testing.assert_close(torch.from_numpy(features), expected, rtol=0, atol=1e-6)
    assert np.allclose(np.linalg.norm(features, axis=1), 1, atol=1e-6)


def test_broken_photos_are_named_or_passed_over(
    run: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, out = tmp_path / "mixed", tmp_path / "features.npz"
    folder.mkdir()
    (folder / "good.jpg").write_bytes(next(photos.rglob("*.jpg")).read_bytes())
    (folder / "bad.jpg").write_bytes(b"no photo")
    command = ["embed", str(folder), "--weights", str(run), "--out", str(out), "--device", "cpu"]
    assert main(command) == 1
    printed = capsys.readouterr().err
    assert "bad.jpg" in printed and "--skip-broken" in printed and "Traceback" not in printed and not out.exists()
    assert main([*command, "--skip-broken"]) == 0
    assert "bad.jpg" in capsys.readouterr().out and np.load(out)["paths"].tolist() == ["good.jpg"]
    (folder / "good.jpg").unlink()
    assert main([*command, "--skip-broken"]) == 1 and "no photo is left: 1 photo cannot be read" in capsys.readouterr().err
    assert main(["embed", str(tmp_path / "nowhere"), *command[2:]]) == 1
    assert "no photo and no folder at" in capsys.readouterr().err


def test_search_finds_copies_first_and_never_the_photo_itself(
    run: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    query, copy = photos / "day0/004.jpg", photos / "day1/copy.jpg"
    sheet = tmp_path / "sheet.png"
    copy.write_bytes(query.read_bytes())
    try:
        flags = ["--weights", str(run), "--top", "3", "--sheet", str(sheet), "--device", "cpu"]
        assert main(["search", str(query), str(photos), *flags]) == 0
        lines = capsys.readouterr().out.splitlines()
        assert lines[0] == "004.jpg" and lines[1].split() == ["1", "1.000", "day1/copy.jpg"] and len(lines) == 5
        assert not any("day0/004.jpg" in line for line in lines)
        with pillow().open(sheet) as picture:
            assert picture.width > 4 * 40 and picture.height > 80
        kept = tmp_path / "kept.npz"
        assert main(["embed", str(photos), "--weights", str(run), "--out", str(kept), "--device", "cpu"]) == 0
        capsys.readouterr()
        assert main(["search", str(query), str(kept), *flags]) == 0
        assert capsys.readouterr().out.splitlines() == lines
    finally:
        copy.unlink()


def test_the_sheet_of_an_earlier_search_is_no_photo(
    run: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "photos"
    shutil.copytree(photos, folder)
    search = ["search", str(photos / "day0/004.jpg"), str(folder), "--weights", str(run), "--top", "99", "--device", "cpu"]
    told = []
    for _ in range(2):
        assert main([*search, "--sheet", str(folder / "day0/../search.png")]) == 0
        told.append(capsys.readouterr().out)
    assert (folder / "search.png").is_file() and told[0] == told[1] and "search.png" not in told[1].partition("sheet: ")[0]
    for photo in folder.rglob("*.jpg"):
        photo.unlink()
    assert main([*search, "--sheet", str(folder / "search.png")]) == 1
    assert f"no photo in {folder} but {folder / 'search.png'}" in capsys.readouterr().err


def test_photos_that_moved_are_found_and_grey_on_the_sheet(
    run: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, query, kept, sheet = tmp_path / "photos", tmp_path / "query.jpg", tmp_path / "kept.npz", tmp_path / "sheet.png"
    shutil.copytree(photos, folder)
    shutil.copy(photos / "day0/004.jpg", query)
    flags = ["--weights", str(run), "--device", "cpu"]
    assert main(["embed", str(folder), "--out", str(kept), *flags]) == 0
    search = ["search", str(query), str(kept), "--top", "3", "--sheet", str(sheet), *flags]
    capsys.readouterr()
    assert main(search) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].split() == ["1", "1.000", "day0/004.jpg"] and len(lines) == 5

    def grey() -> int:
        with pillow().open(sheet) as picture:
            return int((np.asarray(picture) == GREY).all(-1).sum())

    tile = SIZE[0] * SIZE[1] * enlargement(SIZE[0]) ** 2  # pixels of one picture
    assert grey() < tile
    (folder / "day0/004.jpg").unlink()
    assert main(search) == 0
    printed = capsys.readouterr().out.splitlines()
    assert printed[:4] == lines[:4] and printed[-1] == lines[-1]
    assert printed[4].startswith("note: 1 of the photos on the sheet cannot be read") and "004.jpg: no such file" in printed[5]
    assert grey() >= tile
    folder.rename(tmp_path / "elsewhere")
    assert main(search) == 0
    printed = capsys.readouterr().out.splitlines()
    assert printed[:4] == lines[:4] and printed[4].startswith("note: 3 of the photos") and grey() >= 3 * tile


def test_features_of_a_folder_named_from_here_are_read_from_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    write_features(tmp_path / "kept.npz", PhotoFeatures([Path("photos/a.jpg")], torch.ones(1, 2)), Path("photos"), "")
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert read_features(tmp_path / "kept.npz").photos.paths == [tmp_path / "photos/a.jpg"]


def test_a_small_folder_gives_what_it_has(tmp_path: Path) -> None:
    paths = [tmp_path / f"{i}.jpg" for i in range(3)]
    photos = PhotoFeatures(paths, torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.6, 0.8]]))
    (found,) = nearest(PhotoFeatures(paths[:1], photos.features[:1]), photos, 5)
    assert [place for place, _ in found] == [2, 1] and [value for _, value in found] == pytest.approx([0.6, 0.0])


def test_one_side_of_the_images_may_be_given(run: Path) -> None:
    assert encoder_and_size(run, None, 32)[1] == (80, 32) and encoder_and_size(run, 64, None)[1] == (64, 40)


def test_which_checkpoint_of_a_run_is_taken_is_said(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    encoder_and_size(run, None, None)
    (checkpoint,) = run.rglob("last.pt")
    assert capsys.readouterr().err == f"{run}: {checkpoint.relative_to(run)} is taken\n"
    encoder_and_size(checkpoint, None, None)  # named by the user
    assert not capsys.readouterr().err


def test_names_on_the_sheet_keep_both_ends() -> None:
    assert short("0001_c1s1_00.jpg") == "0001_c1s1_00.jpg"
    one, two = (short(f"person 1 at the gate shot {i}.jpg") for i in (1, 4))
    assert short("a\u0308" * 18) == "ä" * 18
    assert one == "person 1 …ot 1.jpg" and two == "person 1 …ot 4.jpg"


def test_a_query_that_is_no_photo_is_not_to_be_skipped(
    run: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "text.jpg").write_text("no photo")
    command = ["search", str(tmp_path / "text.jpg"), str(photos), "--weights", str(run), "--sheet", str(tmp_path / "a.png")]
    assert main([*command, "--device", "cpu"]) == 1
    words = capsys.readouterr().err
    assert "cannot read image" in words and "text.jpg" in words and "--skip-broken" not in words


def test_files_that_hold_no_features_are_named(
    run: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["--weights", str(run), "--sheet", str(tmp_path / "sheet.png"), "--device", "cpu"]

    def refused(name: str) -> str:
        assert main(["search", str(photos / "day0/004.jpg"), str(tmp_path / name), *command]) == 1
        return capsys.readouterr().err

    one = {"paths": np.array(["a.jpg"]), "features": np.ones((1, 3), np.float32), "folder": np.array("x")}
    np.savez(tmp_path / "other.npz", **one)
    assert "holds 3 features a photo" in refused("other.npz")
    assert "--out 'not there.npz' writes it" in refused("not there.npz").replace(f"{tmp_path}/", "")
    (tmp_path / "none.npz").write_bytes(b"nothing")
    assert "holds no features as gcl-fast embed writes them" in refused("none.npz")
    np.savez(tmp_path / "arrays.npz", folder=one["folder"], a=np.ones(2))
    assert refused("arrays.npz").endswith("embed writes them: it lacks paths, features; its arrays are folder, a\n")
    for key, value in {"paths": np.array("a.jpg"), "features": np.ones((1, 3))}.items():
        np.savez(tmp_path / "shape.npz", **{**one, key: value})
        assert "shape.npz: expected paths [N] and features [N, D] float32, got" in refused("shape.npz")


def test_features_of_another_encoder_are_refused(
    run: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kept, other, out = tmp_path / "kept.npz", tmp_path / "other", tmp_path / "exported"
    flags = ["--sheet", str(tmp_path / "sheet.png"), "--device", "cpu"]
    assert main(["embed", str(photos), "--weights", str(run), "--out", str(kept), "--device", "cpu"]) == 0
    assert main(["export", str(run), "--out", str(out), "--format", "safetensors"]) == 0
    search = ["search", str(photos / "day0/004.jpg"), str(kept), *flags, "--weights"]
    assert main([*search, str(run)]) == 0 and main([*search, str(out)]) == 0  # the same weights in another file
    shutil.copytree(run, other)
    state = load_trained(other / "stage1/last.pt")
    state["modules"]["encoder"]["bn.bias"] += 1e-3
    save_checkpoint(other / "stage1/last.pt", state)
    capsys.readouterr()
    assert main([*search, str(other)]) == 1
    words = capsys.readouterr()
    assert f"{kept} was made by another encoder" in words.err and "at 80 x 40" in words.err and "004.jpg" not in words.out
    assert (
        main([*search, str(run), "--height", "64"]) == 1 and "is " in (words := capsys.readouterr().err) and "at 64 x 40" in words
    )
    with np.load(kept) as file:
        np.savez(tmp_path / "older.npz", **{name: file[name] for name in file if name != "encoder"})
    search[2] = str(tmp_path / "older.npz")
    assert (
        main([*search, str(run)]) == 0 and "note: " in (words := capsys.readouterr().out) and "older.npz does not tell" in words
    )


def test_parquet_needs_pyarrow_and_says_so_before_the_work(
    run: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["embed", str(photos), "--weights", str(run), "--out", str(tmp_path / "f.parquet"), "--device", "cpu"]
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    assert main(command) == 1 and "needs pyarrow: pip install pyarrow" in capsys.readouterr().err
    written: dict[str, object] = {}
    arrow, parquet = ModuleType("pyarrow"), ModuleType("pyarrow.parquet")
    arrow.array = np.asarray
    arrow.FixedSizeListArray = type("Lists", (), {"from_arrays": staticmethod(lambda values, width: values.reshape(-1, width))})
    arrow.table = lambda columns, metadata: {**columns, **metadata}
    parquet.write_table = lambda table, file: (written.update(table), file.write(b"parquet"))
    arrow.parquet = parquet
    monkeypatch.setitem(sys.modules, "pyarrow", arrow)
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", parquet)
    assert main(command) == 0 and (tmp_path / "f.parquet").read_bytes() == b"parquet"
    assert len(written["path"]) == 24 and written["feature"].shape[0] == 24 and written["folder"] == str(photos)
    assert str(written["encoder"]).endswith(" at 80 x 40")


@pytest.mark.parametrize("stage", ["1", "all"])
def test_a_dry_run_shows_all_and_writes_nothing(stage: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    world = write_toy_world(tmp_path / "world", people=6, images=8)
    (tmp_path / "toy.yaml").write_text(SETTINGS)
    before = sorted(tmp_path.rglob("*"))
    command = ["train", "--config", str(tmp_path / "toy.yaml"), "--root", str(world), "--runs", str(tmp_path / "runs")]
    assert main([*command, "--stage", stage, "--dry-run"]) == 0
    printed = capsys.readouterr().out
    for words in (
        "market1501 in",
        "starts from random weights",
        "note: a batch of stage 1 shows 2 identities, which",
        "device cpu",
        "loader",
        "2 epochs of 3 steps",
        "images/s",
        "GiB",
    ):
        assert words in printed, words
    assert ("stage 3: 2 epochs" in printed) == (stage == "all") and "in all about" in printed and "not measured" not in printed
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    "flags",
    [
        ["--stage1.num-instances", "3", "--stage1.batch-size", "24"],
        ["--method", "jvtc", "--stage1.jvtc.views", "3", "--stage1.jvtc.batch-size", "24"],
        ["--method", "jvtc", "--stage1.jvtc.views", "10", "--stage1.jvtc.batch-size", "20"],
    ],
)
def test_a_dry_run_measures_batches_that_come_in_groups(
    flags: list[str], run: Path, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["train", "--config", str(run.parent / "toy.yaml"), "--dataset", "folder", "--root", str(photos), "--stage", "1"]
    command += ["--stage1.jvtc.temporal-from", "101", *flags, "--dry-run"]
    if "jvtc" in flags:  # whose share of 0.0016 is no pair of 24 photos'
        assert main(command) == 1 and "--stage1.jvtc.cluster.rho" in capsys.readouterr().err
    assert main([*command, "--stage1.jvtc.cluster.rho", "0.1"]) == 0
    printed = capsys.readouterr().out
    assert "images/s" in printed and "not measured" not in printed


def test_a_dry_run_names_broken_photos_once(
    run: Path, photos: Path, tmp_path: Path, recwarn: pytest.WarningsRecorder, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(photos, tmp_path / "photos")
    (tmp_path / "photos/day0/bad.jpg").write_bytes(b"no photo")
    command = ["train", "--config", str(run.parent / "toy.yaml"), "--dataset", "folder", "--root", str(tmp_path / "photos")]
    assert main([*command, "--stage", "1", "--skip-broken", "--dry-run"]) == 0
    (warning,) = (str(it.message) for it in recwarn if "cannot be read" in str(it.message))
    assert warning.startswith("folder: 1 image cannot be read:\n") and "bad.jpg" in warning
    assert "not measured" not in capsys.readouterr().out


def test_a_dry_run_of_a_run_that_goes_on_shows_what_is_left(
    run: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(run, tmp_path / "own")
    command = ["train", "--config", str(run.parent / "toy.yaml"), "--dataset", "folder", "--root", str(photos), "--stage", "1"]
    command += ["--runs", str(tmp_path), "--name", "own", "--resume", "--dry-run"]
    assert main(command) == 0
    printed = capsys.readouterr().out
    assert "stage 1: done" in printed and "nothing is left to train" in printed and "images/s" not in printed
    path = tmp_path / "own/stage1/last.pt"
    save_checkpoint(path, {**load_trained(path), "epoch": 0, "position": 1})
    assert main(command) == 0
    assert "stage 1: left of 1 epoch: 1 epoch of 2 steps, 8 images (of the first 1 step done); about" in capsys.readouterr().out


def test_epochs_by_the_number_of_photos_train_and_go_on(
    run: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["train", "--config", str(run.parent / "toy.yaml"), "--dataset", "folder", "--root", str(photos), "--stage", "1"]
    command += ["--runs", str(tmp_path), "--name", "by-number", "--stage1.iters", "-1", "--stage1.batch-size", "64"]
    assert main(command) == 0
    assert "an epoch of stage 1 has 3 steps" in capsys.readouterr().out
    state = load_trained(tmp_path / "by-number/stage1/last.pt")
    assert state["iteration"] == 3 and state["config"]["stage1"]["iters"] == -1
    assert main([*command, "--resume"]) == 0


def test_a_run_of_a_plain_folder_says_how_it_gets_scores(
    run: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = tmp_path / "photos"
    shutil.copytree(photos, place)
    command = ["evaluate", str(run), "--root", str(place), "--device", "cpu"]
    assert main(command) == 1
    words = capsys.readouterr().err
    assert "query.csv and gallery.csv with columns path and pid, and train.csv with path, and give --dataset csv" in words
    names = sorted(path.relative_to(place).as_posix() for path in place.rglob("*.jpg"))
    (place / "train.csv").write_text("\n".join(["path", *names]) + "\n")
    for part, chosen in (("query", names[:4]), ("gallery", names[4:])):
        (place / f"{part}.csv").write_text("\n".join(["path,pid", *(f"{n},{i % 4}" for i, n in enumerate(chosen))]) + "\n")
    assert main([*command, "--dataset", "csv"]) == 0 and "mAP" in capsys.readouterr().out


def test_a_sheet_shows_each_query_beside_what_was_found_for_it(tmp_path: Path) -> None:
    paths, pictures = [tmp_path / f"{i}.png" for i in range(5)], [np.full((48, 24, 3), 40 * i, np.uint8) for i in range(5)]
    for path, picture in zip(paths, pictures, strict=True):
        pillow().fromarray(picture).save(path)
    queries, gallery = PhotoFeatures(paths[:2], torch.zeros(2, 3)), PhotoFeatures(paths[2:], torch.zeros(3, 3))
    found, names = [[(0, 0.9), (2, 0.5)], [(1, 0.25)]], (["q0", "q1"], ["g0", "g1", "g2"])
    sheet, unreadable = search_sheet(queries, gallery, found, (48, 24), 8, names)
    expected = compose(
        [[pictures[0], pictures[2], pictures[4]], [pictures[1], pictures[3]]],
        column_titles=["query", "1", "2"],
        captions=[["q0", "g0\n0.900", "g2\n0.500"], ["q1", "g1\n0.250"]],
        borders=[[BLUE, None, None], [BLUE, None]],
        gap_after_column=0,
    )
    assert np.array_equal(sheet, expected) and not unreadable
