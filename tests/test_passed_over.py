"""Lists of strangers' data sets: nothing is left out without a word, names and text files mean what they say."""

from __future__ import annotations

import codecs
import pathlib

import numpy as np
import pytest
from PIL import Image

from gcl_fast.data.datasets.csv_data import read_csv_dataset
from gcl_fast.data.datasets.load import load_dataset
from gcl_fast.data.datasets.market import parse
from gcl_fast.data.datasets.msmt17 import read_list
from gcl_fast.data.datasets.readable import find_broken
from gcl_fast.errors import InputError
from gcl_fast.files import read_text
from gcl_fast.images import IMAGE_SUFFIXES

SPLITS = ("bounding_box_train", "query", "bounding_box_test")


@pytest.fixture
def market(tmp_path):
    for person, split in enumerate(SPLITS):
        (tmp_path / split).mkdir()
        Image.fromarray(np.full((16, 8, 3), 90, np.uint8)).save(tmp_path / split / f"000{person}_c1s1_000001_00.jpg")
    return tmp_path


def test_every_kind_that_pillow_reads_is_read(market):
    folder = market / SPLITS[0]
    for number, suffix in enumerate(IMAGE_SUFFIXES):
        image = Image.fromarray(np.full((16, 8, 3), 90, np.uint8))
        try:
            image.convert("1" if suffix == ".pbm" else "L" if suffix == ".pgm" else "RGB").save(
                folder / f"{number:04}_c1{suffix}"
            )
        except OSError:  # this Pillow was built without that codec
            assert suffix in (".jp2", ".avif")
    data = load_dataset("market1501", market)
    assert {record.path.suffix for record in data.train} >= set(IMAGE_SUFFIXES) - {".jp2", ".avif"}
    assert not find_broken(data.train) and data.passed_over["train"] == ()


def test_what_is_passed_over_is_counted_by_kind(market):
    folder = market / SPLITS[0]
    for name in ("a.heic", "b.heic", "notes.txt", "README", "Thumbs.db", ".hidden.jpg"):
        (folder / name).write_bytes(b"x")
    for name in ("0005/0005_c1.jpg", "0006/0006_c1.jpg", "0006/0006_c2.jpg", "0006/notes.txt"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(b"x")
    (folder / "-1_c1s1_000002_00.jpg").write_bytes(b"x")
    text = load_dataset("market1501", market).table()
    assert "passed over in train: 1 image of person -1 (junk); 4 files of kinds that are not read" in text
    assert "(2 .heic, 1 .txt, 1 without an extension)" in text and "3 images in 2 folders inside" in text
    assert "in query" not in text and "in gallery" not in text
    for image in folder.glob("000*.jpg"):
        image.unlink()
    with pytest.raises(InputError, match="holds no images of people.*passed over: .*2 .heic"):
        load_dataset("market1501", market)


@pytest.mark.parametrize(
    ("name", "person", "camera"),
    [
        ("2021-03-0001_c1s1_000001_00.jpg", 1, 0),
        ("cam-7_c2.jpg", 7, 1),
        ("-1_c3s1_000001_00.jpg", -1, 2),
        ("-0001_c3.jpg", -1, 2),
        ("0002_c1s1_000451_03.jpg", 2, 0),
    ],
)
def test_a_sign_counts_where_the_name_begins_with_it(name, person, camera):
    record = parse("market1501", pathlib.Path(name))
    assert (record.pid, record.camera) == (person, camera)


def test_numbers_beyond_64_bits_are_known_at_once(tmp_path):
    with pytest.raises(InputError, match=r"9223372036854775808_c1\.jpg: person and camera must be at most 9223372036854775807"):
        parse("market1501", pathlib.Path("9223372036854775808_c1.jpg"))
    for name in (f"1_c{2**63}.jpg", f"-{2**63}_c1.jpg"):
        with pytest.raises(InputError, match="person and camera must be at most 9223372036854775807"):
            parse("market1501", pathlib.Path(name))
    assert parse("market1501", pathlib.Path("1_c1s1_99999999999999999999_00.jpg")).frame == -1
    (tmp_path / "train.csv").write_text("path,pid\na.jpg,9223372036854775808\n")
    with pytest.raises(InputError, match=r"train\.csv, line 2: pid must be an integer from -1 to 9223372036854775807"):
        read_csv_dataset(tmp_path)
    (tmp_path / "list_train.txt").write_text("0001/0001_000_01_a.jpg 9223372036854775808\n")
    with pytest.raises(InputError, match="line 1: expected"):
        read_list(tmp_path / "list_train.txt", tmp_path)
    (tmp_path / "list_train.txt").write_text(f"1/0001_000_01_a_{2**63}.jpg 1\n1/0001_000_01_a_²_0.jpg 1\n", encoding="utf-8")
    assert [(r.frame, r.recording) for r in read_list(tmp_path / "list_train.txt", tmp_path)] == [(-1, ""), (-1, "")]


ENCODINGS = ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "latin-1"]


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_lists_in_any_encoding(tmp_path, encoding):
    (tmp_path / "train.csv").write_bytes("path,pid,camera\ncafé.jpg,3,0\n".encode(encoding))
    assert [(r.path.name, r.pid) for r in read_csv_dataset(tmp_path).train] == [("café.jpg", 0)]
    (tmp_path / "list_train.txt").write_bytes("0001/0001_000_01_0303noon_0606_é.jpg 7\n".encode(encoding))
    (record,) = read_list(tmp_path / "list_train.txt", tmp_path)
    assert record.path == tmp_path / "0001/0001_000_01_0303noon_0606_é.jpg" and (record.pid, record.camera) == (7, 0)


def test_a_list_that_is_no_text_is_named(tmp_path):
    path = tmp_path / "train.csv"
    for content in (b"PK\x03\x04\x14\0\0\0", codecs.BOM_UTF16_LE + b"a", b"path\n" + bytes(9)):
        path.write_bytes(content)
        with pytest.raises(InputError, match=r"train\.csv is (not a text file|damaged)"):
            read_text(path)


def test_lines_of_junk_in_a_csv_are_counted(tmp_path):
    (tmp_path / "train.csv").write_text("path\na.jpg\nb.jpg\n")
    (tmp_path / "query.csv").write_text("path,pid\na.jpg,1\n")
    (tmp_path / "gallery.csv").write_text("path,pid\na.jpg,1\nb.jpg,-1\n")
    assert "passed over in gallery: 1 lines of person -1 (junk)" in read_csv_dataset(tmp_path).table()


def test_a_folder_of_photos_counts_what_it_passes_over(tmp_path):
    """Other kinds of files; pictures that a run wrote are no photos."""
    for name in ("day/a.heic", "day/b.HEIC", "notes.txt", "mesh/render/x.jpg", "runs/mine/pictures/stage2.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    for name in ("config.yaml", "history.jsonl"):
        (tmp_path / "runs/mine" / name).write_text("")
    with pytest.raises(FileNotFoundError, match=r"no photos in .*: 3 files of kinds that are not read"):
        load_dataset("folder", tmp_path)
    (tmp_path / "day/c.jpg").write_bytes(b"x")
    data = load_dataset("folder", tmp_path)
    assert [record.path.name for record in data.train] == ["c.jpg"]
    assert "passed over in train: 3 files of kinds that are not read (2 .heic, 1 .txt)" in data.table()
