"""Stage 1 on all of Market-1501 on one GPU: 12,936 photos without labels at 256x128, scored on 3,368 queries and 15,913 images.

    python bench/market1501_stage1.py --data MARKET --labels recommended --seed 1 --out FILE

MARKET is the folder Market-1501-v15.09.15 (research only, not to be passed on: this command fetches nothing). The network is
EfficientNet-Lite0 from ImageNet, whose weights a package brings; every other setting is that of
configs/cluster_contrast_market.yaml but for what `whole` changes. --labels recommended: debias_cameras, and the hardest image of
each class in the memory.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import replace
from pathlib import Path

import torch
from provenance import command, commit, device_name

from gcl_fast.config import TrainConfig, load_shipped, to_dict
from gcl_fast.files import write_whole
from gcl_fast.report.run_data import read_history
from gcl_fast.runs.dataset import OpenedDataset
from gcl_fast.runs.folder import read_metrics
from gcl_fast.runs.networks import build_networks
from gcl_fast.runs.training import train

SCORES = ("mAP", "rank1", "rank5", "rank10", "mINP")


def whole(options: argparse.Namespace) -> TrainConfig:
    base = load_shipped("cluster_contrast_market")
    stage = replace(
        base.stage1,
        epochs=options.epochs,
        iters=options.iters,
        batch_size=options.batch,
        num_instances=8,
        lr_steps=(options.epochs // 2, options.epochs * 5 // 6),
        eval_every=10,
    )
    if options.labels == "recommended":
        stage = replace(stage, memory="hard", cluster=replace(stage.cluster, debias_cameras=True))
    return replace(
        base,
        name=f"market_{options.labels}_{options.seed}",
        root=str(options.data),
        runs=str(options.runs),
        seed=options.seed,
        device=options.device,
        precision="auto",
        eval_batch_size=256,
        tensorboard=False,
        picture_every=1000,
        model=replace(base.model, backbone="efficientnet_lite0"),
        stage1=stage,
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--labels", choices=("published", "recommended"), default="recommended")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--iters", type=int, default=200)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--runs", type=Path, default=Path("runs"))
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()

    config = whole(options)
    opened = OpenedDataset(config, with_meshes=False)
    untrained = opened.score(build_networks(config).encoder.to(opened.device))
    began = time.perf_counter()
    train(config, (1,), resume=True)
    seconds = time.perf_counter() - began
    gpu = opened.device.type == "cuda"
    result = {
        "command": command(),
        "commit": commit(),
        "device": device_name(opened.device),
        "torch": torch.__version__,
        "peak_bytes": torch.cuda.max_memory_allocated(opened.device) if gpu else None,
        "seconds": round(seconds, 1),
        "untrained": {name: untrained[name] for name in SCORES},
        "scores": {name: read_metrics(config.run_dir)["stage1"][name] for name in SCORES},
        "history": read_history(config.run_dir / "history.jsonl"),
        "settings": {key: value for key, value in to_dict(config).items() if key not in ("root", "runs", "mesh_root", "init")},
    }
    write_whole(options.out, json.dumps(result, indent=1) + "\n")
    print({name: round(value, 4) for name, value in result["scores"].items()}, f"{seconds:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
