"""bench/demo_variants.py: what it changes in the demo's settings, and how it counts what that brings."""

from __future__ import annotations

from pathlib import Path

import pytest

from gcl_fast.config import to_dict
from gcl_fast.runs.synthetic_demo import demo_config
from tests.module_files import bench_module


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch):
    """The module, which finds its neighbours as a script does."""
    return bench_module("demo_variants", monkeypatch)


def flat(settings: dict, above: str = "") -> dict[str, object]:
    lines: dict[str, object] = {}
    for key, value in settings.items():
        lines |= flat(value, f"{above}{key}.") if isinstance(value, dict) else {above + key: value}
    return lines


def test_each_variant_changes_what_it_says_alone(bench, tmp_path: Path) -> None:
    demo = demo_config(1, tmp_path / "seed1")
    before = flat(to_dict(demo))
    changed = {
        name: sorted(key for key, value in flat(to_dict(variant.change(demo))).items() if value != before[key])
        for name, variant in bench.VARIANTS.items()
    }
    assert changed == {
        "unturned": ["stage3.variance.background", "yaws"],
        "last_weights": ["stage3.average_encoder"],
        "mesh": ["model.guide", "stage3.average_encoder", "stage3.variance.background"],
        "turn_alone": ["stage3.average_encoder", "stage3.variance.background"],
        "all_variance": ["stage3.average_encoder", "stage3.variance.colour", "stage3.variance.crop", "stage3.variance.occluder"],
        "running_stats_all": ["stage3.average_encoder", "stage3.running_stats"],
        "yaws_published": ["stage3.average_encoder", "yaws"],
        "bf16": ["precision"],
    }
    assert 315 not in bench.VARIANTS["yaws_published"].change(demo).yaws


def test_a_variant_with_its_own_control_is_counted_against_that(bench) -> None:
    controls = {"1": {"mAP": 0.5}, "2": {"mAP": 0.6}}
    runs = {"1": {"stage3": {"mAP": 0.55}}, "2": {"stage3": {"mAP": 0.58}}}
    assert bench.gains(controls, runs) == {"1": 5.0, "2": -2.0, "mean": 1.5, "stdev": 4.95}
    assert bench.gains(controls, {"1": {**runs["1"], "control": {"mAP": 0.54}}}) == {"1": 1.0}
    found = {"shipped": {"1": {"control": {"mAP": 0.5}}}, "last_weights": {"1": {"control": {"mAP": 0.4}}}}
    assert bench.controls_of("mesh", found) == {"1": {"mAP": 0.4}}
    assert bench.controls_of("bf16", found) == bench.controls_of("shipped", found) == {"1": {"mAP": 0.5}}
