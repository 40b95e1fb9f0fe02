"""A data set opened for a run: which images and meshes it keeps, and with which settings they are read and scored."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

pytest.importorskip("torchvision", reason="the backbones need torchvision")

from gcl_fast.config import TrainConfig, from_dict
from gcl_fast.data.augment import Augment
from gcl_fast.data.plans import Plan
from gcl_fast.errors import ConfigError, FileError, MissingMeshesError
from gcl_fast.records import Batch
from gcl_fast.runs import dataset
from gcl_fast.runs.dataset import OpenedDataset
from gcl_fast.runs.networks import build_networks
from tests.test_loader import all_equal
from tests.toy_world import SETTINGS, write_toy_world


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_toy_world(tmp_path_factory.mktemp("world") / "data", people=3, images=4)


@pytest.fixture
def root(world: Path, tmp_path: Path) -> Path:
    """A copy to spoil."""
    return Path(shutil.copytree(world, tmp_path / "data"))


def settings(root: Path, **changes: Any) -> TrainConfig:
    return from_dict(TrainConfig, changes, base=from_dict(TrainConfig, yaml.safe_load(SETTINGS) | {"root": str(root)}))


def meshes(root: Path, split: str = "train") -> list[Path]:
    return sorted((root / "mesh/market" / split / "vertices").glob("*.npz"))


# Images and meshes that cannot be used


def test_images_without_a_mesh_and_with_one_that_cannot_guide_are_left_out_together(root: Path, capsys) -> None:
    missing, broken = meshes(root)[2], meshes(root)[5]
    missing.unlink()
    broken.write_bytes(b"")
    opened = OpenedDataset(settings(root, skip_unmeshed=True), with_meshes=True, check_meshes=True)
    assert len(opened.data.train) == 10
    assert not {missing.stem, broken.stem} & {record.path.stem for record in opened.data.train}
    told = capsys.readouterr().out
    assert "1 of 12 train images have no mesh" in told and "1 of 11 train meshes cannot guide" in told


def test_not_all_images_can_be_left_out(root: Path) -> None:
    for path in meshes(root):
        path.unlink()
    with pytest.raises(ConfigError, match="12 of 12 train images have no mesh"):
        OpenedDataset(settings(root, skip_unmeshed=True), with_meshes=True)


def test_a_gallery_without_meshes_is_told(root: Path) -> None:
    gallery = {path.stem for path in (root / "market1501/bounding_box_test").iterdir()}
    for path in meshes(root, "test"):
        if path.stem in gallery:
            path.unlink()
    with pytest.warns(UserWarning, match="no pictures of test images: 4 of 8 test images have no mesh"):
        assert OpenedDataset(settings(root), with_meshes=True).test_meshes is None


def test_how_to_get_meshes_names_the_folder_that_was_asked_for(world: Path, tmp_path: Path) -> None:
    with pytest.raises(MissingMeshesError, match=f"estimate-meshes --root {world} --dataset market1501 --mesh-root {tmp_path} "):
        OpenedDataset(settings(world, mesh_root=str(tmp_path)), with_meshes=True)


def test_images_that_are_left_out_stay_among_those_a_run_is_known_by(root: Path) -> None:
    """What they are left out for may be mended; what is trained on has a fingerprint of its own."""
    whole = OpenedDataset(settings(root), with_meshes=False)
    whole.data.train[3].path.write_bytes(b"")
    with pytest.warns(UserWarning, match="1 image cannot be read"):
        opened = OpenedDataset(settings(root, skip_broken=True), with_meshes=False)
    assert len(opened.data.train) == 11 and opened.resolved() == whole.resolved()
    assert opened.image_names != whole.image_names == whole.resolved()["image_names"]


def test_a_part_of_the_images_comes_without_a_test(world: Path) -> None:
    opened = OpenedDataset(settings(world), with_meshes=True, at_most=5)
    assert len(opened.data.train) == 5 and not opened.data.query and not opened.data.gallery and opened.test_meshes is None


def test_camera_styled_images_are_counted_and_those_that_cannot_be_read_named(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    opened = OpenedDataset(settings(root), with_meshes=False)
    assert opened.styled().num_styled == 0
    assert "no camera-styled images (a folder bounding_box_train_camstyle)" in capsys.readouterr().out
    folder = root / "market1501/bounding_box_train_camstyle"
    folder.mkdir()
    photo = opened.data.train[0].path
    styled = folder / f"{photo.stem}_fake_1to2.jpg"
    shutil.copy(photo, styled)
    assert opened.styled().num_styled == 1 and opened.styled(use=False).num_styled == 0
    assert capsys.readouterr().out == "1 camera-styled image\n"
    styled.write_bytes(b"")
    with pytest.raises(FileError, match=f"(?s)1 camera-styled image cannot be read.*{styled.name}"):
        opened.styled()


# How images are read


def batches(loader: Any, images: int) -> list[Batch]:
    return list(loader.epoch(Plan((np.arange(images // 2), np.arange(images // 2, images))), 0))


@pytest.mark.parametrize("guide", ["mesh", "texture"])
def test_other_images_are_read_as_those_of_training(guide: str, world: Path) -> None:
    opened = OpenedDataset(settings(world, loader="torch", model={"guide": guide}), with_meshes=True)
    read = []
    for options in ({"meshes": True}, {"augment": Augment(flip=0.5, pad=4)}, {}):
        own, others = (batches(opened.train_loader(**options, **more), 12) for more in ({}, {"records": opened.data.train}))
        assert all_equal(own, others)
        read.append(own)
    turned, augmented, plain = read
    assert (turned[0].mesh is None) == (guide == "texture") and turned[0].yaw is not None
    assert not all_equal(augmented, plain)


def test_what_a_seed_draws_is_its_own(world: Path) -> None:
    one, again, other = (
        batches(OpenedDataset(settings(world, seed=seed), with_meshes=True).train_loader(meshes=True), 12) for seed in (1, 1, 2)
    )
    assert all_equal(one, again) and not all_equal(one, other)


def test_bodies_are_turned_by_the_angles_asked_for(world: Path) -> None:
    opened = OpenedDataset(settings(world, yaws=[70]), with_meshes=True)
    read = [
        *batches(opened.train_loader(meshes=True), 12),
        *batches(opened.train_loader(meshes=True, records=opened.data.train), 12),
        *opened.samples.values(),
    ]
    assert all(batch.yaw.eq(70).all() for batch in read)


def test_samples_show_training_and_test_images_with_their_own_meshes(world: Path) -> None:
    opened = OpenedDataset(settings(world), with_meshes=True)
    assert {name: len(batch) for name, batch in opened.samples.items()} == {"train": 8, "test": 4}
    assert opened.samples["test"].pid.tolist() == [record.pid for record in opened.data.query]
    assert all(batch.mesh.amax() > 0 for batch in opened.samples.values())


def test_people_are_found_where_either_stage_weighs_them(world: Path) -> None:
    for weighed in ("stage2", "stage3"):
        opened = OpenedDataset(settings(world, **{weighed: {"loss": {"foreground": 2.0}}}), with_meshes=True)
        assert opened.people is not None and opened.people.shape == (12, 1, *opened.config.image_size)
    assert OpenedDataset(settings(world), with_meshes=True).people is None


def test_each_reader_knows_what_the_others_keep(world: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else together they would take more memory than there is."""
    made, reader = [], dataset.Reader

    def watched(*args: Any, **options: Any) -> Any:
        made.append((options["taken"], reader(*args, **options)))
        return made[-1][1]

    monkeypatch.setattr(dataset, "Reader", watched)
    OpenedDataset(settings(world, loader="cached"), with_meshes=False).test_loaders()
    kept = [each.host_bytes for _, each in made]
    assert min(kept) > 0 and [taken for taken, _ in made] == [0, kept[0], kept[0] + kept[1]]


