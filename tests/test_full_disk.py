"""A full disk and damaged files: one line that says what is needed and what to do, and nothing half written."""

from __future__ import annotations

import errno
import resource
import shutil
from collections import namedtuple
from pathlib import Path

import numpy as np
import pytest
import torch

from gcl_fast import files
from gcl_fast.errors import CheckpointError, FileError
from gcl_fast.files import why_not_written, write_whole
from gcl_fast.meshes.mesh_files import write_faces
from gcl_fast.models import IdentityEncoder
from gcl_fast.runs.encoder_export import export_encoder
from gcl_fast.stages.checkpoint import load_checkpoint, load_trained, save_checkpoint
from gcl_fast.stages.log import RunLog

Usage = namedtuple("Usage", "total used free")


@pytest.fixture
def small_files():
    """The system refuses files above 100 kB, as a full disk or quota would."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_checkpoint_that_cannot_be_finished_leaves_the_old_one(tmp_path: Path, small_files: None) -> None:
    path = tmp_path / "stage1" / "last.pt"
    save_checkpoint(path, {"value": torch.ones(3)})
    with pytest.raises(FileError, match=r"cannot write .*last\.pt: File too large"):
        save_checkpoint(path, {"value": torch.zeros(100_000)})
    assert torch.equal(load_checkpoint(path)["value"], torch.ones(3))
    assert [file.name for file in path.parent.iterdir()] == ["last.pt"]


def test_what_a_checkpoint_needs_is_known_before_it_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "stage1" / "last.pt"
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(10**9, 10**9, 3 * 2**20))
    state = {"modules": {"net": {"a": torch.ones(2**20), "b": [torch.ones(5)]}}}
    with pytest.raises(FileError, match=r"last\.pt: it needs 4\.0 MiB, 3\.0 MiB are free there.*--resume"):
        save_checkpoint(path, state)
    assert not path.exists()
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(10**9, 0, 10**9))
    save_checkpoint(path, state)


def test_what_libraries_write_ends_with_the_system_s_reason(tmp_path: Path, small_files: None) -> None:
    with pytest.raises(FileError, match=r"cannot write .*faces\.npy: File too large"):
        write_faces(tmp_path, np.zeros((20_000, 3), np.int32))
    encoder = IdentityEncoder("mlc", "resnet18", width=8)
    for name in ("torch", "safetensors"):
        with pytest.raises(FileError, match=r"cannot write .*encoder\..*: File too large"):
            export_encoder(encoder, tmp_path, (name,), image_size=(64, 40))
    assert not list(tmp_path.iterdir())


def test_a_full_disk_is_told_with_what_is_free(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(1, 1, 2**19))

    def full(_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(FileError, match=r"deep/metrics\.json: No space left on device \(0\.5 MiB free there\); make room"):
        write_whole(tmp_path / "deep" / "metrics.json", full)
    assert not list((tmp_path / "deep").iterdir())
    assert why_not_written(tmp_path, OSError(errno.EACCES, "Permission denied")) == "Permission denied"
    assert files.free_space(tmp_path / "not" / "yet" / "there") == 2**19


def test_a_history_that_cannot_grow_is_named(tmp_path: Path, small_files: None) -> None:
    log = RunLog(tmp_path, tensorboard=False)
    with pytest.raises(FileError, match=r"history\.jsonl: File too large"):
        for iteration in range(1000):
            log.scalars("stage1", 0, iteration, 0.0, {f"loss{i}": 1.0 for i in range(30)})


def test_a_damaged_checkpoint_says_that_the_best_lies_beside_it(tmp_path: Path) -> None:
    state = {"stage": "stage1", "config": {}, "modules": {}}
    for name in ("last.pt", "best.pt"):
        save_checkpoint(tmp_path / name, state)
    (tmp_path / "last.pt").write_bytes(b"PK\x03\x04 cut")
    with pytest.raises(CheckpointError, match=r"last\.pt is .*damaged.*; .*best\.pt lies beside it"):
        load_trained(tmp_path / "last.pt")
    assert load_trained(tmp_path / "best.pt")["stage"] == "stage1"
    (tmp_path / "best.pt").unlink()
    with pytest.raises(CheckpointError) as caught:
        load_trained(tmp_path / "last.pt")
    assert "beside" not in str(caught.value)
