"""Pictures: number ranges, sizes, frames, and that the pixels shown are the pixels given."""

from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gcl_fast.evaluation import top_matches
from gcl_fast.images import normalise
from gcl_fast.visuals import (
    compose,
    image_rows,
    mesh_to_uint8,
    novel_view_grid,
    photo_to_uint8,
    photo_to_unit,
    ranked_lists,
    ranked_lists_from_features,
    save_png,
    text,
    unit_to_uint8,
)
from gcl_fast.visuals.canvas import BLUE, GREEN, MARGIN, PAPER, RED, enlargement

PIL_Image = pytest.importorskip("PIL.Image")


def flat(colour: tuple[int, int, int], height: int = 200, width: int = 100) -> np.ndarray:
    return np.full((height, width, 3), colour, dtype=np.uint8)


def share(picture: np.ndarray, colour: tuple[int, int, int]) -> int:
    """Number of pixels of exactly this colour."""
    return int((picture == np.array(colour, dtype=np.uint8)).all(axis=-1).sum())


def bands(mask: np.ndarray) -> list[tuple[int, int]]:
    """Runs of true entries: [start, end)."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], mask.astype(int), [0]])))
    return list(zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True))


def test_photo_round_trip_is_exact(device):
    pixels = torch.arange(256, dtype=torch.uint8).view(1, 16, 16, 1).expand(1, 16, 16, 3).contiguous()
    assert np.array_equal(photo_to_uint8(normalise(pixels).to(device)), pixels.numpy())


@settings(deadline=None, max_examples=20, derandomize=True)
@given(st.lists(st.floats(-1, 1, width=32), min_size=4, max_size=4))
def test_mesh_bytes(values):
    mesh = torch.tensor(values).view(1, 1, 2, 2)
    expected = np.rint((np.array(values, dtype=np.float32) * np.float32(0.5) + np.float32(0.5)) * np.float32(255))
    made = mesh_to_uint8(mesh)
    assert made.shape == (1, 2, 2, 3)
    assert np.array_equal(made[..., 0].ravel(), expected.astype(np.uint8))
    assert np.array_equal(made[..., 0], made[..., 1]) and np.array_equal(made[..., 0], made[..., 2])


def test_out_of_range_and_nan_are_clamped():
    image = torch.tensor([-9.0, 9.0, float("nan"), float("inf")]).view(1, 1, 2, 2)
    assert mesh_to_uint8(image)[0, :, :, 0].tolist() == [[0, 255], [0, 255]]
    unit = photo_to_unit(torch.full((1, 3, 2, 2), 50.0, dtype=torch.float16))
    assert unit.dtype == torch.float32 and float(unit.min()) == 1.0


def test_non_contiguous_and_gradient_inputs():
    image = torch.rand(2, 8, 6, 3, requires_grad=True).permute(0, 3, 1, 2)
    assert unit_to_uint8(image).shape == (2, 8, 6, 3)


@pytest.mark.parametrize("function", [photo_to_uint8, mesh_to_uint8])
def test_wrong_channels_are_named(function):
    with pytest.raises(ValueError, match=r"expected shape .* got \[2, 4, 8, 8\]"):
        function(torch.rand(2, 4, 8, 8))
    with pytest.raises(TypeError, match="floating-point"):
        function(torch.zeros(2, 3, 8, 8, dtype=torch.uint8))


def test_compose_places_pixels_exactly():
    cells = [[flat((10, 20, 30)), flat((40, 50, 60))], [None, flat((70, 80, 90))]]
    sheet = compose(cells)
    assert sheet.dtype == np.uint8 and sheet.shape == (2 * MARGIN + 408, 2 * MARGIN + 208, 3)
    for colour in ((10, 20, 30), (40, 50, 60), (70, 80, 90)):
        assert share(sheet, colour) == 200 * 100
    assert tuple(sheet[0, 0]) == PAPER and tuple(sheet[MARGIN, MARGIN]) == (10, 20, 30)


@pytest.mark.parametrize(("height", "scale"), [(32, 6), (64, 3), (128, 2), (192, 1), (256, 1)])
def test_small_pictures_are_enlarged(height, scale):
    assert enlargement(height) == scale
    sheet = compose([[flat((1, 2, 3), height, height // 2)]])
    assert share(sheet, (1, 2, 3)) == height * scale * (height // 2) * scale


def test_compose_errors():
    with pytest.raises(ValueError, match="one size"):
        compose([[flat((0, 0, 0)), flat((0, 0, 0), 10, 10)]])
    with pytest.raises(ValueError, match="at least one picture"):
        compose([[None]])
    with pytest.raises(TypeError, match="uint8"):
        compose([[np.zeros((4, 4, 3))]])
    with pytest.raises(ValueError, match="row_titles: expected 1"):
        compose([[flat((0, 0, 0))]], row_titles=["a", "b"])


def test_labels_do_not_cover_pictures():
    cells = [[flat((10, 20, 30)), flat((10, 20, 30))]]
    sheet = compose(
        cells,
        row_titles=["a very long name of a row\nin two lines"],
        column_titles=["a very long column title", "2"],
        captions=[["some caption\nof two lines", "another"]],
        title="title " * 30,
    )
    assert share(sheet, (10, 20, 30)) == 2 * 200 * 100
    for edge in (sheet[:4], sheet[-4:], sheet[:, :4], sheet[:, -4:]):
        assert (edge == 255).all()  # nothing is cut off


def drawn(text: str) -> bytes:
    return compose([[flat((1, 2, 3))]], captions=[[text]]).tobytes()


def test_letters_with_marks_are_no_boxes(monkeypatch):
    built_in = text.font()._font
    assert text.has_letters(built_in, "Kathe…\n") and not text.has_letters(built_in, "ä")
    for font in text.system_fonts(text.SMALL_TEXT_SIZE):
        assert not text.has_letters(font, text.NO_LETTER)
    assert drawn("Käthe") == drawn("Ka\u0308the")
    monkeypatch.setattr(text, "system_fonts", lambda size: (built_in,))
    assert drawn("Käthe") == drawn("Kathe") and drawn("名\udcff") == drawn("??")


def test_a_font_of_the_system_draws_marks(monkeypatch):
    fonts = [font for font in text.system_fonts(text.SMALL_TEXT_SIZE) if text.has_letters(font, "ä")]
    monkeypatch.setattr(text, "system_fonts", lambda size: tuple(fonts))
    assert (drawn("Käthe") == drawn("Kathe")) == (not fonts)


def test_image_rows_order_and_limit(device):
    photo = normalise(torch.full((5, 200, 100, 3), 90, dtype=torch.uint8)).to(device)
    mesh = torch.full((5, 1, 200, 100), -1.0, device=device)
    sheet = image_rows({"rgb": photo, "mesh": mesh}, max_images=3)
    assert share(sheet, (90, 90, 90)) >= 3 * 200 * 100
    column = sheet[:, -MARGIN - 50]  # through the last column of pictures
    assert bands((column == 90).all(axis=1)) == [(MARGIN, MARGIN + 200)]
    assert bands((column == 0).all(axis=1)) == [(MARGIN + 208, MARGIN + 408)]


def test_image_rows_errors():
    with pytest.raises(ValueError, match="rows: expected at least one"):
        image_rows({})
    with pytest.raises(ValueError, match=r"rows\['x'\]: expected shape"):
        image_rows({"x": torch.rand(3, 8, 8)})
    with pytest.raises(ValueError, match="one size"):
        image_rows({"x": torch.rand(1, 3, 8, 8), "y": torch.rand(1, 1, 4, 4)})
    with pytest.raises(TypeError, match="expected a tensor"):
        image_rows({"x": np.zeros((1, 3, 8, 8))})


def test_novel_view_grid_layout():
    def tone(value: int, *shape: int) -> torch.Tensor:
        return normalise(torch.full((*shape, 200, 100, 3), value, dtype=torch.uint8))

    angles = (45, 90, 315)
    meshes = torch.full((2, 3, 1, 200, 100), -1.0)
    sheet = novel_view_grid(tone(10, 2), tone(60, 2, 3), angles, tone(110, 2, 3), meshes, row_titles=["a", "b"])
    area = 200 * 100
    assert share(sheet, (10, 10, 10)) // area == 2
    assert share(sheet, (60, 60, 60)) // area == 6
    assert share(sheet, (110, 110, 110)) // area == 6
    assert share(sheet, (0, 0, 0)) // area == 6
    column = sheet[:, -MARGIN - 50, 0]
    starts = [bands(column == value) for value in (0, 60, 110)]
    order = sorted((s, value) for value, runs in zip((0, 60, 110), starts, strict=True) for s, e in runs if e - s == 200)
    assert [value for _, value in order] == [0, 60, 110, 0, 60, 110]  # mesh, generated, truth of each photo
    plain = novel_view_grid(tone(10, 2), tone(60, 2, 3), angles)
    assert plain.shape[0] < sheet.shape[0] and share(plain, (10, 10, 10)) // area == 2


def test_novel_view_grid_errors():
    source, views = torch.rand(2, 3, 8, 4), torch.rand(2, 3, 3, 8, 4)
    with pytest.raises(ValueError, match=r"generated: expected shape \[2, 2, 3, 8, 4\], got \[2, 3, 3, 8, 4\]"):
        novel_view_grid(source, views, (45, 90))
    with pytest.raises(ValueError, match="meshes: expected shape"):
        novel_view_grid(source, views, (45, 90, 135), meshes=views)
    with pytest.raises(ValueError, match="source"):
        novel_view_grid(source[0], views, (45, 90, 135))
    with pytest.raises(ValueError, match="row_titles: expected 2"):
        novel_view_grid(source, views, (45, 90, 135), row_titles=["a"])


def test_ranked_lists_frames():
    dark = flat((5, 5, 5))
    correct = [[True, False, True], [False, True]]
    sheet = ranked_lists(
        [dark, dark],
        [[dark] * 3, [dark] * 2],
        correct,
        [[0.9, 0.8, 0.7], [0.5, 0.25]],
        query_labels=["pid 1\ncam 1", "pid 2\ncam 2"],
        match_labels=[["pid 1"] * 3, ["pid 2"] * 2],
    )
    frame = 208 * 108 - 200 * 100  # pixels of a frame 4 wide
    assert share(sheet, GREEN) == 3 * frame and share(sheet, RED) == 3 * frame - frame and share(sheet, BLUE) == 2 * frame
    rows = bands((sheet == np.array(BLUE, dtype=np.uint8)).all(axis=-1).any(axis=1))
    assert len(rows) == 2 and all(end - start == 208 for start, end in rows)
    for (start, _), flags in zip(rows, correct, strict=True):
        line = sheet[start]  # the upper edge of the frames, left to right
        colours = [tuple(line[s].tolist()) for s, e in bands((line != 255).any(axis=-1))]
        assert colours == [BLUE, *(GREEN if flag else RED for flag in flags)]


def test_ranked_lists_errors():
    dark = flat((5, 5, 5))
    with pytest.raises(ValueError, match="at least one query"):
        ranked_lists([], [], [])
    with pytest.raises(ValueError, match=r"correct\[0\]: expected 2 entries, got 1"):
        ranked_lists([dark], [[dark, dark]], [[True]])
    with pytest.raises(ValueError, match="similarities: expected one list for each of 1"):
        ranked_lists([dark], [[dark]], [[True]], [])


@pytest.fixture
def gallery(tmp_path):
    """Seven pictures, each of its own grey; (pid, camera) chosen so that every rule of the evaluation matters."""
    people = [(1, 0), (1, 0), (1, 1), (2, 1), (-1, 2), (0, 2), (3, 0)]
    records = []
    for i, (pid, camera) in enumerate(people):
        path = tmp_path / f"{i}.png"
        PIL_Image.fromarray(flat((20 + i, 20 + i, 20 + i), 200, 100)).save(path)
        records.append(SimpleNamespace(path=path, pid=pid, camera=camera))
    return records


def test_ranked_lists_follow_the_evaluation_rules(gallery):
    query, rest = [gallery[0], gallery[6]], gallery[1:]  # the second query's person has no other camera
    features = torch.nn.functional.normalize(torch.tensor([[1.0, 0.0], [0.0, 1.0]]), dim=1)
    angle = torch.tensor([0.0, 0.5, 0.2, 0.1, 0.4, 1.5])
    sheet = ranked_lists_from_features(
        features, torch.stack([angle.cos(), angle.sin()], dim=1), query, rest, top=10, image_size=(200, 100)
    )
    line = sheet[MARGIN + 150]
    seen = [value for value in range(20, 27) if share(line[None], (value,) * 3) == 100]
    assert seen == [20, 22, 23, 25, 26]  # without the same person's same camera (21) and the junk (24)
    position = {value: int(np.flatnonzero((line == value).all(axis=1))[0]) for value in seen}
    assert sorted(seen, key=position.get) == [20, 23, 25, 22, 26]  # query, then by falling similarity
    frame = 208 * 108 - 200 * 100
    assert (share(sheet, BLUE), share(sheet, GREEN), share(sheet, RED)) == (frame, frame, 3 * frame)


def test_top_matches_give_the_cosine_of_each_match():
    angle = torch.tensor([0.5, 0.1, 0.3])
    gallery = 3 * torch.stack([angle.cos(), angle.sin()], dim=1)
    ids = [torch.tensor(values) for values in ([7], [7, 8, -1], [0], [1, 1, 1])]
    matches = top_matches(torch.tensor([[2.0, 0.0]]), gallery, *ids, top=3)
    assert matches.index.tolist() == [[1, 0, -1]] and matches.correct.tolist() == [[False, True, False]]
    expected = torch.tensor([[0.1, 0.5]]).cos()
    torch.testing.assert_close(matches.similarity[:, :2], expected)
    assert matches.similarity[0, 2] == -torch.inf


def test_ranked_lists_from_features_errors(gallery):
    features = torch.eye(6)
    with pytest.raises(ValueError, match=r"gallery_features: expected shape \[6, D\]"):
        ranked_lists_from_features(features[:1], features[:5], gallery[:1], gallery[1:])
    with pytest.raises(ValueError, match="another camera"):
        ranked_lists_from_features(features[:1], features, gallery[6:], gallery[:6])
    lost = SimpleNamespace(path=gallery[0].path.with_name("lost.png"), pid=1, camera=3)
    with pytest.raises(FileNotFoundError, match="lost.png"):
        ranked_lists_from_features(features[:1], features, [lost], gallery[:6], image_size=(8, 4))


def test_save_png(tmp_path):
    picture = np.random.Generator(np.random.Philox(0)).integers(0, 256, (9, 7, 3)).astype(np.uint8)
    path = save_png(tmp_path / "deep" / "a.png", picture, caption="Die Straße")
    save_png(tmp_path / "deep" / "b.png", picture, caption="b")
    assert np.array_equal(np.array(PIL_Image.open(path)), picture)
    assert json.loads((path.parent / "captions.json").read_text(encoding="utf-8")) == {"a.png": "Die Straße", "b.png": "b"}
    assert sorted(p.name for p in path.parent.iterdir()) == ["a.png", "b.png", "captions.json"]  # no temporary file
    with pytest.raises(TypeError, match="uint8"):
        save_png(tmp_path / "c.png", picture.astype(float))
    assert not (tmp_path / "c.png").exists()
