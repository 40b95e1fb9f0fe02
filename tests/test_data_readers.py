"""Dataset readers on small trees in each layout and root style, the errors of broken ones, and broken images."""

from __future__ import annotations

import errno
import os
import pathlib

import pytest
import torch
from PIL import Image

from gcl_fast.data.datasets.folders import image_files
from gcl_fast.data.datasets.load import load_dataset
from gcl_fast.data.datasets.readable import find_broken, require_readable
from gcl_fast.evaluation import answerable, evaluate_features, scoring_note
from gcl_fast.records import Record, ReIDData, relabel

MARKET = {
    "bounding_box_train": ["0007_c3s2_000451_03.jpg", "0002_c1s1_000451_03.jpg", "0002_c6s4_012345_01.jpg"],
    "query": ["0001_c1s1_001051_00.jpg"],
    "bounding_box_test": [
        "-1_c1s1_000401_03.jpg",
        "0000_c2s1_000151_01.jpg",
        "0001_c2s1_000301_00.jpg",
        "0001_c1s1_000301_00.jpg",
    ],
}
DUKE = {
    "bounding_box_train": ["0001_c2_f0046182.jpg", "0005_c8_f0046302.jpg"],
    "query": ["0005_c2_f0046985.jpg"],
    "bounding_box_test": ["0006_c7_f0106449.jpg", "0005_c1_f0046985.jpg"],
}
MSMT = {
    "list_train.txt": ["0000/0000_000_01_0303morning_0015_0.jpg 0", "0004/0004_003_10_0303noon_0606_2.jpg 4"],
    "list_val.txt": ["0002/0002_001_15_0303noon_0700_0.jpg 2"],
    "list_query.txt": ["0000/0000_000_05_0303morning_0015_0.jpg 0"],
    "list_gallery.txt": ["0000/0000_001_06_0303morning_0016_0.jpg 0", "0009/0009_001_06_0303afternoon_0016_0_ex.jpg 9"],
}


