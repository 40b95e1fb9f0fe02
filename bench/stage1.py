"""The three stage-1 methods at demo size over several seeds: does each beat an untrained network, do stages 2 and 3 run on?

    .venv/bin/python bench/stage1.py --seeds 1 2 3 --out bench/results/stage1.json

The world and the networks are the demo's (configs/demo.yaml); the schedules below show each method about 12,000 images, far
fewer than the published ones (Market-1501, 60 epochs: 776,000), with every epoch number in proportion.
Stages 2 and 3 follow on the first seed, --joint iterations each (0: not at all): they
show that training goes on from each method, not what it could reach. A finished run in --runs is read, not repeated.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path

import torch

from gcl_fast.config import TrainConfig, load_shipped
from gcl_fast.runs.folder import read_metrics
from gcl_fast.runs.resolved import processor
from gcl_fast.runs.synthetic_demo import WORLD
from gcl_fast.runs.training import train
from gcl_fast.synthetic import write_world

METHODS = {"cluster-contrast": "act", "mlc": "mlc", "jvtc": "jvtc"}  # each with another head of the encoder
NOTE = (
    "The demo's world and networks (ResNet-18 of half width, 96x48, from random weights, no camera-styled images) and "
    "schedules of about 12,000 images, far from the published ones: they show that each method learns, not which is best. "
    "mAP and rank-1 are on people not trained on. untrained differs between the methods since their encoders have other heads."
)
SHORT = {
    "cluster-contrast": {"epochs": 6, "lr_steps": (4,)},
    "mlc": {
        "epochs": 16,
        "batch_size": 64,
        "lr": 0.05,
        "backbone_lr": 1.0,
        "lr_steps": (12,),
        "single_label_epochs": 4,
        "momentum_epochs": 16,
    },
    "jvtc": {
        "epochs": 8,
        "iters": 12,
        "batch_size": 128,
        "lr": 0.02,
        "lr_steps": (6,),
        "global_from": 3,
        "label_every": 1,
        "temporal_from": 5,
        "momentum_step": 0.1,
    },
}


def one_config(method: str, seed: int, runs: Path, joint: int) -> TrainConfig:
    demo = load_shipped("demo")
    stage1 = replace(demo.stage1, method=method, eval_every=100)
    if method == "cluster-contrast":
        stage1 = replace(stage1, **SHORT[method])
    else:
        stage1 = replace(stage1, **{method: replace(getattr(stage1, method), **SHORT[method])})
    return replace(
        demo,
        name=f"{method}_seed{seed}",
        runs=str(runs),
        root=str(runs / f"world{seed}"),
        seed=seed,
        model=replace(demo.model, variant=METHODS[method]),
        stage1=stage1,
        tensorboard=False,
        stage2=replace(demo.stage2, epochs=1, iters=max(joint, 1), lr_steps=()),
        stage3=replace(demo.stage3, epochs=1, iters=max(joint, 1), lr_steps=()),
    )


def schedule(method: str, runs: Path) -> dict:
    stage1 = asdict(one_config(method, 1, runs, 0).stage1)
    mlc, jvtc = stage1.pop("mlc"), stage1.pop("jvtc")
    return {"mlc": mlc, "jvtc": jvtc}.get(method, stage1)


def one_run(method: str, seed: int, runs: Path) -> dict:
    config = one_config(method, seed, runs, 0)
    if not (config.run_dir / "report.html").exists():
        write_world(Path(config.root), layout="market1501", image_size=config.image_size, seed=seed, **WORLD)
        train(config, (1,), resume=True)
    metrics = read_metrics(config.run_dir)
    return {name: metrics[name] for name in ("untrained", "stage1", "times")}


def going_on(method: str, seed: int, runs: Path, joint: int) -> dict:
    """Stages 2 and 3, `joint` iterations each, from what stage 1 left."""
    first = one_config(method, seed, runs, 0)
    init = str(first.run_dir / "stage1" / "last.pt")
    config = replace(one_config(method, seed, runs, joint), name=f"{method}_joint", init=init)
    if not (config.run_dir / "report.html").exists():
        train(config, (2, 3), resume=True)
    metrics = read_metrics(config.run_dir)
    return {
        "seed": seed,
        "iterations": joint,
        "stage3": metrics["stage3"],
        **{f"{stage}_novel_view_psnr": metrics[stage]["novel_view_psnr"] for stage in ("stage2", "stage3")},
    }


def write(out: Path, result: dict) -> None:
    """After every run: what is done stays, if the rest is stopped."""
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(result, indent=2) + "\n")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--methods", nargs="+", choices=list(METHODS), default=list(METHODS))
    parser.add_argument("--joint", type=int, default=20)
    parser.add_argument("--runs", type=Path, default=Path("runs/stage1"))
    parser.add_argument("--out", type=Path, default=Path("bench/results/stage1.json"))
    parser.add_argument("--note", default="", help="how the runs were made, where not one after the other by this command")
    options = parser.parse_args()
    describe = ["git", "describe", "--always", "--dirty"]
    commit = subprocess.run(describe, capture_output=True, text=True, check=False).stdout.strip()
    result = {
        "command": "python bench/stage1.py " + " ".join(a for a in sys.argv[1:] if not a.startswith("/")),
        "commit": commit,
        "device": f"{processor()}, {os.cpu_count()} cores, {torch.get_num_threads()} threads",
        "torch": torch.__version__,
        "note": f"{NOTE} {options.note}".strip(),
        "variants": METHODS,
        "schedules": {method: schedule(method, options.runs) for method in options.methods},
        "gain_in_mAP": {},
        "then_stages_2_and_3": {},
        "runs": {method: {} for method in options.methods},
    }
    for seed in options.seeds:
        for method in options.methods:
            metrics = one_run(method, seed, options.runs)
            result["runs"][method][str(seed)] = metrics
            gain = round(metrics["stage1"]["mAP"] - metrics["untrained"]["mAP"], 4)
            result["gain_in_mAP"].setdefault(method, {})[str(seed)] = gain
            print(f"{method} seed {seed}: {metrics['untrained']['mAP']:.3f} -> {metrics['stage1']['mAP']:.3f}", flush=True)
            write(options.out, result)
    for method in options.methods if options.joint else ():
        result["then_stages_2_and_3"][method] = going_on(method, options.seeds[0], options.runs, options.joint)
        write(options.out, result)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
