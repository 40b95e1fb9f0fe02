"""bench/demo_variants.py: what it changes in the demo's settings, and how it counts what that brings."""

from __future__ import annotations

from pathlib import Path

from bench.demo_variants import VARIANTS, gains
from gcl_fast.config import to_dict
from gcl_fast.runs.synthetic_demo import demo_config


def flat(settings: dict, above: str = "") -> dict[str, object]:
    lines: dict[str, object] = {}
    for key, value in settings.items():
        lines |= flat(value, f"{above}{key}.") if isinstance(value, dict) else {above + key: value}
    return lines


def test_each_variant_changes_what_it_says_alone(tmp_path: Path) -> None:
    demo = demo_config(1, tmp_path / "seed1")
    before = flat(to_dict(demo))
    changed = {
        name: sorted(key for key, value in flat(to_dict(variant.change(demo))).items() if value != before[key])
        for name, variant in VARIANTS.items()
    }
    assert changed == {
        "mesh": ["model.guide", "stage3.variance.background"],
        "turn_alone": ["stage3.variance.background"],
        "all_variance": ["stage3.variance.colour", "stage3.variance.crop", "stage3.variance.occluder"],
        "running_stats_all": ["stage3.running_stats"],
        "yaws_published": ["yaws"],
        "bf16": ["precision"],
    }
    assert 315 not in VARIANTS["yaws_published"].change(demo).yaws


def test_a_variant_with_its_own_control_is_counted_against_that() -> None:
    controls = {"1": {"mAP": 0.5}, "2": {"mAP": 0.6}}
    runs = {"1": {"stage3": {"mAP": 0.55}}, "2": {"stage3": {"mAP": 0.58}}}
    assert gains(controls, runs) == {"1": 5.0, "2": -2.0, "mean": 1.5, "stdev": 4.95}
    assert gains(controls, {"1": {**runs["1"], "control": {"mAP": 0.54}}}) == {"1": 1.0}
