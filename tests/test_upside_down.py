"""A body that was read with the wrong y axis is noticed, and said by import-meshes."""

from __future__ import annotations

import numpy as np
import pytest

from gcl_fast.data.datasets.load import load_dataset
from gcl_fast.meshes.importing.importer import import_meshes
from gcl_fast.meshes.importing.upside_down import stands_on_its_head
from tests.estimate_cases import STEM, obj, unmeshed_world
from tests.toy_world import SIZE


def person() -> tuple[np.ndarray, np.ndarray]:
    """A column 1.7 m tall, y down, whose upper fifth holds half of the vertices; its triangles."""
    rows = np.concatenate((np.linspace(-0.85, -0.5, 20), np.linspace(-0.4, 0.85, 20)))
    ring = np.linspace(0, 2 * np.pi, 8, endpoint=False)
    vertices = np.stack([np.stack((0.2 * np.cos(ring), np.full(8, y), 0.2 * np.sin(ring)), 1) for y in rows]).reshape(-1, 3)
    first = np.arange(len(vertices) - 9)
    return vertices, np.stack((first, first + 1, first + 8), 1)


def test_the_head_is_told_from_the_feet():
    vertices, _ = person()
    upside_down = vertices * [1, -1, -1]
    assert not stands_on_its_head(vertices) and stands_on_its_head(upside_down)
    assert not stands_on_its_head(upside_down[:, [1, 0, 2]])  # who lies is not judged
    smpl = np.zeros((6890, 3))
    smpl[332, 1], smpl[[3387, 6787], 1] = -0.6, 0.9
    assert not stands_on_its_head(smpl) and stands_on_its_head(-smpl)


@pytest.mark.parametrize("axes", ["y-down", "y-up"])
def test_the_import_says_it_and_names_the_flag(tmp_path, axes):
    root, (vertices, faces) = unmeshed_world(tmp_path), person()
    data = load_dataset("market1501", root)
    wrong, right = ("y-up", "y-down") if axes == "y-down" else ("y-down", "y-up")
    path = obj(tmp_path / f"{STEM}.obj", vertices if axes == "y-down" else vertices * [1, -1, -1], faces)
    reports = [import_meshes(data, [path], image_size=SIZE, axes=a, fit=True, missing="leave-out") for a in (right, wrong)]
    assert "stand on their heads" not in str(reports[0])
    assert f"1 of 1 bodies stand on their heads: are the files {right}? Then give --axes {right}" in str(reports[1])