# How they are scored


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_features_and_scores_are_read_with_the_settings(precision: str, world: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told = []
    for name in ("extract_features", "evaluate"):
        real = getattr(dataset, name)
        monkeypatch.setattr(dataset, name, lambda *args, real=real, **options: told.append(options) or real(*args, **options))
    opened = OpenedDataset(settings(world, precision=precision, eval_batch_size=3, same_camera=True), with_meshes=False)
    encoder = build_networks(opened.config).encoder
    opened.features(encoder)
    opened.score(encoder)
    opened.score(encoder, rerank=True)
    assert len(told) == 3 and all(options["amp"] == (precision == "bf16") and options["batch_size"] == 3 for options in told)
    assert [options["rerank"] for options in told[1:]] == [False, True] and all(options["same_camera"] for options in told[1:])


def test_the_best_epoch_is_that_of_the_highest_map(world: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dataset, "evaluate", lambda *_, **__: None)
    monkeypatch.setattr(dataset, "scores", lambda _: {"mAP": 0.25, "rank1": 0.75})
    opened = OpenedDataset(settings(world), with_meshes=False)
    assert opened.score(torch.nn.Identity()) == {"mAP": 0.25, "rank1": 0.75, "score": 0.25}


def test_a_loss_over_cameras_knows_those_of_the_training_images(world: Path) -> None:
    opened = OpenedDataset(settings(world), with_meshes=False)
    assert opened.cameras.tolist() == [int("_c2s1_" in record.path.name) for record in opened.data.train]
