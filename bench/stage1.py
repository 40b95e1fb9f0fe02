"""The three stage-1 methods at demo size over several seeds, each as published and as the demo trains it.

    .venv/bin/python bench/stage1.py --seeds 1 2 3 --out bench/results/stage1.json

published   head, sampler, augmentation, rates, losses and clustering of configs/<method>_market.yaml
demo        what configs/demo.yaml has for the method: the differences of configs/recommended.yaml, and the demo's head

Both see the demo's world with the demo's network from random weights (the published recipes start from ImageNet) and about
12,000 images (Market-1501, 60 epochs: 776,000), every epoch number in proportion. Stages 2 and 3 follow the demo's settings on
the first seed, --joint iterations each (0: not at all): they show that training goes on from each method, not what it could
reach. A finished run in --runs is read, not repeated.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict, replace
from pathlib import Path
from statistics import mean, stdev

import torch
from provenance import command, commit, device_name

from gcl_fast.config import Stage1Config, TrainConfig, load_shipped
from gcl_fast.runs.folder import read_metrics
from gcl_fast.runs.synthetic_demo import WORLD
from gcl_fast.runs.training import train
from gcl_fast.synthetic import write_world

METHODS = ("cluster-contrast", "mlc", "jvtc")
SETTINGS = ("published", "demo")
NOTE = (
    "The demo's world and network (ResNet-18 of half width, 96x48, no camera-styled images) from random weights, and schedules "
    "of about 12,000 images: far from what the published recipes were made for (ImageNet weights, 50 to 100 epochs of "
    "Market-1501). mAP and rank-1 are on people not trained on. untrained differs where the encoders have other heads."
)
# Schedules alone: each epoch number in proportion to the published or the demo's one.
SHORT: dict[str, dict[str, dict]] = {
    "published": {
        "cluster-contrast": {"epochs": 6, "iters": 30, "batch_size": 64, "num_instances": 4, "lr_steps": (2, 5)},
        "mlc": {"epochs": 16, "batch_size": 64, "lr_steps": (11,), "single_label_epochs": 1, "momentum_epochs": 16},
        "jvtc": {
            "epochs": 8,
            "iters": 12,
            "lr_steps": (3, 6),
            "global_from": 1,
            "label_every": 1,
            "temporal_from": 2,
            "momentum_step": 0.125,
        },
    },
    "demo": {
        "cluster-contrast": {"epochs": 6, "lr_steps": (4,)},
        "mlc": {"epochs": 16, "lr_steps": (12, 14), "single_label_epochs": 5, "momentum_epochs": 16},
        "jvtc": {
            "epochs": 8,
            "iters": 12,
            "lr_steps": (6, 7),
            "global_from": 2,
            "label_every": 1,
            "temporal_from": 4,
            "momentum_step": 0.1,
        },
    },
}


def shortened(stage1: Stage1Config, method: str, settings: str) -> Stage1Config:
    short = SHORT[settings][method]
    stage1 = replace(stage1, method=method, eval_every=100)
    if method == "cluster-contrast":
        return replace(stage1, **short)
    part = replace(getattr(stage1, method), **short)
    if method == "jvtc":  # 48 people instead of 751: a larger share of the pairs shows one person
        part = replace(part, cluster=replace(part.cluster, rho=0.02))
    return replace(stage1, **{method: part})


def one_config(settings: str, method: str, seed: int, runs: Path, joint: int, device: str = "auto") -> TrainConfig:
    demo = load_shipped("demo")
    model, stage1 = demo.model, demo.stage1
    if settings == "published":
        published = load_shipped(f"{method.replace('-', '_')}_market")
        head = published.model
        model = replace(model, variant=head.variant, pooling=head.pooling, norm_bias=head.norm_bias)
        stage1 = published.stage1
    return replace(
        demo,
        name=f"{settings}_{method}_seed{seed}",
        runs=str(runs),
        root=str(runs / f"world{seed}"),
        seed=seed,
        device=device,
        model=model,
        stage1=shortened(stage1, method, settings),
        tensorboard=False,
        stage2=replace(demo.stage2, epochs=1, iters=max(joint, 1), lr_steps=()),
        stage3=replace(demo.stage3, epochs=1, iters=max(joint, 1), lr_steps=()),
    )


def schedule(settings: str, method: str, runs: Path) -> dict:
    stage1 = asdict(one_config(settings, method, 1, runs, 0).stage1)
    mlc, jvtc = stage1.pop("mlc"), stage1.pop("jvtc")
    return {"mlc": mlc, "jvtc": jvtc}.get(method, stage1)


def one_run(settings: str, method: str, seed: int, runs: Path, device: str) -> dict:
    config = one_config(settings, method, seed, runs, 0, device)
    if not (config.run_dir / "report.html").exists():
        write_world(Path(config.root), layout="market1501", image_size=config.image_size, seed=seed, **WORLD)
        train(config, (1,), resume=True)
    metrics = read_metrics(config.run_dir)
    return {name: metrics[name] for name in ("untrained", "stage1", "times")}


def going_on(method: str, seed: int, runs: Path, joint: int, device: str) -> dict:
    """Stages 2 and 3, `joint` iterations each, from what stage 1 of the demo's settings left."""
    first = one_config("demo", method, seed, runs, 0)
    init = str(first.run_dir / "stage1" / "last.pt")
    config = replace(one_config("demo", method, seed, runs, joint, device), name=f"{method}_joint", init=init)
    if not (config.run_dir / "report.html").exists():
        train(config, (2, 3), resume=True)
    metrics = read_metrics(config.run_dir)
    return {
        "seed": seed,
        "iterations": joint,
        "stage3": metrics["stage3"],
        **{f"{stage}_novel_view_psnr": metrics[stage]["novel_view_psnr"] for stage in ("stage2", "stage3")},
    }


