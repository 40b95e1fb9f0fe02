"""The shipped recipes against what the methods' public code says, and how recipes, files and flags come together."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from gcl_fast.config import METHODS, TrainConfig, from_values, load_shipped, load_yaml, recipe, shipped, to_dict
from gcl_fast.config.method_recipes import RECIPES

CLUSTER_CONTRAST = {
    "precision": "fp32",
    "height": 256,
    "width": 128,
    "model": {"backbone": "resnet50", "weights": "imagenet", "variant": "act", "pooling": "gem", "norm_bias": "frozen"},
    "stage1": {
        "method": "cluster-contrast",
        "epochs": 50,
        "batch_size": 256,
        "num_instances": 16,
        "sampler": "multiple-gallery",
        "camera_aware": False,
        "lr": 0.00035,
        "weight_decay": 5e-4,
        "lr_steps": [20, 40],
        "lr_gamma": 0.1,
        "temperature": 0.05,
        "momentum": 0.1,
        "memory": "each",
        "cluster": {"k1": 30, "k2": 6, "eps": 0.6, "rho": None, "min_samples": 4, "debias_cameras": False},
        "augment": {
            "flip": 0.5,
            "pad": 10,
            "erase": 0.5,
            "erase_largest": 0.4,
            "erase_fill": "released",
            "color_jitter": 0,
            "crop_smallest": 1,
            "rotation": 0,
        },
        "eval_every": 10,
    },
}
MLC = {
    "precision": "fp32",
    "height": 256,
    "width": 128,
    "model": {"backbone": "resnet50", "weights": "imagenet", "variant": "mlc", "pooling": "avg", "norm_bias": "learned"},
    "stage1": {
        "method": "mlc",
        "eval_every": 1,
        "augment": {
            "flip": 0.5,
            "pad": 0,
            "erase": 0.5,
            "erase_largest": 0.2,
            "erase_fill": "released",
            "color_jitter": 0.2,
            "crop_smallest": 0.64,
            "rotation": 10,
        },
        "mlc": {
            "epochs": 60,
            "iters": 0,
            "batch_size": 128,
            "lr": 0.1,
            "backbone_lr": 0.1,
            "sgd_momentum": 0.9,
            "weight_decay": 5e-4,
            "lr_steps": [40],
            "lr_gamma": 0.1,
            "camstyle": True,
            "memory_start": "zeros",
            "threshold": 0.6,
            "min_neighbors": 10,
            "walk": "released",
            "first_epoch": 0,
            "single_label_epochs": 5,
            "freeze_norm_bias": False,
            "positive_weight": 5.0,
            "hard_share": 0.01,
            "momentum": 0.5,
            "momentum_epochs": 60,
            "test_feature": "before-norm",
        },
    },
}
JVTC = {
    "precision": "fp32",
    "height": 256,
    "width": 128,
    "model": {"backbone": "resnet50", "weights": "imagenet", "variant": "jvtc", "pooling": "avg", "norm_bias": "learned"},
    "stage1": {
        "method": "jvtc",
        "augment": {
            "flip": 0.5,
            "pad": 0,
            "erase": 0.5,
            "erase_largest": 0.2,
            "erase_fill": "released",
            "color_jitter": 0,
            "crop_smallest": 1,
            "rotation": 0,
        },
        "jvtc": {
            "epochs": 100,
            "iters": 0,
            "batch_size": 128,
            "views": 4,
            "lr": 0.1,  # base_lr 0.01, ten times that for new layers
            "backbone_lr": 0.1,
            "sgd_momentum": 0.9,
            "weight_decay": 5e-4,
            "lr_steps": [39, 79],  # epoch 40 and 80, counted from 1
            "lr_gamma": 0.1,
            "camstyle": True,
            "local_temperature": 0.1,
            "global_temperature": 0.05,
            "global_weight": 0.2,
            "target_norm": "l1",
            "global_from": 10,
            "label_every": 5,
            "temporal_from": 30,
            "bin_frames": 100,
            "smooth_bins": 50,
            "within_camera": "released",
            "momentum_step": 0.01,
            "momentum_max": 0.8,
            "renormalise": False,
            "euclidean_share": 0.3,
            "joint_share": 0.5,
            "eps_scale": 0.8,
            "cluster": {"k1": 21, "k2": 6, "rho": 1.6e-3, "min_samples": 1, "debias_cameras": False},
        },
    },
}
GCL = {
    "yaws": [45, 90, 135, 180, 225, 270],
    "model": {"guide": "mesh", "generator_width": 16, "generator_mlp": 512, "discriminator_width": 32},
    "stage2": {
        "epochs": 40,
        "iters": 0,
        "batch_size": 16,
        "lr": 1e-4,
        "beta1": 0,
        "beta2": 0.999,
        "weight_decay": 5e-4,
        "lr_steps": [],
        "loss": {"adversarial": 1, "image": 5, "code": 5, "penalty": 0.01, "mixup_alpha": 0.6},
    },
    "stage3": {
        "epochs": 20,
        "iters": 0,
        "batch_size": 16,
        "lr": 1e-4,
        "beta1": 0,
        "beta2": 0.999,
        "weight_decay": 5e-4,
        "lr_steps": [10],
        "lr_steps_encoder": [10],
        "lr_gamma": 0.1,
        "lr_encoder": 0.00035,
        "momentum_encoder": 0.9,
        "running_stats": "all",
        "loss": {"adversarial": 1, "image": 5, "code": 5, "penalty": 0.01, "mixup_alpha": 0.6},
        "memory_w": 1,
        "temperature": 0.04,
        "bank_momentum": 0.2,
        "num_negatives": 8192,
        "cluster": {"k1": 30, "k2": 6, "eps": 0.55, "rho": None, "min_samples": 4, "debias_cameras": False},
        "eval_every": 1,
    },
}
DATASETS = {"market": "market1501", "duke": "dukemtmc", "msmt17": "msmt17"}
MSMT17_JVTC = {
    "stage1": {
        "jvtc": {"bin_frames": 1, "renormalise": True, "joint_share": 0.3, "per_recording": True, "recording_rho": 1.6e-3 * 3}
    }
}


def merged(*tables: dict[str, Any]) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for table in tables:
        for key, value in table.items():
            result[key] = merged(result.get(key, {}), value) if isinstance(value, dict) else value
    return result


def published(name: str, data: str) -> dict[str, Any]:
    of_data = {"dataset": DATASETS[data]}
    if name == "cluster_contrast":
        return merged(CLUSTER_CONTRAST, of_data, {"stage1": {"iters": 400 if data == "msmt17" else 200}})
    tables = {"mlc": (MLC,), "jvtc": (JVTC,), "gcl": (JVTC, GCL)}[name]
    return merged(*tables, of_data, MSMT17_JVTC if data == "msmt17" and name != "mlc" else {})


def differences(config: dict[str, Any], table: dict[str, Any], where: str = "") -> list[str]:
    found = []
    for key, value in table.items():
        if isinstance(value, dict):
            found += differences(config[key], value, f"{where}{key}.")
        elif config[key] != pytest.approx(value) if isinstance(value, float) else config[key] != value:
            found.append(f"{where}{key}: {config[key]!r}, published {value!r}")
    return found


@pytest.mark.parametrize("data", DATASETS)
@pytest.mark.parametrize("name", ["cluster_contrast", "mlc", "jvtc", "gcl"])
def test_a_recipe_says_what_the_code_says(name, data):
    assert differences(to_dict(load_shipped(f"{name}_{data}")), published(name, data)) == []


@pytest.mark.parametrize("data", DATASETS)
@pytest.mark.parametrize("name", ["cluster_contrast", "mlc", "jvtc", "gcl"])
def test_every_line_of_a_recipe_has_its_source(name, data):
    from gcl_fast.config import config_dir

    sections = ("model:", "stage1:", "stage2:", "stage3:", "augment:", "mlc:", "jvtc:")
    for line in (config_dir() / f"{name}_{data}.yaml").read_text().splitlines():
        plain = line.strip()
        if (
            plain
            and not plain.startswith(("#", "dataset:", "name:", "method: mlc", "method: jvtc", "method: cluster"))
            and plain not in sections
        ):
            assert "  # " in line, line


@pytest.mark.parametrize(("data", "method"), [(d, m) for d in DATASETS for m in METHODS])
def test_a_data_set_with_a_method_trains_by_the_methods_recipe(data, method):
    """Names of before keep working: --dataset with --method gives the recipe, but for precision and what only its file sets."""
    name = method.replace("-", "_")
    table = published(name, data)
    del table["precision"]
    table["stage1"].pop("eval_every", None)
    assert differences(to_dict(load_shipped(DATASETS[data], method=method)), table) == []


def test_defaults_of_the_method_sections_are_the_published_ones():
    for method, table in (("cluster-contrast", CLUSTER_CONTRAST), ("mlc", MLC), ("jvtc", JVTC)):
        table = merged(table)
        del table["precision"], table["model"]["weights"]
        table["stage1"].pop("eval_every", None)
        assert differences(to_dict(recipe(method)), table) == []
    assert TrainConfig().stage1 == recipe("cluster-contrast").stage1


def test_a_written_setting_wins_over_the_recipe(tmp_path: Path):
    file = tmp_path / "mine.yaml"
    file.write_text("model: {pooling: avg}\nstage1: {method: mlc, augment: {rotation: 3}}\n")
    config = load_yaml(file)
    assert (config.model.variant, config.model.pooling) == ("mlc", "avg")
    assert (config.stage1.augment.rotation, config.stage1.augment.crop_smallest) == (3.0, 0.64)
    other = load_yaml(file, method="jvtc")
    assert (other.stage1.method, other.model.variant, other.stage1.augment.rotation) == ("jvtc", "jvtc", 3.0)
    assert other.stage1.augment.crop_smallest == 1.0


def test_recommended_has_what_is_better_than_published():
    config = load_shipped("recommended")
    assert config.stage1.cluster.debias_cameras and config.stage3.cluster.debias_cameras
    assert config.stage3.running_stats == "real" and config.precision == "auto" and 315 in config.yaws
    assert config.stage1.jvtc.target_norm == "l2"
    assert config.stage1.mlc == load_shipped("mlc_market").stage1.mlc  # better as published
    assert config.model.weights == "imagenet" and config.model.pooling == "gem"
    assert config.stage1.memory == "hard" and config.model.guide == "texture" and config.stage3.variance.background == 0.5


def test_every_data_set_asks_for_pretrained_weights():
    for name in shipped():
        assert load_shipped(name).model.weights == ("none" if name == "demo" else "imagenet"), name


STORED = Path(__file__).parent / "fixtures" / "config_26a14f4.json"


def test_the_demo_is_what_it_was():
    """Its encoder and stage 1 as before the recipes, but shorter; MLC's rate, single-label epochs and bias are mended."""
    parts = ("height", "width", "precision", "stage1")
    before, now = (
        {
            **{key: config[key] for key in parts},
            **{key: config["model"][key] for key in ("variant", "pooling", "norm_bias", "backbone")},
        }
        for config in (to_dict(from_values(json.loads(STORED.read_text()))), to_dict(load_shipped("demo")))
    )
    shorter = {"epochs": 14, "lr_steps": [10, 12], "eval_every": 7}
    assert {key: list(v) if isinstance(v := now["stage1"].pop(key), tuple) else v for key in shorter} == shorter
    for key in shorter:
        before["stage1"].pop(key)
    mended = {"lr": 0.02, "single_label_epochs": 6, "freeze_norm_bias": True}
    assert {key: now["stage1"]["mlc"].pop(key) for key in mended} == mended
    for key in mended:
        before["stage1"]["mlc"].pop(key)
    assert now == before
    for method in METHODS:
        assert load_shipped("demo", method=method) == dataclasses.replace(
            load_shipped("demo"), stage1=dataclasses.replace(load_shipped("demo").stage1, method=method)
        )


def test_a_run_of_before_the_recipes_keeps_its_settings(tmp_path: Path):
    """A configuration that was written in full lacks the new settings: they are as they were, not as the recipes have them."""
    stored = json.loads(STORED.read_text())
    config = from_values(stored)
    assert (config.model.variant, config.model.pooling, config.stage1.sampler) == ("jvtc", "avg", "random")
    assert (config.stage1.jvtc.target_norm, config.stage1.mlc.walk) == ("l2", "mutual")
    assert config.stage1.augment.erase_fill == "mean"
    assert from_values(to_dict(recipe("mlc"))) == recipe("mlc")  # one of today has them
    file = tmp_path / "config.yaml"
    file.write_text(json.dumps(stored))
    assert load_yaml(file) == config


def test_a_recipe_sets_nothing_that_another_leaves_behind():
    """Switching methods must not leave half of another's recipe."""
    for values in RECIPES.values():
        assert set(values["model"]) == {"variant", "pooling", "norm_bias"} and {"flip", "pad", "erase"} <= set(
            values["stage1"]["augment"]
        )
