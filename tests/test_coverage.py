"""Bodies that their picture does not show: named at import and at start, and without a part in what the generator learns."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("torchvision", reason="the backbones need torchvision")

from gcl_fast import distributed
from gcl_fast.cli.main import main
from gcl_fast.data.datasets.load import load_dataset
from gcl_fast.meshes import open_mesh_source
from gcl_fast.meshes.coverage import coverage_lines, covered_share, find_unusable, shows_body
from gcl_fast.meshes.importing.importer import import_meshes
from gcl_fast.meshes.mesh_files import Mesh, write_mesh
from gcl_fast.stages.losses import mean_of_told
from gcl_fast.stages.views import told_rows
from tests.estimate_cases import pixels
from tests.test_step import make_batch, make_config, make_networks, make_stage
from tests.toy_world import SETTINGS, SIZE, ellipsoid, write_toy_world

CPU = torch.device("cpu")
VERTICES, FACES = ellipsoid()
BESIDE = np.array([1.0, 5.0, 0.0], np.float32)
BEHIND = np.array([0.0, 0.0, -9.0, 1.4, 0.0, 0.0], np.float32)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_toy_world(tmp_path / "data", people=2, images=4)


def meshes_of(root: Path) -> list[Path]:
    return sorted((root / "mesh/market/train/vertices").glob("0*.npz"))


@pytest.mark.parametrize("name", ["stage2", "stage3"])
@pytest.mark.parametrize("picture", ["mesh", "mesh_novel", "all"])
def test_a_blank_guide_leaves_all_weights_finite(name: str, picture: str) -> None:
    """Eight steps with a row without a guide in each batch; of the network alone, the first gradients were infinite."""
    stage = make_stage(name, make_config(), {k: m.float() for k, m in make_networks(CPU).items()}, CPU)
    if name == "stage3":
        stage.memory.float()
        stage.centers = stage.centers.float()
    for iteration in range(3):
        batch = make_batch(CPU, iteration)
        batch.image, batch.mesh, batch.mesh_novel = (t.float() for t in (batch.image, batch.mesh, batch.mesh_novel))
        if picture == "all":
            batch.mesh.fill_(-1)
        else:
            getattr(batch, picture)[1] = -1
        losses = stage.step(batch, iteration)
        assert all(bool(torch.isfinite(loss)) for loss in losses.values())
    for module in stage.modules.values():
        for weights in module.state_dict().values():
            assert bool(torch.isfinite(weights).all())
    assert stage.untold == (12 if picture == "all" else 3)


def test_a_row_without_a_guide_teaches_the_generator_nothing() -> None:
    """Its photo may be any: generator and discriminator's fakes learn from the other rows alone."""
    moved = []
    for seed in (3, 4):
        stage, batch = make_stage("stage2", make_config(), make_networks(CPU), CPU), make_batch(CPU, 0)
        batch.mesh[2] = -1
        rng = torch.Generator().manual_seed(seed)
        batch.image[2] = torch.randn(batch.image[2].shape, generator=rng, dtype=torch.float64)
        views = stage.views(batch, stage.encoder(batch.image)[0].detach(), None, None)
        loss = mean_of_told((views.reconstruction - batch.image).abs(), views.told)
        moved.append(torch.autograd.grad(loss, list(stage.generator.decoder.parameters()), allow_unused=True))
    for one, two in zip(*moved, strict=True):
        assert (one is None and two is None) or torch.equal(one, two)


def test_the_mean_of_told_rows() -> None:
    values = torch.randn(5, 3, 4, generator=torch.Generator().manual_seed(0), requires_grad=True)
    rows = torch.tensor([True, False, True, True, False])
    told = rows * 5 / 3
    assert torch.allclose(mean_of_told(values, told), values[rows].mean())
    (gradient,) = torch.autograd.grad(mean_of_told(values, told), values)
    assert not gradient[~rows].any() and gradient[rows].all()
    assert torch.equal(mean_of_told(values, torch.ones(5)), values.mean())
    assert mean_of_told(values, torch.zeros(5)) == 0
    poisoned = values.detach().clone()
    poisoned[1] = torch.inf
    assert torch.isfinite(mean_of_told(poisoned, told))


def test_rows_whose_body_is_seen_stay_as_they_are() -> None:
    batch = make_batch(CPU, 0)
    same, told = told_rows(batch)
    assert same is batch and told is None
    blank = replace(batch, mesh_novel=batch.mesh_novel.clone())
    blank.mesh_novel[3] = 0.4
    other, told = told_rows(blank)
    assert told.tolist() == pytest.approx([4 / 3, 4 / 3, 4 / 3, 0])
    assert torch.equal(other.mesh, batch.mesh) and torch.equal(other.mesh_novel[:3], batch.mesh_novel[:3])


def test_rows_of_two_processes_count_alike_however_many_each_tells(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distributed, "world", lambda: 2)
    monkeypatch.setattr(distributed, "sum_", lambda own: torch.full_like(own, 4))  # rows told: 3 here and 1 there, or both
    values = torch.randn(2, 4, generator=torch.Generator().manual_seed(0))
    shares, rows = [], []
    for share, blank in ((0, [3]), (1, [0, 1, 2])):
        batch = make_batch(CPU, share)
        mesh = batch.mesh.clone()
        mesh[blank] = 0.4
        told = told_rows(replace(batch, mesh=mesh))[1]
        shares.append(mean_of_told(values[share], told))
        rows += [value for k, value in enumerate(values[share]) if k not in blank]
    assert torch.allclose(torch.stack(shares).mean(), torch.stack(rows).mean())  # as gradients are averaged


