"""The networks of a run: built from its settings and seed, loaded from files and folders, refused by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("torchvision", reason="the backbones need torchvision")

from gcl_fast.config import TrainConfig, from_dict, to_dict
from gcl_fast.errors import CheckpointError, ConfigError, MissingFileError
from gcl_fast.models.three_networks import Networks
from gcl_fast.runs.networks import (
    build_networks,
    encoder_of,
    find_checkpoint,
    find_encoder,
    is_checkpoint,
    load_module,
    load_networks,
    networks_of,
)
from gcl_fast.stages.checkpoint import save_checkpoint
from tests.weights import equal

SMALL = {"backbone": "resnet18", "width": 8, "generator_width": 4, "generator_mlp": 8, "discriminator_width": 4}


def settings(**changes: Any) -> TrainConfig:
    return from_dict(TrainConfig, changes, base=from_dict(TrainConfig, {"height": 80, "width": 40, "model": SMALL}))


def same(one: torch.nn.Module, two: torch.nn.Module) -> bool:
    return equal(one.state_dict(), two.state_dict())


def saved(path: Path, networks: Networks, config: TrainConfig, *names: str) -> Path:
    modules = {name: getattr(networks, name).state_dict() for name in names}
    save_checkpoint(path, {"stage": path.parent.name, "config": to_dict(config), "modules": modules})
    return path


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run folder with stages 1 and 2, of different weights."""
    for seed, stage, names in ((1, "stage1", ["encoder"]), (2, "stage2", ["encoder", "generator", "discriminator"])):
        config = settings(seed=seed)
        saved(tmp_path / "run" / stage / "last.pt", build_networks(config), config, *names)
    return tmp_path / "run"


# Built


def test_a_seed_draws_networks_of_its_own() -> None:
    one, again, other = (vars(build_networks(settings(seed=seed))) for seed in (1, 1, 2))
    for name in ("encoder", "generator", "discriminator"):
        assert same(one[name], again[name]) and not same(one[name], other[name])


def test_neither_the_encoder_nor_the_generator_starts_otherwise_for_the_other_s_size() -> None:
    """Runs that differ in one of them can be compared."""
    one, wide = build_networks(settings()), build_networks(settings(model={"generator_width": 8}))
    assert same(one.encoder, wide.encoder)
    pooled = build_networks(settings(model={"variant": "act"}))
    assert same(one.generator, pooled.generator) and same(one.discriminator, pooled.discriminator)


def test_the_settings_reach_the_networks() -> None:
    model = {"variant": "act", "pooling": "gem", "norm_bias": "frozen", "generator_mlp": 6}
    networks = build_networks(settings(model=model))
    assert (networks.encoder.pooling, networks.encoder.norm_bias) == ("gem", "frozen")
    assert not equal_shapes(networks.generator, build_networks(settings()).generator)


def equal_shapes(one: torch.nn.Module, two: torch.nn.Module) -> bool:
    return [value.shape for value in one.parameters()] == [value.shape for value in two.parameters()]


# Loaded


@pytest.mark.parametrize(
    ("value", "words"),
    [(torch.tensor([1.0, torch.nan]), "weights not finite: bias"), ([1.0, 2.0], r"weights must be tensors, got bias \(list\)")],
)
def test_weights_that_are_none_are_refused_by_name(value: Any, words: str) -> None:
    layer = torch.nn.Linear(3, 2)
    before = layer.weight.clone()
    with pytest.raises(ConfigError, match=f"mine.pt: {words}"):
        load_module(layer, {"weight": torch.zeros(2, 3), "bias": value}, "mine.pt")
    assert torch.equal(layer.weight, before)


def test_what_does_not_fit_is_told_name_by_name() -> None:
    norm = torch.nn.BatchNorm1d(2)
    state = {"weight": torch.zeros(3), "running_mean": torch.zeros(2), "gamma": torch.zeros(2)}
    with pytest.raises(ConfigError) as error:  # old files do not count batches: that is no misfit
        load_module(norm, state, "mine.pt")
    assert str(error.value).endswith("missing bias, running_var; unknown gamma; wrong shape weight [3] for [2]")


