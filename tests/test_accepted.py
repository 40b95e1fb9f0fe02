"""docs/accepted.md says what the code does: every list and number in it is compared with the code's own."""

from __future__ import annotations

import re
from pathlib import Path

from gcl_fast import archives, images
from gcl_fast.constants import DATASETS
from gcl_fast.data.datasets.csv_data import COLUMNS
from gcl_fast.data.datasets.market import NEEDS, parse
from gcl_fast.data.datasets.msmt17 import EXAMPLE, LISTS
from gcl_fast.meshes import plain_pickle
from gcl_fast.meshes.importing.estimate_files import SUFFIXES
from gcl_fast.meshes.importing.estimates import FORMATS, NAMES, _format
from gcl_fast.meshes.sources import EXTENSIONS, FOLDERS
from gcl_fast.models.names import PREFIXES, WRAPPERS

TEXT = (Path(__file__).resolve().parent.parent / "docs/accepted.md").read_text()


def section(title: str) -> str:
    return TEXT.partition(f"\n## {title}")[2].partition("\n## ")[0]


def rows(title: str) -> list[list[str]]:
    """Cells of the table of a section, without its head."""
    lines = [line for line in section(title).splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def suffixes(text: str) -> set[str]:
    return set(re.findall(r"(?<![\w>*])\.[a-z0-9]+\b", text))


def test_images() -> None:
    table = rows("Images")
    assert tuple(row[0] for row in table) == images.RASTER_FORMATS
    assert set().union(*(suffixes(row[1]) for row in table)) == set(images.IMAGE_SUFFIXES)
    assert f"At most {images.MAX_PIXELS} pixels" in section("Images")


def test_data_sets() -> None:
    table = {row[0]: row[1:] for row in rows("Data sets")}
    assert tuple(table) == DATASETS
    assert table["market1501"][0] == table["dukemtmc"][0] == ", ".join(NEEDS)
    assert table["msmt17"][0] == ", ".join(LISTS) and EXAMPLE in table["msmt17"][1]
    assert table["csv"][1] == f"columns {COLUMNS}"
    for name in ("market1501", "dukemtmc"):
        parse(name, Path(table[name][1].strip("`")))
    assert parse("market1501", Path("-1_c1.jpg")).pid == -1 and parse("market1501", Path("2021-03-0001_c1.jpg")).pid == 1


def test_meshes() -> None:
    text = section("Meshes of a data set")
    assert all(folder in text for folder in FOLDERS.values()) and all(end in text for end in EXTENSIONS)


def test_estimators() -> None:
    text, table = section("Estimators"), rows("Estimators")
    assert tuple(row[0] for row in table) == FORMATS
    assert suffixes(text.partition("Files:")[2].partition(". Nothing")[0]) == set(SUFFIXES)
    assert ", ".join(NAMES[:-1]) + f" or {NAMES[-1]} in the file" in " ".join(text.split())
    told = {
        "hmr": [{"theta"}, {"verts", "cams"}],
        "4d-humans": [{"pred_vertices", "pred_cam"}, {"pred_smpl_params"}, {"pred_vertices", "pred_cam_t_full"}],
        "cliff": [{"pose", "shape", "global_t", "focal_l"}],
        "sam-3d-body": [{"pred_vertices", "pred_cam_t", "focal_length"}],
        "vertices": [{"vertices"}],
    }
    for name, words, *_ in table:
        assert all(_format(dict.fromkeys(keys)) == name for keys in told[name])
        assert all(key in words for keys in told[name] for key in keys)


def test_weights() -> None:
    text = " ".join(section("Weights").split())
    assert ", ".join(WRAPPERS[:-1]) + f" or {WRAPPERS[-1]}" in text
    assert ", ".join(f"`{p}`" for p in PREFIXES[:-1]) + f" and `{PREFIXES[-1]}`" in text


def test_claims() -> None:
    text = " ".join(section("Claims").split())
    assert f"{archives.RATIO} times their size" in text and f"{archives.FREELY >> 20} MiB" in text
    assert f"{plain_pickle.MOST_ITEMS // 10**6} million times" in text