def test_what_cannot_guide_is_named_with_its_reason(root: Path) -> None:
    files = meshes_of(root)
    write_mesh(files[0], VERTICES, BESIDE)
    write_mesh(files[1], VERTICES, BEHIND)
    write_mesh(files[2], VERTICES, np.array([1.0, 0, 0], np.float32), FACES[:0])
    files[3].write_bytes(b"")
    files[4].write_bytes(files[4].read_bytes()[:300])
    write_mesh(files[5], VERTICES, np.array([50.0, 0, 0], np.float32))  # one triangle fills the picture
    data = load_dataset("market1501", root)
    source = open_mesh_source(root / "mesh", "market1501", "train", SIZE)
    seen: list[int] = []
    unusable = find_unusable(source, data.train, progress=lambda done, _: seen.append(done))
    assert [record.path.stem for record, _ in unusable] == [file.stem for file in files[:6]]
    words = [why for _, why in unusable]
    assert all("covers no pixel" in why for why in words[:3]) and "same grey everywhere" in words[5]
    assert files[3].name in words[3] and files[4].name in words[4]
    assert seen == list(range(1, len(data.train) + 1))


def test_a_black_rendered_picture_cannot_guide(root: Path) -> None:
    from PIL import Image

    data, folder = load_dataset("market1501", root), root / "mesh/market/train"
    for view in ("render", "render_45"):
        (folder / view).mkdir()
        for i, record in enumerate(data.train):
            grey = np.zeros(SIZE, np.uint8)
            grey[20:60, 10:30] = 0 if i == 2 else np.arange(64, 84)
            Image.fromarray(grey).save(folder / view / record.path.name)
    source = open_mesh_source(root / "mesh", "market1501", "train", SIZE, kind="rendered")
    assert [record for record, _ in find_unusable(source, data.train)] == [data.train[2]]


def test_training_names_bad_meshes_before_it_begins(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings = tmp_path / "toy.yaml"
    settings.write_text(SETTINGS)
    files = meshes_of(root)
    write_mesh(files[1], VERTICES, BESIDE)
    files[3].write_bytes(b"")
    command = ["train", "--config", str(settings), "--root", str(root), "--runs", str(tmp_path / "runs"), "--stage", "2"]
    command += ["--init", str(tmp_path / "nowhere.pt")]
    assert main(command) == 1
    error = capsys.readouterr().err
    assert files[1].stem in error and files[3].stem in error and "--skip-unmeshed" in error
    assert not (tmp_path / "runs").exists()
    assert main([*command, "--skip-unmeshed"]) == 1  # goes on to what it starts from
    output = capsys.readouterr()
    assert "2 of 8 train meshes cannot guide" in output.out and "nowhere.pt" in output.err


def test_a_body_covers_its_outline() -> None:
    """Its dark sides too: of an ellipsoid what the hull of its corners covers."""
    hull = pytest.importorskip("scipy.spatial", reason="the area of a hull is scipy's").ConvexHull
    mesh = Mesh(VERTICES, np.array([1.0, 0.1, 0.05], np.float32), FACES)
    size = (256, 128)
    area = hull(pixels(mesh, size)).volume / (size[0] * size[1])
    assert area > 0.05 and covered_share(mesh, size) == pytest.approx(area, rel=0.02)


def test_the_darkest_body_is_seen_and_a_compressed_black_picture_is_not() -> None:
    grey = torch.zeros(3, 8, 8)
    grey[0, 2:5, 2:5] = 0.25
    grey[1] = 0.08 * torch.rand(8, 8, generator=torch.Generator().manual_seed(0))
    assert shows_body(grey).tolist() == [True, False, False]


def test_each_body_worth_a_look_is_told_once() -> None:
    shares = {Path(f"{share}.jpg"): share for share in (0.0, 0.01, 0.2, 0.5, 0.8, 0.95, 1.0)}
    median, outside, small, large = coverage_lines(shares)
    assert "50%" in median and outside.startswith("1 body outside the picture") and outside.endswith(": 0.0.jpg 0.0%")
    assert small.startswith("1 body covering less than 3%") and small.endswith(": 0.01.jpg 1.0%")
    assert large.startswith("2 bodies covering more than 90%") and large.endswith(": 0.95.jpg 95.0%, 1.0.jpg 100.0%")
    assert coverage_lines({}) == []


def test_an_import_says_what_the_bodies_cover(root: Path, tmp_path: Path) -> None:
    data = load_dataset("market1501", root)
    shutil.rmtree(root / "mesh")
    for i, record in enumerate([*data.train, *data.query, *data.gallery]):
        camera = BESIDE if i == 1 else np.array([0.1 if i == 2 else 1.0, 0, 0], np.float32)
        write_mesh(tmp_path / "estimates" / f"{record.path.stem}.npz", VERTICES, camera, FACES)
    report = import_meshes(data, [tmp_path / "estimates"], image_size=SIZE)
    shares = report.coverage
    assert shares[data.train[1].path] == 0 < shares[data.train[2].path] < 0.03 < shares[data.train[0].path]
    text = str(report)
    outside = "1 body outside the picture (a wrong focal length or camera?): training refuses such a mesh"
    assert f"{outside}: {data.train[1].path.name}" in text
    assert "less than 3%" in text and data.train[2].path.name in text and "(median)" in text
