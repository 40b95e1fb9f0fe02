"""Scores of imported weights, and the words of the commands: data sets and flags are named, nothing is a repr."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from gcl_fast.cli.evaluate import on_data
from gcl_fast.cli.main import main
from gcl_fast.config import ConfigError, TrainConfig, from_dict, to_dict
from gcl_fast.data.datasets.csv_data import read_csv_dataset
from gcl_fast.errors import InputError
from gcl_fast.models import IdentityEncoder
from gcl_fast.models.before_norm import BeforeNorm
from gcl_fast.models.names import entries
from gcl_fast.models.published import recognise
from gcl_fast.runs.dataset import OpenedDataset
from gcl_fast.runs.encoder_export import export_encoder
from gcl_fast.runs.networks import build_networks
from gcl_fast.runs.training import Training
from gcl_fast.stages.checkpoint import save_checkpoint
from tests.toy_world import SETTINGS, SIZE, write_toy_world


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> Path:
    return write_toy_world(tmp_path_factory.mktemp("evaluate") / "data")


@pytest.fixture(scope="module")
def encoder() -> IdentityEncoder:
    torch.manual_seed(0)
    return IdentityEncoder("mlc", "resnet18", width=8)


def run(capsys, *arguments: object) -> tuple[int, str, str]:
    capsys.readouterr()
    code = main([str(a) for a in arguments])
    told = capsys.readouterr()
    return code, told.out, told.err


def test_imported_weights_are_scored(world, encoder, tmp_path, capsys):
    weights, scores = tmp_path / "enc.safetensors", tmp_path / "scores.json"
    save_file(encoder.state_dict(), weights)
    where = ("--dataset", "market1501", "--root", world, "--device", "cpu", "--height", SIZE[0], "--width", SIZE[1])
    code, out, err = run(capsys, "evaluate", weights, *where, "--output", scores)
    assert code == 0, err
    assert "mAP" in out and 0 <= json.loads(scores.read_text())["plain"]["mAP"] <= 1
    code, _, err = run(capsys, "evaluate", weights, *where, "--height", 7)
    assert (
        code == 1
        and err == f"gcl-fast evaluate: --height and --width must be multiples of 4 and at least 40, got (7, {SIZE[1]})\n"
    )
    wrapped = tmp_path / "wrapped.pt"
    torch.save({"state_dict": {f"module._orig_mod.{k}": v for k, v in encoder.state_dict().items()}}, wrapped)
    code, again, err = run(capsys, "evaluate", wrapped, *where)
    assert code == 0 and again.splitlines()[-1] == next(line for line in out.splitlines() if line.startswith("plain")), err


def test_an_exported_encoder_is_scored_at_its_own_size_and_re_ranked_where_asked(world, encoder, tmp_path, capsys, monkeypatch):
    export_encoder(encoder, tmp_path / "exported", ("safetensors",), image_size=SIZE)
    told, score = [], OpenedDataset.score

    def watched(dataset, encoder, *, rerank=False):
        told.append((dataset.config.image_size, rerank))
        return score(dataset, encoder, rerank=rerank)

    monkeypatch.setattr(OpenedDataset, "score", watched)
    where = ("--dataset", "market1501", "--root", world, "--device", "cpu")
    code, out, err = run(capsys, "evaluate", tmp_path / "exported", *where, "--rerank")
    assert code == 0 and "reranked" in out, err
    assert told == [(SIZE, False), (SIZE, True)]


@pytest.mark.parametrize(
    ("method", "stage", "flags", "before"),
    [
        ("mlc", "stage1", [], True),
        ("mlc", "control", [], True),
        ("mlc", "stage3", [], False),
        ("cluster-contrast", "stage1", [], False),
        ("mlc", "stage1", ["--feature", "after-norm"], False),
        ("cluster-contrast", "stage3", ["--feature", "before-norm"], True),
    ],
)
def test_a_stage_is_scored_by_its_own_feature(method, stage, flags, before, world, tmp_path, capsys, monkeypatch):
    height, width = SIZE
    values = {"model": {"backbone": "resnet18", "width": 8, "generator_width": 4, "generator_mlp": 8, "discriminator_width": 4}}
    values |= {"root": str(world), "height": height, "width": width, "precision": "bf16", "stage1": {"method": method}}
    config = from_dict(TrainConfig, values)
    modules = {"encoder": build_networks(config, start=False).encoder.state_dict()}
    save_checkpoint(tmp_path / "last.pt", {"stage": stage, "config": to_dict(config), "modules": modules})
    told = []

    def watched(dataset, encoder, *, rerank=False):
        told.append((type(encoder) is BeforeNorm, dataset.bf16))
        return {"mAP": 0.5}

    monkeypatch.setattr(OpenedDataset, "score", watched)
    for precision in ([], ["--precision", "fp32"]):
        code, out, err = run(capsys, "evaluate", tmp_path / "last.pt", "--device", "cpu", *flags, *precision)
        words = f"precision {'fp32' if precision else 'bf16'}  feature {'before' if before else 'after'}-norm"
        assert code == 0 and f"device cpu  {words}\n" in out, err
    assert told == [(before, True), (before, False)]


def test_a_run_is_scored_on_other_data_in_other_places():
    """Meshes were told of the data trained on: those of others lie in their usual place."""
    config = from_dict(TrainConfig, {"device": "cuda", "root": "/data", "mesh_root": "/meshes"})
    same = on_data(config, None, None, "cpu")
    assert (same.device, same.dataset, same.root, same.mesh_root) == ("cpu", "market1501", "/data", "/meshes")
    for dataset, root in (("msmt17", None), (None, "/moved"), ("msmt17", "/moved")):
        other = on_data(config, dataset, root, "cpu")
        assert (other.dataset, other.root, other.mesh_root) == (dataset or "market1501", root or "/data", None)


@pytest.mark.parametrize("command", ["evaluate", "generate"])
def test_which_checkpoint_of_a_run_is_taken_is_said(command, tmp_path, capsys):
    small = {"backbone": "resnet18", "width": 8, "generator_width": 4, "generator_mlp": 8, "discriminator_width": 4}
    config = from_dict(TrainConfig, {"model": small, "root": str(tmp_path / "nowhere")})
    modules = {"generator": build_networks(config, start=False).generator.state_dict()}
    save_checkpoint(tmp_path / "run/stage3/last.pt", {"stage": "stage3", "config": to_dict(config), "modules": modules})
    code, _, err = run(capsys, command, tmp_path / "run")
    assert code == 1 and err.startswith(f"{tmp_path / 'run'}: stage3/last.pt is taken\ngcl-fast {command}: ")


def test_weights_alone_ask_for_their_data_set(world, encoder, tmp_path, capsys):
    save_file(encoder.state_dict(), tmp_path / "enc.safetensors")
    for given in ((), ("--dataset", "market1501"), ("--root", world)):
        code, _, err = run(capsys, "evaluate", tmp_path / "enc.safetensors", *given)
        assert code == 1 and err.count("\n") == 1 and "give --dataset and --root" in err and "enc.safetensors" in err


def test_errors_name_the_data_set_and_folder_asked_for(world, encoder, tmp_path, capsys):
    save_file(encoder.state_dict(), tmp_path / "enc.safetensors")
    (tmp_path / "own").mkdir()
    for name, folder in (("msmt17", tmp_path / "own"), ("dukemtmc", tmp_path / "nowhere")):
        code, _, err = run(capsys, "evaluate", tmp_path / "enc.safetensors", "--dataset", name, "--root", folder)
        assert code == 1 and name in err and str(folder) in err and "market1501" not in err
    (tmp_path / "own/train.csv").write_text("path\na.jpg\n")
    (tmp_path / "own/a.jpg").write_bytes(next(world.rglob("*.jpg")).read_bytes())
    code, _, err = run(capsys, "evaluate", tmp_path / "enc.safetensors", "--dataset", "csv", "--root", tmp_path / "own")
    assert code == 1 and f"csv at {tmp_path / 'own'}: no scores: no query or no gallery images: scores need photos" in err


PREFIXES = ["_orig_mod.", "model.", "net.", "encoder.", "module.", "module._orig_mod.", "model.encoder."]


@pytest.mark.parametrize("prefix", PREFIXES)
@pytest.mark.parametrize("wrapper", [None, "state_dict_ema", "model_ema"])
def test_wrappings_are_looked_through(encoder, prefix, wrapper):
    state = {prefix + name: value for name, value in encoder.state_dict().items()}
    content = state if wrapper is None else {wrapper: state, "epoch": 3}
    (part,) = recognise(content)
    assert part.module == "encoder" and set(part.state) == set(encoder.state_dict())


def test_names_that_would_become_one_keep_their_prefix():
    assert list(entries({"model.a": 1, "a": 2, "model.b": 3})) == ["model.a", "a", "b"]


def test_render_says_what_it_wrote_in_words(world, tmp_path, capsys):
    arguments = ("render", "--root", world, "--out", tmp_path / "out", "--angles", 0, "--height", SIZE[0], "--width", SIZE[1])
    code, out, _ = run(capsys, *arguments)
    assert code == 0 and "pictures written to" in out and "RenderReport" not in out and "PosixPath" not in out
    _, out, _ = run(capsys, *arguments)
    assert "0 pictures written" in out and "were there already (--overwrite writes them again)" in out


def test_warnings_are_words_without_source_lines():
    code = (
        "import warnings; from gcl_fast.cli import doctor, main\n"
        "doctor.main = lambda argv: warnings.warn('two images cannot be read') or 0\n"
        "raise SystemExit(main.main(['doctor']))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr == "warning: two images cannot be read\n"


def test_a_batch_or_a_data_set_of_one_image_is_known_at_the_start(world, tmp_path):
    for section, changes in (("stage1", {"num_instances": 1}), ("stage2", {}), ("stage3", {})):
        with pytest.raises(ConfigError, match=r"batch_size must be at least 2, which batch norm needs, got 1"):
            from_dict(TrainConfig, {section: {"batch_size": 1, **changes}})
    (tmp_path / "train.csv").write_text(f"path\n{next(world.rglob('*.jpg'))}\n")
    assert len(read_csv_dataset(tmp_path).train) == 1
    import yaml

    places = {"dataset": "csv", "root": str(tmp_path), "runs": str(tmp_path / "r")}
    config = from_dict(TrainConfig, yaml.safe_load(SETTINGS) | places)
    with pytest.raises(InputError, match=r"csv in .* has 1 training image: training needs at least two"):
        Training(config, (1,), resume=False, overwrite=False)
    assert not (tmp_path / "r").exists()
