"""People turned once around: the animation, its strip, and what cannot be turned."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("PIL", reason="pictures need pillow")

from gcl_fast.data.datasets.load import load_dataset
from gcl_fast.errors import InputError
from gcl_fast.generation import novel_views, turntable, turntables
from gcl_fast.generation.inputs import render_meshes
from gcl_fast.guides import GuidedGenerator
from gcl_fast.images import pillow
from gcl_fast.meshes import open_mesh_source
from gcl_fast.models import Generator, IdentityEncoder
from gcl_fast.visuals.gif import save_gif
from tests.toy_world import SIZE, write_toy_world


def test_an_animation_has_its_frames_and_starts_over(tmp_path: Path) -> None:
    levels = (0, 120, 250)
    frames = [np.full((6, 5, 3), level, np.uint8) for level in levels]
    path = save_gif(tmp_path / "new" / "grey.gif", frames, milliseconds=50)
    with pillow().open(path) as picture:
        assert picture.n_frames == 3 and picture.info["loop"] == 0 and picture.info["duration"] == 50
        for number, level in enumerate(levels):
            picture.seek(number)
            assert (np.abs(np.asarray(picture.convert("RGB")).astype(int) - level) <= 2).all()
    with pytest.raises(ValueError, match="frames: expected at least one picture"):
        save_gif(tmp_path / "none.gif", [])
    with pytest.raises(ValueError, match=r"frames\[1\]: expected shape"):
        save_gif(tmp_path / "flat.gif", [frames[0], np.zeros((6, 5, 1), np.uint8)])


def test_a_full_turn_goes_by_ten_degrees(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = write_toy_world(tmp_path / "data")
    meshes = open_mesh_source(root / "mesh", "market1501", "test", SIZE)
    encoder = IdentityEncoder("jvtc", "resnet18", width=8)
    asked, render = [], meshes.render
    monkeypatch.setattr(meshes, "render", lambda record, yaws: (asked.append(list(yaws)), render(record, yaws))[1])
    strips, grid = [], turntables.novel_view_grid
    monkeypatch.setattr(
        turntables, "novel_view_grid", lambda *args, **rest: (strips.append((args, rest)), grid(*args, **rest))[1]
    )
    records, generator = load_dataset("market1501", str(root)).query, Generator(encoder.code_dim, width=2, mlp_width=8)
    turntable(encoder, generator, records[:1], meshes, tmp_path, num=1, image_size=SIZE)
    assert asked == [[10.0 * frame for frame in range(36)]]
    (((photo, views, angles), rest),) = strips  # every third of them
    assert angles == [30.0 * place for place in range(12)]
    assert torch.equal(rest["meshes"], render_meshes(meshes, records[:1], angles))
    torch.testing.assert_close(views, novel_views(encoder, generator, photo, rest["meshes"]), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", [Generator, GuidedGenerator])
def test_people_turn_once_around(tmp_path: Path, kind: type[Generator]) -> None:
    root = write_toy_world(tmp_path / "data")
    records = load_dataset("market1501", str(root)).query
    meshes = open_mesh_source(root / "mesh", "market1501", "test", SIZE)
    torch.manual_seed(0)
    encoder = IdentityEncoder("jvtc", "resnet18", width=8)
    generator = kind(encoder.code_dim, width=2, mlp_width=8)
    drawn = {"num": 2, "image_size": SIZE, "seed": 3}
    animation, strip = turntable(encoder, generator, records, meshes, tmp_path / "out", **drawn)
    again, _ = turntable(encoder, generator, records, meshes, tmp_path / "again", **drawn)
    assert animation.read_bytes() == again.read_bytes() and strip.stat().st_size > 0
    with pillow().open(animation) as picture:
        assert picture.n_frames == 36
    with pytest.raises(InputError, match="needs meshes with vertices"):
        turntable(encoder, generator, records, object(), tmp_path)  # type: ignore[arg-type]  # stands for rendered folders
    for some, options in (([], {}), (records, {"num": 0})):
        with pytest.raises(InputError, match="at least 1 record"):
            turntable(encoder, generator, some, meshes, tmp_path, **options)