def table(runs: dict) -> dict[str, dict[str, dict[str, float]]]:
    """Per settings and method: mAP of the untrained encoder and after stage 1 in percent, mean and standard deviation over the
    seeds."""

    def over_seeds(metrics: dict, name: str) -> list[float]:
        return [100 * m[name]["mAP"] for m in metrics.values()]

    rows: dict[str, dict[str, dict[str, float]]] = {}
    for settings, methods in runs.items():
        for method, metrics in methods.items():
            if metrics:
                after = over_seeds(metrics, "stage1")
                rows.setdefault(settings, {})[method] = {
                    "untrained": round(mean(over_seeds(metrics, "untrained")), 1),
                    "stage1": round(mean(after), 1),
                    "stdev": round(stdev(after), 1) if len(after) > 1 else 0.0,
                    "seeds": len(after),
                }
    return rows


def write(out: Path, result: dict) -> None:
    """After every run: what is done stays, if the rest is stopped."""
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(result, indent=2) + "\n")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--settings", nargs="+", choices=SETTINGS, default=list(SETTINGS))
    parser.add_argument("--joint", type=int, default=20)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--runs", type=Path, default=Path("runs/stage1"))
    parser.add_argument("--out", type=Path, default=Path("bench/results/stage1.json"))
    parser.add_argument("--note", default="", help="how the runs were made, where not one after the other by this command")
    options = parser.parse_args()
    runs: dict[str, dict[str, dict]] = {settings: {method: {} for method in options.methods} for settings in options.settings}
    result: dict = {
        "command": command(),
        "commit": commit(),
        "device": f"{device_name(options.device)}, {torch.get_num_threads()} threads",
        "torch": torch.__version__,
        "note": f"{NOTE} {options.note}".strip(),
        "mAP": {},
        "then_stages_2_and_3": {},
        "schedules": {
            settings: {method: schedule(settings, method, options.runs) for method in options.methods}
            for settings in options.settings
        },
        "runs": runs,
    }
    for seed in options.seeds:
        for settings in options.settings:
            for method in options.methods:
                metrics = one_run(settings, method, seed, options.runs, options.device)
                runs[settings][method][str(seed)] = metrics
                result["mAP"] = table(runs)
                print(
                    f"{settings} {method} seed {seed}: {metrics['untrained']['mAP']:.3f} -> {metrics['stage1']['mAP']:.3f}",
                    flush=True,
                )
                write(options.out, result)
    for method in options.methods if options.joint and "demo" in options.settings else ():
        result["then_stages_2_and_3"][method] = going_on(method, options.seeds[0], options.runs, options.joint, options.device)
        write(options.out, result)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