def test_a_run_folder_gives_each_stage_its_start(run: Path) -> None:
    """Stage 3 needs all three networks, which stage 2 has; the others the encoder, which stage 1 trained."""
    first, second = (networks_of(run / stage / "last.pt")[1] for stage in ("stage1", "stage2"))
    for stage, given, source in (
        (1, {"encoder"}, first),
        (2, {"encoder"}, first),
        (3, {"encoder", "generator", "discriminator"}, second),
    ):
        networks = build_networks(settings())
        assert load_networks(networks, str(run), stage) == given
        assert all(same(getattr(networks, name), getattr(source, name)) for name in given)


def test_stage_1_asks_nothing_of_the_networks_that_it_has_not(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    networks, file = build_networks(settings(model={"generator_width": 8})), str(run / "stage2/last.pt")
    assert load_networks(networks, file, 1) == {"encoder"}
    assert same(networks.encoder, networks_of(run / "stage2/last.pt")[1].encoder)
    assert "encoder" in (told := capsys.readouterr().out) and "generator" not in told
    with pytest.raises(ConfigError, match="does not fit Generator"):
        load_networks(networks, file, 2)


def test_two_files_of_one_network_are_refused(run: Path) -> None:
    files = f"{run / 'stage1'}, {run / 'stage2'}"
    with pytest.raises(ConfigError, match="more than one file holds the encoder"):
        load_networks(build_networks(settings()), files, 3)


def test_an_encoder_of_another_pooling_names_the_setting(tmp_path: Path) -> None:
    gem = settings(model={"pooling": "gem"})
    path = saved(tmp_path / "stage1/last.pt", build_networks(gem), gem, "encoder")
    with pytest.raises(ConfigError, match=r"with gem pooling, the configuration has .* avg pooling: set --model.pooling gem$"):
        load_networks(build_networks(settings()), str(path), 1)


def test_a_run_folder_stands_for_the_stage_that_trained_the_encoder_last(run: Path) -> None:
    assert find_checkpoint(run) == find_encoder(run) == run / "stage1/last.pt"
    assert find_checkpoint(run, ("stage3", "stage2")) == find_checkpoint(run / "stage2") == run / "stage2/last.pt"
    (run / "stage2").rename(run / "stage3")
    assert find_checkpoint(run) == find_encoder(run) == run / "stage3/last.pt"
    best = (run / "stage3/last.pt").rename(run / "stage3/best.pt")  # stage 1's is not meant
    for find in (find_checkpoint, find_encoder):
        with pytest.raises(MissingFileError, match=f"stage3/last.pt is missing; {best} lies beside it: give that file"):
            find(run)


def test_a_damaged_checkpoint_is_still_meant_as_one(run: Path, tmp_path: Path) -> None:
    """So that it is told as damaged, not as weights of another kind."""
    whole, weights, damaged = run / "stage1/last.pt", tmp_path / "weights.pt", tmp_path / "damaged.pt"
    torch.save(build_networks(settings()).encoder.state_dict(), weights)
    damaged.write_bytes(whole.read_bytes()[:5000])
    assert is_checkpoint(whole) and is_checkpoint(damaged) and not is_checkpoint(weights)


def test_a_network_that_nobody_knows_is_named(run: Path) -> None:
    path, config = run / "stage1/last.pt", settings()
    save_checkpoint(path, {"stage": "stage1", "config": to_dict(config), "modules": {"decoder": {}}})
    with pytest.raises(CheckpointError, match="must be of encoder, generator, discriminator, got 'decoder'"):
        networks_of(path)


def test_an_encoder_is_given_ready_to_be_used(run: Path) -> None:
    encoder, size = encoder_of(run / "stage1/last.pt")
    assert not encoder.training and size == (80, 40)
