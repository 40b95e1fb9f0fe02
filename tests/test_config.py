"""Configuration: strict, typed, and named in every error."""

from __future__ import annotations

import json
import typing
from pathlib import Path

import pytest

from gcl_fast import constants
from gcl_fast.config import JVTCConfig, TrainConfig, from_dict, load_shipped, load_yaml, shipped, to_dict
from gcl_fast.errors import ConfigError


def test_published_defaults():
    config = TrainConfig()
    assert (config.stage2.epochs, config.stage2.batch_size, config.stage2.lr, config.stage2.beta1) == (40, 16, 1e-4, 0.0)
    assert (config.stage3.epochs, config.stage3.lr_steps, config.stage3.temperature) == (20, (10,), 0.04)
    assert (config.stage3.num_negatives, config.stage3.bank_momentum, config.stage3.id_w) == (8192, 0.2, 1.0)
    loss = config.stage3.loss
    assert (loss.adversarial, loss.image, loss.code, loss.penalty, loss.mixup_alpha) == (1.0, 5.0, 5.0, 0.01, 0.6)
    assert loss.foreground == 0
    assert config.yaws == (45, 90, 135, 180, 225, 270, 315)


def test_published_warmups():
    mlc, jvtc = TrainConfig().stage1.mlc, TrainConfig().stage1.jvtc
    assert (mlc.threshold, mlc.min_neighbors, mlc.single_label_epochs) == (0.6, 10, 5)
    assert (mlc.positive_weight, mlc.hard_share) == (5.0, 0.01)
    assert (mlc.momentum, mlc.momentum_epochs, mlc.epochs) == (0.5, 60, 60)
    assert (jvtc.views, jvtc.local_temperature, jvtc.global_temperature, jvtc.global_weight) == (4, 0.1, 0.05, 0.2)
    assert (jvtc.global_from, jvtc.label_every, jvtc.temporal_from) == (10, 5, 30)
    assert (jvtc.momentum_step, jvtc.momentum_max) == (0.01, 0.8)
    assert (jvtc.cluster.rho, jvtc.cluster.min_samples, jvtc.eps_scale) == (1.6e-3, 1, 0.8)


def test_every_shipped_file_loads():
    assert {"market1501", "dukemtmc", "msmt17", "csv", "demo"} <= set(shipped())
    for name in shipped():
        assert isinstance(load_shipped(name), TrainConfig)
    assert load_shipped("msmt17").stage1.cluster.eps == 0.6


def test_round_trip():
    config = load_shipped("demo")
    assert from_dict(TrainConfig, to_dict(config)) == config


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"stage1": {"lrr": 1}}, ["stage1.lrr", "stage1.lr"]),
        ({"sed": 1}, ["sed", "seed"]),
        ({"stage1": {"lr": "fast"}}, ["stage1.lr", "a number", "fast"]),
        ({"stage1": {"batch_size": 10, "num_instances": 4}}, ["batch_size", "multiple", "4", "10"]),
        ({"stage1": {"jvtc": {"view": 3}}}, ["stage1.jvtc.view", "stage1.jvtc.views"]),
        ({"stage1": {"jvtc": {"batch_size": 10}}}, ["stage1.jvtc.batch_size", "multiple of views=4", "10"]),
        ({"stage1": {"mlc": {"hard_share": 2.0}}}, ["stage1.mlc.hard_share", "a share, 0 to 1", "2.0"]),
        ({"stage1": {"jvtc": {"batch_size": 4}}}, ["stage1.jvtc.batch_size", "views of two images at least (8)", "4"]),
        ({"stage1": {"jvtc": {"momentum_max": 2.0}}}, ["stage1.jvtc.momentum_max", "a share, 0 to 1", "2.0"]),
        ({"stage1": {"momentum": 1.5}}, ["stage1.momentum", "a share, 0 to 1", "1.5"]),
        ({"stage1": {"mlc": {"momentum": 2.0}}}, ["stage1.mlc.momentum", "a share, 0 to 1", "2.0"]),
        ({"stage1": {"augment": {"flip": 3.0}}}, ["stage1.augment.flip", "a share, 0 to 1", "3.0"]),
        ({"stage1": {"augment": {"rotation": 200.0}}}, ["stage1.augment.rotation", "0 to 180", "200.0"]),
        ({"stage3": {"cluster": {"rho": 2.0}}}, ["stage3.cluster.rho", "a share, 0 to 1", "2.0"]),
        ({"stage3": {"bank_momentum": 1.5}}, ["stage3.bank_momentum", "a share, 0 to 1", "1.5"]),
        ({"stage2": {"beta1": 1.0}}, ["stage2.beta1", "below 1", "1.0"]),
        ({"stage1": {"method": "spcl"}}, ["stage1.method", "jvtc", "spcl"]),
        ({"stage1": {"memory": "soft"}}, ["stage1.memory", "hard", "mean", "soft"]),
        ({"model": {"backbone": "vit"}}, ["model.backbone", "resnet50", "vit"]),
        ({"stage3": {"lr": 0}}, ["lr", "above 0"]),
        *(({"stage3": {name: -0.1}}, [name, "at least 0", "-0.1"]) for name in ("momentum_encoder", "memory_w", "id_w")),
        ({"stage1": {"lr": float("inf")}}, ["stage1.lr", "finite", "inf"]),
        ({"stage1": {"lr": "nan"}}, ["stage1.lr", "finite", "nan"]),
        ({"seed": 2**63}, ["seed", "below 2^63"]),
        ({"stage2": 3}, ["stage2", "section"]),
        ({"seed": True}, ["seed", "whole number", "True"]),
        ({"yaws": []}, ["yaws", "at least one"]),
        ({"stage1": {"lr_steps": [20, -1]}}, ["stage1.lr_steps", "epochs of at least 1", "-1"]),
        ({"stage1": {"mlc": {"lr_steps": [0]}}}, ["stage1.mlc.lr_steps", "epochs of at least 1"]),
        ({"stage2": {"lr_steps": [0]}}, ["stage2.lr_steps", "epochs of at least 1"]),
        ({"stage3": {"lr_steps_encoder": [-2]}}, ["stage3.lr_steps_encoder", "epochs of at least 1"]),
        ({"height": 130}, ["height", "multiples of 4"]),
    ],
)
def test_bad_values_are_named(values, words):
    with pytest.raises(ConfigError) as error:
        from_dict(TrainConfig, values)
    for word in words:
        assert word in str(error.value)


