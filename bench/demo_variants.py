"""The demo's stage 3 under other settings, over several seeds: what does each choice of demo.yaml bring?

    .venv/bin/python bench/demo_variants.py --seeds 1 2 3 --out bench/results/demo_variants.json

Each variant begins where the demo of its seed stood (--demos, as bench/demo_seeds.py leaves them) and makes as many updates as
the demo did; the control and the scores as shipped are the demo's own. A variant that is finished in --runs is read, not
repeated, and the file is written after each. --round-bf16: bfloat16's numbers on a processor without units for it
(bf16_numbers.py).
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import mean, stdev

import torch
from provenance import command, commit, device_name

from gcl_fast.config import TrainConfig, VarianceConfig, to_dict
from gcl_fast.files import write_whole
from gcl_fast.runs.folder import read_metrics
from gcl_fast.runs.synthetic_demo import demo_config
from gcl_fast.runs.training import train
from gcl_fast.stages.checkpoint import load_checkpoint, save_checkpoint

KEEP = ("mAP", "rank1", "novel_view_psnr", "novel_view_psnr_body", "novel_view_ssim")


def with_stage3(**changes: object) -> Callable[[TrainConfig], TrainConfig]:
    return lambda config: replace(config, stage3=replace(config.stage3, **changes))


@dataclass(frozen=True)
class Variant:
    what: str
    change: Callable[[TrainConfig], TrainConfig]
    begins_after: int = 2  # the demo's stage from which it goes on
    control: bool = False  # trained anew under these settings too
    against: str = "shipped"  # whose control it is compared with, where it has none


def of_last_weights(what: str, change: Callable[[TrainConfig], TrainConfig], begins_after: int = 2) -> Variant:
    """Measured without the average of the encoder's weights, which the demo has had since."""
    return Variant(
        f"last weights, {what}", lambda c: change(with_stage3(average_encoder=0.0)(c)), begins_after, against="last_weights"
    )


VARIANTS = {
    "unturned": Variant(
        "no new views: the photo painted again, not turned, nothing varied",
        lambda c: replace(with_stage3(variance=VarianceConfig())(c), yaws=(0,)),
    ),
    "last_weights": Variant(
        "last weights of the encoder, not their average", with_stage3(average_encoder=0.0), begins_after=1, control=True
    ),
    "mesh": of_last_weights(
        "model.guide mesh from stage 2 on, nothing varied but the turn",
        lambda c: replace(with_stage3(variance=VarianceConfig())(c), model=replace(c.model, guide="mesh")),
        begins_after=1,
    ),
    "turn_alone": of_last_weights("nothing varied but the turn", with_stage3(variance=VarianceConfig())),
    "all_variance": of_last_weights(
        "colour, occluder and crop 0.3 each, beside background 0.5",
        with_stage3(variance=VarianceConfig(background=0.5, colour=0.3, occluder=0.3, crop=0.3)),
    ),
    "running_stats_all": of_last_weights("stage3.running_stats all, as published", with_stage3(running_stats="all")),
    "yaws_published": of_last_weights("turns without 315 degrees, as published", lambda c: replace(c, yaws=c.yaws[:-1])),
    "bf16": Variant("all in bfloat16", lambda c: replace(c, precision="bf16"), begins_after=1, control=True),
}


def run_variant(name: str, seed: int, options: argparse.Namespace) -> dict[str, dict[str, float]]:
    """Scores of stage 2 and 3 (and of the control), trained unless they are there."""
    variant, demo = VARIANTS[name], options.demos / f"seed{seed}"
    config = variant.change(replace(demo_config(seed, demo), precision=options.precision))
    config = replace(
        config, device=options.device, runs=str(options.runs), name=f"{name}_{seed}", picture_every=1000, tensorboard=False
    )
    if "stage3" not in read_metrics(config.run_dir):
        stages = tuple(range(variant.begins_after + 1, 4))
        if variant.control:  # goes on in a folder that holds stage 1, under these settings
            stages = (1, *stages)
            state = load_checkpoint(demo / "stage1" / "last.pt")
            state["config"] = to_dict(config)
            for file in ("last.pt", "best.pt"):
                save_checkpoint(config.run_dir / "stage1" / file, state)
        else:
            config = replace(config, init=str(demo / f"stage{variant.begins_after}" / "last.pt"))
        train(config, stages, resume=True, control=variant.control)
    metrics = read_metrics(config.run_dir)
    return {part: kept(metrics[part]) for part in ("stage2", "stage3", "control") if part in metrics}


def kept(scores: dict[str, float]) -> dict[str, float]:
    return {name: round(float(scores[name]), 4) for name in KEEP if name in scores}


def controls_of(name: str, found: dict[str, dict]) -> dict[str, dict[str, float]]:
    """By seed, what the variant of this name is compared with."""
    against = VARIANTS[name].against if name in VARIANTS else "shipped"
    return {seed: run["control"] for seed, run in found[against].items()}


def gains(controls: dict[str, dict[str, float]], runs: dict[str, dict]) -> dict[str, float]:
    """Points of mAP of stage 3 over the control of the same precision, by seed; mean and standard deviation."""
    points = {
        seed: round(100 * (run["stage3"]["mAP"] - run.get("control", controls[seed])["mAP"]), 2) for seed, run in runs.items()
    }
    spread = {"mean": round(mean(points.values()), 2), "stdev": round(stdev(points.values()), 2)} if len(points) > 1 else {}
    return points | spread


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--variants", nargs="+", choices=list(VARIANTS), default=list(VARIANTS))
    parser.add_argument("--device", default="auto")
    parser.add_argument("--precision", choices=["auto", "fp32", "bf16"], default="auto", help="as the demos were made")
    parser.add_argument("--demos", type=Path, default=Path("runs/demo_seeds"))
    parser.add_argument("--runs", type=Path, default=Path("runs/demo_variants"))
    parser.add_argument("--out", type=Path, default=Path("bench/results/demo_variants.json"))
    parser.add_argument("--round-bf16", action="store_true", help="round products to bfloat16 where the processor has no units")
    parser.add_argument("--note", default="", help="how the runs were made, where not one after the other by this command")
    options = parser.parse_args()
    if options.round_bf16:
        import bf16_numbers  # noqa: F401
    demos = {str(seed): read_metrics(options.demos / f"seed{seed}") for seed in options.seeds}
    shipped = {seed: {part: kept(m[part]) for part in ("stage2", "stage3", "control")} for seed, m in demos.items()}
    head = {
        "command": command(),
        "commit": commit(),
        "device": device_name(options.device),
        "torch": torch.__version__,
        "note": options.note,
        "variants": {name: VARIANTS[name].what for name in options.variants},
    }
    found: dict[str, dict] = {"shipped": shipped}
    for name in options.variants:
        for seed in options.seeds:
            found.setdefault(name, {})[str(seed)] = run_variant(name, seed, options)
            over = {variant: gains(controls_of(variant, found), runs) for variant, runs in found.items()}
            write_whole(options.out, json.dumps({**head, "points_over_control": over, "runs": found}, indent=2) + "\n")
            print(f"{name} seed {seed}: {found[name][str(seed)]}", flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
