"""Photos turned by their meshes: their own pixels where they were seen, and the command that draws them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

pytest.importorskip("PIL", reason="reading photos needs pillow")

from gcl_fast.data.datasets.load import load_dataset
from gcl_fast.generation import warp_pictures, warped_views
from gcl_fast.generation.inputs import load_photos, render_meshes
from gcl_fast.generation.warps import PAPER
from gcl_fast.images import mesh_to_uint8, photo_to_uint8
from gcl_fast.meshes import open_mesh_source
from tests.toy_world import SIZE, write_toy_world


@pytest.fixture
def toy(tmp_path):
    root = write_toy_world(tmp_path / "data")
    records = load_dataset("market1501", str(root)).query[:2]
    return records, open_mesh_source(root / "mesh", "market1501", "test", SIZE)


def test_at_no_turn_the_photo_is_itself(toy, device: torch.device) -> None:
    records, meshes = toy
    photos = load_photos([record.path for record in records], SIZE).to(device)
    pictures, visibility = warped_views(photos, records, meshes, (0.0, 180.0))
    assert pictures.shape == (2, 2, 3, *SIZE) and visibility.shape == (2, 2, *SIZE)
    seen = visibility[:, 0] == 1
    assert seen.float().mean() > 0.05 and not (visibility[:, 0] == 2).any()
    for own, warped, where in zip(photos, pictures[:, 0], seen, strict=True):
        error = (own - warped).abs().amax(0)[where]  # of noise that spans some 4 units between neighbouring pixels
        assert error.mean() < 1e-4 and error.max() < 1e-2  # slender triangles at the edge: positions to some 1/1000 pixel
    drawn = mesh_to_uint8(render_meshes(meshes, records, (180.0,)))[:, 0]  # [N, H, W, 3]
    painted, level = photo_to_uint8(pictures[:, 1]), visibility[:, 1].cpu().numpy()
    assert (painted[level == 0] == PAPER).all() and np.array_equal(painted[level == 2], drawn[level == 2])
    turned = visibility[:, 1] > 0
    assert (visibility[:, 1][turned] == 2).float().mean() > 0.9  # the back of an ellipsoid is not in the photo
    swapped, levels = warped_views(photos, records, meshes, (180.0, 0.0))  # each angle is one from the photo's own view
    assert torch.equal(swapped, pictures.flip(1)) and torch.equal(levels, visibility.flip(1))


def test_a_sheet_is_written(toy, tmp_path) -> None:
    records, meshes = toy
    path = warp_pictures(records, meshes, tmp_path / "out", angles=(45.0, 90.0), image_size=SIZE)
    assert path.name == "warp.png" and path.stat().st_size > 0
    with pytest.raises(ValueError, match="at least one angle"):
        warp_pictures(records, meshes, tmp_path / "out", angles=(), image_size=SIZE)


def test_rendered_pictures_are_refused(toy) -> None:
    records, _ = toy
    with pytest.raises(ValueError, match="meshes with vertices"):
        warped_views(torch.zeros(2, 3, *SIZE), records, object(), (45.0,))