def test_numbers_as_yaml_reads_them(tmp_path):
    file = tmp_path / "c.yaml"
    file.write_text("stage3: {lr: 1e-4, lr_steps: [3, 5]}\nstage1: {lr: 1}\n")
    config = load_yaml(file)
    assert config.stage3.lr == 1e-4 and config.stage3.lr_steps == (3, 5) and config.stage1.lr == 1.0


def test_file_errors_name_the_file(tmp_path):
    with pytest.raises(ConfigError, match="nowhere.yaml"):
        load_yaml(tmp_path / "nowhere.yaml")
    bad = tmp_path / "bad.yaml"
    bad.write_text("a: [1\n")
    with pytest.raises(ConfigError, match="bad.yaml is not valid YAML"):
        load_yaml(bad)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("stage1: {lr: 1}\nseed: 2\nstage1: {epochs: 3}\n", "line 3: stage1 stands there once more, after line 1"),
        ("stage1:\n  cluster: {eps: 0.5, k1: 6, eps: 0.6}\n", "line 2: eps stands there once more"),
        ("yaws: " + "[" * 5000, "recursion"),
    ],
)
def test_what_no_file_may_hold(tmp_path, text, words):
    file = tmp_path / "c.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=f"c.yaml is not valid YAML: .*{words}"):
        load_yaml(file)


def test_anchors_are_no_repetition(tmp_path):
    file = tmp_path / "c.yaml"
    file.write_text("stage2: &one {epochs: 2}\nstage3:\n  <<: *one\n  epochs: 5\n")
    config = load_yaml(file)
    assert config.stage2.epochs == 2 and config.stage3.epochs == 5


def test_amp_of_earlier_files_is_precision_today(tmp_path):
    for word, precision in (("bf16", "bf16"), ("off", "fp32"), ("auto", "auto")):  # YAML 1.1 reads off as false
        file = tmp_path / f"{word}.yaml"
        file.write_text(f"amp: {word}\n")
        assert load_yaml(file).precision == precision


CHECKPOINT = Path(__file__).parent / "fixtures" / "config_26a14f4.json"  # of a checkpoint that commit 26a14f4 wrote of the demo


def test_settings_in_checkpoints_of_commit_26a14f4_load():
    stored = json.loads(CHECKPOINT.read_text())
    config = from_dict(TrainConfig, stored)

    def kept(before: dict, now: dict) -> bool:
        return all(kept(v, now[k]) if isinstance(v, dict) else now[k] == v for k, v in before.items())

    assert kept(stored, to_dict(config))


def test_settings_that_an_older_checkpoint_lacks_take_their_defaults():
    stored = json.loads(CHECKPOINT.read_text())
    for key in ("sync_bn", "channels_last", "init"):
        del stored[key]
    del stored["stage3"]["running_stats"], stored["stage1"]["jvtc"]
    config = from_dict(TrainConfig, stored)
    assert config.sync_bn is False and config.stage3.running_stats == "all" and config.stage1.jvtc == JVTCConfig()
    assert config.stage3.epochs == stored["stage3"]["epochs"] == 10


def test_values_over_a_base_change_only_what_they_name():
    base = load_shipped("demo")
    config = from_dict(TrainConfig, {"stage1": {"cluster": {"eps": 0.3}}}, base=base)
    assert config.stage1.cluster.eps == 0.3 and config.stage1.cluster.k1 == base.stage1.cluster.k1 == 20
    assert config.stage2 == base.stage2 and base.stage1.cluster.eps == 0.5


def test_names_and_angles_have_one_home():
    assert typing.get_type_hints(TrainConfig)["dataset"] is constants.DatasetName
    assert TrainConfig().yaws == constants.NOVEL_YAWS