def jpeg(path: pathlib.Path, size: tuple[int, int] = (8, 16)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.effect_noise(size, 50).convert("RGB").save(path, quality=90)


def make_market(folder: pathlib.Path, tree: dict[str, list[str]] = MARKET) -> None:
    for split, names in tree.items():
        for name in names:
            jpeg(folder / split / name)


def make_msmt(folder: pathlib.Path, train: str, test: str) -> None:
    for name, lines in MSMT.items():
        for line in lines:
            jpeg(folder / (train if name in ("list_train.txt", "list_val.txt") else test) / line.split()[0])
        (folder / name).write_text("\n".join(lines) + "\n")


def summary(records: list[Record]) -> list[tuple[str, int, int, int]]:
    return [(r.path.name, r.pid, r.camera, r.frame) for r in records]


@pytest.mark.parametrize("folder", ["market1501", "market1501/Market-1501-v15.09.15", "Market-1501-v15.09.15", "."])
def test_market(tmp_path, folder):
    make_market(tmp_path / folder)
    (tmp_path / folder / "bounding_box_train" / "Thumbs.db").write_bytes(b"x")
    (tmp_path / folder / "query" / "._0001_c1s1_001051_00.jpg").write_bytes(b"x")
    data = load_dataset("market1501", str(tmp_path))
    assert data.name == "market1501" and data.root == tmp_path
    assert summary(data.train) == [
        ("0002_c1s1_000451_03.jpg", 0, 0, 451),
        ("0002_c6s4_012345_01.jpg", 0, 5, 12345),
        ("0007_c3s2_000451_03.jpg", 1, 2, 451),
    ]
    assert summary(data.query) == [("0001_c1s1_001051_00.jpg", 1, 0, 1051)]
    assert summary(data.gallery) == [  # junk gone, the distractor stays
        ("0000_c2s1_000151_01.jpg", 0, 1, 151),
        ("0001_c1s1_000301_00.jpg", 1, 0, 301),
        ("0001_c2s1_000301_00.jpg", 1, 1, 301),
    ]
    assert all(r.path.is_file() for r in [*data.train, *data.query, *data.gallery])
    statistics = data.statistics()
    assert (statistics["train"].images, statistics["train"].identities, statistics["train"].cameras) == (3, 2, 3)
    assert statistics["gallery"].distractors == 1
    text = data.table()
    assert all(word in text for word in ("market1501", str(tmp_path), "images", "identities", "cameras", "1 distractors"))


@pytest.mark.parametrize("folder", ["dukemtmc-reid/DukeMTMC-reID", "dukemtmc-reid", "DukeMTMC-reID", "."])
def test_duke(tmp_path, folder):
    make_market(tmp_path / folder, DUKE)
    data = load_dataset("dukemtmc", tmp_path)
    assert summary(data.train) == [("0001_c2_f0046182.jpg", 0, 1, 46182), ("0005_c8_f0046302.jpg", 1, 7, 46302)]
    assert summary(data.query) == [("0005_c2_f0046985.jpg", 5, 1, 46985)]
    assert summary(data.gallery) == [("0005_c1_f0046985.jpg", 5, 0, 46985), ("0006_c7_f0106449.jpg", 6, 6, 106449)]


@pytest.mark.parametrize(
    ("folder", "train", "test"),
    [
        ("msmt17/MSMT17_V1", "train", "test"),
        ("msmt17/MSMT17_V2", "mask_train_v2", "mask_test_v2"),
        ("MSMT17_V2", "mask_train_v2", "mask_test_v2"),
        ("msmt17", "train", "test"),
        (".", "train", "test"),
        (".", "mask_train_v2", "mask_test_v2"),
    ],
)
def test_msmt17(tmp_path, folder, train, test):
    make_msmt(tmp_path / folder, train, test)
    data = load_dataset("msmt17", tmp_path)
    assert summary(data.train) == [  # val merged in, identities 0, 2, 4 relabelled
        ("0000_000_01_0303morning_0015_0.jpg", 0, 0, 15),
        ("0004_003_10_0303noon_0606_2.jpg", 2, 9, 606),
        ("0002_001_15_0303noon_0700_0.jpg", 1, 14, 700),
    ]
    assert summary(data.query) == [("0000_000_05_0303morning_0015_0.jpg", 0, 4, 15)]
    assert summary(data.gallery) == [
        ("0000_001_06_0303morning_0016_0.jpg", 0, 5, 16),
        ("0009_001_06_0303afternoon_0016_0_ex.jpg", 9, 5, 16),
    ]
    assert all(r.path.is_file() for r in [*data.train, *data.query, *data.gallery])


def test_msmt17_of_both_versions_is_the_first_and_needs_no_validation_images(tmp_path):
    for version, folders in (("MSMT17_V2", ("mask_train_v2", "mask_test_v2")), ("MSMT17_V1", ("train", "test"))):
        make_msmt(tmp_path / "msmt17" / version, *folders)
        (tmp_path / "msmt17" / version / "list_val.txt").write_text("\n")
        data = load_dataset("msmt17", tmp_path)
        assert {r.path.parents[2].name for r in (*data.train, *data.query)} == {version} and len(data.train) == 2


def test_several_datasets_side_by_side(tmp_path):
    make_market(tmp_path / "market1501")
    make_market(tmp_path / "dukemtmc-reid" / "DukeMTMC-reID", DUKE)
    make_msmt(tmp_path / "msmt17" / "MSMT17_V1", "train", "test")
    assert [len(load_dataset(n, tmp_path).train) for n in ("market1501", "dukemtmc", "msmt17")] == [3, 2, 3]


def test_csv(tmp_path):
    (tmp_path / "train.csv").write_text(
        "\ufeffPath, camera, pid, note\na/1.jpg,3,40,x\na/2.jpg,0,-1,\nb.jpg,1,,y\nc.jpg,2,7,\n", "utf-8"
    )
    (tmp_path / "query.csv").write_text("pid,path,camera,frame\n5,q.jpg,2,100\n-1,junk.jpg,2,100\n")
    (tmp_path / "gallery.csv").write_text(f"pid,path,camera,frame\n5,{tmp_path / 'g.jpg'},1,\n")
    data = load_dataset("csv", tmp_path)
    assert summary(data.train) == [("1.jpg", 1, 3, -1), ("2.jpg", -1, 0, -1), ("b.jpg", -1, 1, -1), ("c.jpg", 0, 2, -1)]
    assert data.train[0].path == tmp_path / "a" / "1.jpg"
    assert summary(data.query) == [("q.jpg", 5, 2, 100)]
    assert summary(data.gallery) == [("g.jpg", 5, 1, -1)] and data.gallery[0].path == tmp_path / "g.jpg"
    assert "2 without identity" in data.table()


def test_csv_without_cameras_ignores_the_query_s_own_file_alone_when_scored(tmp_path):
    (tmp_path / "train.csv").write_text("path\n1.jpg\n2.jpg\n")
    data = load_dataset("csv", tmp_path)
    assert [(r.pid, r.camera) for r in data.train] == [(-1, 0), (-1, 0)] and data.query == data.gallery == []
    (tmp_path / "query.csv").write_text("path,pid\n1.jpg,1\n3.jpg,2\n")
    (tmp_path / "gallery.csv").write_text(f"path,pid\n2.jpg,1\n{tmp_path / '1.jpg'},1\n./3.jpg,2\n")
    data = load_dataset("csv", tmp_path)
    one, three = data.query
    two, same_one, same_three = data.gallery
    assert one.camera == same_one.camera and three.camera == same_three.camera
    assert len({one.camera, two.camera, three.camera}) == 3 and max(r.camera for r in (*data.query, *data.gallery)) < 0
    rows = [line.split()[:4] for line in data.table().splitlines()[2:]]
    assert rows == [["train", "2", "0", "-"], ["query", "2", "2", "-"], ["gallery", "3", "2", "-"]]
    assert data.caption(one) == "pid 1" and "cam" not in data.caption(data.train[0])
    assert answerable(data.query, data.gallery) == [0]
    note = scoring_note(data.query, data.gallery)
    assert note == "1 of 2 queries are not scored: 1 have their person there only as the very same image"
    found = torch.tensor([[-1.0, 0], [1, 0], [0, 1]])
    scores = evaluate_features(torch.eye(2), found, data.query, data.gallery)
    assert scores.num_valid == 1 and scores.cmc[0] == 0  # the file itself, with the very same features, is no match


def test_csv_of_cameras_in_training_alone(tmp_path):
    (tmp_path / "train.csv").write_text("path,camera\n1.jpg,gate\n2.jpg,door\n")
    for name in ("query", "gallery"):
        (tmp_path / f"{name}.csv").write_text("path,pid\n1.jpg,1\n2.jpg,1\n")
    data = load_dataset("csv", tmp_path)
    assert [r.camera for r in data.train] == [1, 0] and data.caption(data.query[0]) == "pid 1"
    assert answerable(data.query, data.gallery) == [0, 1]
    assert [part.cameras for part in data.statistics().values()] == [2, 0, 0]


def test_csv_of_cameras_in_tests_alone(tmp_path):
    (tmp_path / "train.csv").write_text("path\n1.jpg\n2.jpg\n")
    for name in ("query", "gallery"):
        (tmp_path / f"{name}.csv").write_text("path,pid,camera\n1.jpg,1,gate\n2.jpg,1,door\n")
    data = load_dataset("csv", tmp_path)
    assert [part.cameras for part in data.statistics().values()] == [0, 2, 2] and data.caption(data.query[0]) == "pid 1\ncam gate"


def check(error: type[Exception], name: str, root: pathlib.Path, *words: object) -> None:
    with pytest.raises(error) as caught:
        load_dataset(name, root)
    missing = [w for w in words if str(w) not in str(caught.value)]
    assert not missing, f"{missing} not in: {caught.value}"


def test_missing_folders_say_what_was_expected_and_found(tmp_path):
    (tmp_path / "reid").mkdir()
    check(FileNotFoundError, "market1501", tmp_path / "ried", "does not exist", "did you mean reid")
    check(FileNotFoundError, "market1501", tmp_path / "reid", "bounding_box_train", "market1501", "holds nothing")
    make_market(tmp_path / "reid" / "Market1501")
    check(FileNotFoundError, "market1501", tmp_path / "reid", "Market1501 (expected name: market1501)")
    make_market(tmp_path / "half" / "market1501", {"query": MARKET["query"]})
    check(
        FileNotFoundError,
        "market1501",
        tmp_path / "half",
        f"Nearest is {tmp_path / 'half' / 'market1501'}",
        "lacks bounding_box_train, bounding_box_test",
        "holds query/",
    )
    (tmp_path / "deep" / "market1501" / "images").mkdir(parents=True)
    check(FileNotFoundError, "market1501", tmp_path / "deep", f"{tmp_path / 'deep' / 'market1501'} holds images/")
    (tmp_path / "file").write_text("")
    check(FileNotFoundError, "csv", tmp_path / "file", "file is a file: give its folder")
    make_msmt(tmp_path / "msmt17" / "MSMT17_V2", "mask_train_v2", "mask_test_v2")
    (tmp_path / "msmt17" / "MSMT17_V2" / "list_val.txt").unlink()
    check(FileNotFoundError, "msmt17", tmp_path, "MSMT17_V2, which lacks list_val.txt", "list_gallery.txt")


def test_photos_in_no_layout_are_offered_the_data_set_that_has_none(tmp_path):
    offer = f"For the photos in {tmp_path / 'mine'} alone, of people whom nobody has named: --dataset folder"
    jpeg(tmp_path / "mine" / "day1" / "a.JPG")
    for name in ("market1501", "dukemtmc", "msmt17"):
        check(FileNotFoundError, name, tmp_path / "mine", offer)
    make_market(tmp_path / "named" / "Market1501")  # needs another name, no other kind of data set
    (tmp_path / "text").mkdir()
    for other in ("named", "text"):
        with pytest.raises(FileNotFoundError) as caught:
            load_dataset("market1501", tmp_path / other)
        assert "--dataset folder" not in str(caught.value)
    check(FileNotFoundError, "folder", tmp_path / "data", f"--root (the folder of photos): {tmp_path / 'data'} does not exist")
    for name in ("market1501", "csv"):
        check(FileNotFoundError, name, tmp_path / "data", f"{name}: dataset root (--root): ")


def test_wrong_names_and_lines_are_named(tmp_path):
    make_market(tmp_path / "m")
    jpeg(tmp_path / "m" / "query" / "holiday.jpg")
    check(ValueError, "market1501", tmp_path / "m", "holiday.jpg", "0002_c1s1_000451_03.jpg")
    jpeg(tmp_path / "m" / "query" / "0001_c0s1_001051_00.jpg")
    (tmp_path / "m" / "query" / "holiday.jpg").unlink()
    check(ValueError, "market1501", tmp_path / "m", "0001_c0s1_001051_00.jpg", "from 1")
    make_market(tmp_path / "junk", {**MARKET, "query": ["-1_c1s1_000401_03.jpg"]})
    check(ValueError, "market1501", tmp_path / "junk", tmp_path / "junk" / "query", "no images")
    make_msmt(tmp_path / "s", "train", "test")
    (tmp_path / "s" / "list_query.txt").write_text("0000/0000_000_05_x_0015_0.jpg 0\n0000/0000.jpg 0\n")
    check(ValueError, "msmt17", tmp_path / "s", "list_query.txt", "line 2", "0000/0000.jpg 0")
    (tmp_path / "s" / "list_query.txt").write_text("0000/0000_000_00_x_0015_0.jpg 0\n")  # cameras begin at 1
    check(ValueError, "msmt17", tmp_path / "s", "list_query.txt", "line 1", "0000_000_00_x_0015_0.jpg")
    (tmp_path / "s" / "list_query.txt").write_text("\n")
    check(ValueError, "msmt17", tmp_path / "s", "list_query.txt", "no images")
    with pytest.raises(ValueError, match="market1501, dukemtmc, msmt17, csv, folder, got 'market'"):
        load_dataset("market", tmp_path)


@pytest.mark.parametrize(
    ("file", "text", "words"),
    [
        ("train.csv", "file,pid\na.jpg,1\n", ["train.csv", "lacks the column path", "file, pid"]),
        ("train.csv", "path;pid\na.jpg;1\n", ["lacks the column path", "path;pid; columns are parted by commas, not semicolons"]),
        ("query.csv", "path\tpid\na.jpg\t1\n", ["lacks the column path and pid", "parted by commas, not tabs"]),
        ("train.csv", "", ["train.csv", "lacks the column path", "empty"]),
        ("train.csv", "path,pid\n", ["train.csv", "no images"]),
        ("train.csv", "path,pid\na.jpg,-2\n", ["train.csv", "line 2", "pid", "'-2'"]),
        ("train.csv", "path,frame\na.jpg,first\n", ["train.csv", "line 2", "frame", "'first'"]),
        ("gallery.csv", "path,pid\na.jpg,-1\n", ["gallery.csv", "no images"]),
        ("train.csv", "path,camera\na.jpg,1\nb.jpg,-1\n", ["train.csv", "line 3", "camera", "'-1'"]),
        ("train.csv", 'path,pid\n"a.jpg,1\nb.jpg,2\n', ["train.csv", "line 3", "is a quote left open?"]),
        ("train.csv", "path,pid\n,4\n", ["train.csv", "line 2", "path"]),
        ("train.csv", "path,pid\na,b.jpg,4\n", ["train.csv, line 2: expected at most 2 fields (path, pid), got 3", '"a,b.jpg"']),
        ("train.csv", "path,pid,Path\na.jpg,4,b.jpg\n", ["train.csv", "the column path twice"]),
        ("train.csv", 'path,pid\n"a.jpg,4\n' + "b.jpg,4\n" * 20_000, ["train.csv", "is a quote left open?"]),
        ("query.csv", "path\na.jpg\n", ["query.csv", "lacks the column pid"]),
        ("query.csv", "path,pid\na.jpg,\n", ["query.csv", "line 2", "pid"]),
        ("query.csv", "path,pid,camera\na.jpg,1,0\n", ["query.csv", "gallery.csv", "camera", "both or neither"]),
    ],
)
def test_broken_csv(tmp_path, file, text, words):
    for name in ("train.csv", "query.csv", "gallery.csv"):
        (tmp_path / name).write_text(text if name == file else "path,pid\na.jpg,1\n")
    check(ValueError, "csv", tmp_path, *words)


def test_csv_of_one_file_under_two_cameras_is_refused(tmp_path):
    (tmp_path / "train.csv").write_text("path\na.jpg\n")
    (tmp_path / "query.csv").write_text("path,pid,camera\na.jpg,1,1\n")
    for camera in ("1", "01"):
        (tmp_path / "gallery.csv").write_text(f"path,pid,camera\nb.jpg,1,2\n./a.jpg,1,{camera}\n")
        assert [r.camera for r in load_dataset("csv", tmp_path).gallery] == [2, 1]
    (tmp_path / "gallery.csv").write_text("path,pid,camera\nb.jpg,1,2\n./a.jpg,1,2\n")
    words = ("gallery.csv, line 3: camera must be '1'", "query.csv, line 2 has it", "got '2'")
    check(ValueError, "csv", tmp_path, *words)


def test_what_is_a_whole_number_in_a_csv(tmp_path):
    """12_3 and 1_23 are two people, though int() makes 123 of both; tables with gaps have 7.0 for 7."""
    (tmp_path / "train.csv").write_text("path,pid,camera,frame,,\na.jpg,12_3,1_1,2.0,,\nb.jpg,1_23,11,,,\n")
    (tmp_path / "query.csv").write_text("path,pid,camera\nq.jpg,7.0,1_1\n")
    (tmp_path / "gallery.csv").write_text("path,pid,camera\ng.jpg,7,11\nj.jpg,-1.0,11\n")
    data = load_dataset("csv", tmp_path)
    assert [(r.pid, r.camera, r.frame) for r in data.train] == [(0, 1, 2), (1, 0, -1)]
    assert [(r.pid, r.camera) for r in data.query + data.gallery] == [(7, 1), (7, 0)]
    assert data.camera_names == ("11", "1_1")


def test_csv_takes_any_text_for_persons_and_cameras(tmp_path):
    (tmp_path / "train.csv").write_text("path,pid,camera\na.jpg,zoe,gate\nb.jpg,,door\nc.jpg,-1,gate\nd.jpg,7,door\n")
    (tmp_path / "query.csv").write_text("path,pid,camera\nq.jpg,bob,gate\n")
    (tmp_path / "gallery.csv").write_text("path,pid,camera\ng.jpg,bob,roof\nj.jpg,-1,roof\nh.jpg,anna,door\n")
    data = load_dataset("csv", tmp_path)
    assert summary(data.train) == [("a.jpg", 1, 1, -1), ("b.jpg", -1, 0, -1), ("c.jpg", -1, 1, -1), ("d.jpg", 0, 0, -1)]
    assert summary(data.query) == [("q.jpg", 1, 1, -1)]
    assert summary(data.gallery) == [("g.jpg", 1, 2, -1), ("h.jpg", 0, 0, -1)]
    assert data.caption(data.gallery[0]) == "pid bob\ncam roof" and "1 lines of person -1" in data.table()


def test_cameras_are_called_as_the_data_set_calls_them(tmp_path):
    for name in ("train", "query", "gallery"):
        (tmp_path / f"{name}.csv").write_text("path,pid,camera\na.jpg,5,0\n")
    data = load_dataset("csv", tmp_path)
    assert data.caption(data.query[0]) == "pid 5\ncam 0"
    for name in ("train", "query", "gallery"):
        (tmp_path / f"{name}.csv").write_text("path,pid\na.jpg,5\n")
    data = load_dataset("csv", tmp_path)
    assert data.caption(data.query[0]) == "pid 5"
    assert ReIDData("market1501", tmp_path, [], [], []).caption(Record(tmp_path, 3, 0)) == "pid 3\ncam 1"


def test_a_folder_of_photos(tmp_path):
    for name in ("b/2.png", "b/c/1.JPG", "a.jpg", "notes.txt", ".hidden/x.jpg", "b/.y.jpg", "mesh/folder/z.png", "b/mesh/m.jpg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("")
    data = load_dataset("folder", tmp_path)
    names = [record.path.relative_to(tmp_path).as_posix() for record in data.train]
    assert names == ["a.jpg", "b/2.png", "b/c/1.JPG", "b/mesh/m.jpg"]
    assert {(r.pid, r.camera) for r in data.train} == {(-1, 0)} and not data.query and not data.gallery
    (tmp_path / "empty").mkdir()
    check(FileNotFoundError, "folder", tmp_path / "empty", "no photos in", "holds nothing")
    check(FileNotFoundError, "folder", tmp_path / "emtpy", "did you mean empty?")


def test_a_folder_of_photos_with_links_and_a_closed_folder(tmp_path, monkeypatch):
    """Linked folders are looked into once, also where links go round; what may not be looked into is named."""
    photos, disk = tmp_path / "photos", tmp_path / "disk"
    for path in (photos / "z/1.jpg", photos / "closed/2.jpg", disk / "3.jpg"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("")
    for link, target in (("a", "z"), ("disk", "../disk"), ("round", "."), ("z/up", "../..")):
        (photos / link).symlink_to(target)
    scan = os.scandir

    def refuse(folder):
        if str(folder).endswith("closed"):
            raise PermissionError(errno.EACCES, "Permission denied", folder)
        return scan(folder)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.warns(UserWarning, match="passed over .*closed: Permission denied"):
        data = load_dataset("folder", photos)
    assert [record.path.relative_to(photos).as_posix() for record in data.train] == ["disk/3.jpg", "z/1.jpg"]


def test_missing_csv(tmp_path):
    (tmp_path / "training.csv").write_text("path\n")
    check(FileNotFoundError, "csv", tmp_path, tmp_path / "train.csv", "training.csv")
    (tmp_path / "train.csv").write_text("path\na.jpg\n")
    (tmp_path / "query.csv").write_text("path,pid\na.jpg,1\n")
    check(FileNotFoundError, "csv", tmp_path, "query.csv but not gallery.csv")


def test_relabel_keeps_order_and_unknown():
    records = [Record(pathlib.Path("a"), pid, 0) for pid in (30, -1, 4, 30, 1501)]
    assert [r.pid for r in relabel(records)] == [1, -1, 0, 1, 2]


def test_image_files_of_any_case(tmp_path):
    for name in ("b.JPG", "a.png", "c.jpeg", "d.txt", ".e.jpg"):
        (tmp_path / name).write_bytes(b"")
    assert [p.name for p in image_files(tmp_path)] == ["a.png", "b.JPG", "c.jpeg"]


def break_images(folder: pathlib.Path) -> dict[str, str]:
    """Break four of the gallery's and training images in four ways; file name -> word of the reason."""
    cut, empty, text, gone = (
        folder / "bounding_box_train" / MARKET["bounding_box_train"][0],
        folder / "bounding_box_train" / MARKET["bounding_box_train"][1],
        folder / "bounding_box_test" / MARKET["bounding_box_test"][1],
        folder / "bounding_box_test" / MARKET["bounding_box_test"][2],
    )
    jpeg(cut, size=(64, 128))
    cut.write_bytes(cut.read_bytes()[: -cut.stat().st_size // 3])
    empty.write_bytes(b"")
    text.write_text("no picture")
    return {cut.name: "truncated", empty.name: "empty", text.name: "identify", gone.name: "no such file"}


@pytest.mark.parametrize("workers", [0, 2])
def test_find_broken_names_each(tmp_path, workers):
    make_market(tmp_path)
    reasons = break_images(tmp_path)
    data = load_dataset("market1501", tmp_path)
    (tmp_path / "bounding_box_test" / MARKET["bounding_box_test"][2]).unlink()
    records = [*data.train, *data.query, *data.gallery, *data.query]
    steps: list[tuple[int, int]] = []
    broken = find_broken(records, workers=workers, progress=lambda done, total: steps.append((done, total)))
    assert {path.name for path, _ in broken} == set(reasons)
    for path, why in broken:
        assert reasons[path.name] in why
    assert steps == [(i, 7) for i in range(1, 8)]  # the repeated query once


def test_require_readable(tmp_path):
    make_market(tmp_path)
    data = load_dataset("market1501", tmp_path)
    assert require_readable(data) is data
    names = set(break_images(tmp_path)) - {MARKET["bounding_box_test"][2]}
    with pytest.raises(OSError, match="3 images cannot be read") as caught:
        require_readable(data)
    assert all(n in str(caught.value) for n in names) and "--skip-broken" in str(caught.value)
    with pytest.warns(UserWarning, match="3 images cannot be read"):
        kept = require_readable(data, skip_broken=True)
    assert [len(kept.train), len(kept.query), len(kept.gallery)] == [1, 1, 2]
    assert not names & {r.path.name for r in [*kept.train, *kept.query, *kept.gallery]}
    assert len(data.train) == 3  # the caller's own is left as it was
    data.query[0].path.write_bytes(b"")
    with pytest.warns(UserWarning, match="Going on without them"), pytest.raises(OSError, match="no image of query can be read"):
        require_readable(data, skip_broken=True)


def test_long_lists_of_broken_images_are_cut(tmp_path):
    records = {"bounding_box_train": [f"{i:04d}_c1s1_000001_00.jpg" for i in range(1, 16)]}
    make_market(tmp_path, {**MARKET, **records})
    for name in records["bounding_box_train"]:
        (tmp_path / "bounding_box_train" / name).write_bytes(b"")
    with pytest.raises(OSError, match="15 images cannot be read") as caught:
        require_readable(load_dataset("market1501", tmp_path))
    assert "0010_c1" in str(caught.value) and "0011_c1" not in str(caught.value) and "and 5 more" in str(caught.value)


def test_pictures_of_32_bits_that_would_be_refused_are_found(tmp_path):
    Image.new("F", (4, 4)).save(tmp_path / "depth.tif")
    ((_, why),) = find_broken([Record(tmp_path / "depth.tif", 0, 0)])
    assert "an image of mode F" in why
