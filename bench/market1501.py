"""Market-1501 measured on a small machine: three stages from plain photos, beside a control and a plain PyTorch baseline.

    .venv/bin/python bench/market1501.py --data MARKET --people 100 --test-people 100 --seeds 1 \
        --out bench/results/market1501_small.json
    .venv/bin/python bench/market1501.py --data MARKET --published --seeds 1 2 3 --out FILE        # with a GPU

MARKET is the folder Market-1501-v15.09.15 (research only, not to be passed on: this command fetches nothing). --people N trains
on the first N people alone, --test-people N scores on the first N people of query and gallery; the part `full` scores what is
trained on all of both. A part that is finished in --runs is read, not repeated, and the file is written after each, so a stopped
command goes on when repeated; several may share --runs, each with other --parts.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import json
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from statistics import mean, stdev

import torch
from plain_cluster_contrast import train_plainly
from provenance import command, commit, device_name

from gcl_fast import distributed
from gcl_fast.config import ClusterConfig, LossConfig, TrainConfig, VarianceConfig, load_shipped, to_dict
from gcl_fast.data.datasets.load import load_dataset
from gcl_fast.estimation import BlazePose, estimate_meshes, pose_weights
from gcl_fast.files import write_whole
from gcl_fast.progress import counting
from gcl_fast.records import ReIDData
from gcl_fast.runs.dataset import OpenedDataset
from gcl_fast.runs.device import choose_device
from gcl_fast.runs.folder import read_metrics
from gcl_fast.runs.networks import build_networks
from gcl_fast.runs.training import Training
from gcl_fast.stages.checkpoint import load_checkpoint, save_checkpoint

PUBLISHED_COUNTS = {"train": (12936, 751), "query": (3368, 750), "gallery": (15913, 751)}
SPLITS = ("bounding_box_train", "query", "bounding_box_test")
STARTS = {"imagenet": ("efficientnet_lite0", 64), "random": ("resnet18", 32)}
PARTS = ("untrained", "stage1", "published", "baseline", "texture", "control", "mesh", "full")
NOTE = (
    "A small network, 128x64 pictures, some hundred updates on some of the people: it shows that the chain runs on "
    "real photos and which way its parts push, not what it reaches. The paper's figures are of a ResNet-50 at 256x128 "
    "and tens of thousands of updates: not comparable. published: stage 1 without debias_cameras, every image moving its "
    "centroid, as Cluster Contrast is published. baseline: plain_cluster_contrast.py, the same as published (network, start, "
    "images, updates, labels) in plain PyTorch. control: stage 1 continued by as many updates of the encoder as stage 3 "
    "makes; stage 3 and it are scored with the average of the last twenty updates or so. full: scores on all "
    "3,368 queries and 15,913 gallery images; the others on the people that tested_on names."
)


def small(start: str) -> TrainConfig:
    """Settings that two CPU cores can do; ours are those of recommended.yaml but for sizes and lengths."""
    base, (backbone, width) = load_shipped("recommended"), STARTS[start]
    weights = "imagenet" if start == "imagenet" else "none"
    rule = ClusterConfig(k1=20, k2=6, eps=0.6, min_samples=4, debias_cameras=True)
    loss = LossConfig(adversarial=0.1, code=1.0)
    return replace(
        base,
        height=128,
        width=64,
        precision="fp32",
        workers=0,
        channels_last="on",
        tensorboard=False,
        model=replace(
            base.model,
            backbone=backbone,
            width=width,
            weights=weights,
            generator_width=8,
            generator_mlp=128,
            discriminator_width=8,
        ),
        stage1=replace(
            base.stage1,
            epochs=8,
            iters=50,
            batch_size=32,
            num_instances=4,
            lr_steps=(6,),
            cluster=rule,
            augment=replace(base.stage1.augment, pad=5),
            eval_every=1000,
        ),
        stage2=replace(base.stage2, epochs=1, iters=60, batch_size=8, lr=5e-4, beta1=0.5, loss=loss),
        stage3=replace(
            base.stage3,
            epochs=4,
            iters=25,
            batch_size=8,
            lr=1e-4,
            beta1=0.5,
            lr_steps=(3,),
            loss=replace(loss, code=5.0),
            average_encoder=0.95,  # of the last twenty updates or so, in stage 3 and its control
            cluster=rule,
            eval_every=1000,
        ),
        picture_every=1000,
    )


def settings(options: argparse.Namespace, start: str, seed: int, guide: str) -> TrainConfig:
    config = load_shipped("recommended") if options.published else small(start)
    variance = VarianceConfig(background=0.5) if guide == "texture" else VarianceConfig()
    return replace(
        config,
        name=f"{start}_{seed}_{guide}",
        runs=str(options.runs),
        root=str(options.runs / "data"),
        mesh_root=str(options.meshes or options.runs / "mesh"),
        seed=seed,
        model=replace(config.model, guide=guide),
        stage3=replace(config.stage3, variance=variance),
    )


def view_of(data: Path, people: int, test_people: int, folder: Path) -> Path:
    """A data set of links: the first people of the training set, and of query and gallery without distractors; 0: all."""
    names = {split: [p.name for p in sorted((data / split).glob("*.jpg"))] for split in SPLITS}
    for split, first, whose in zip(
        SPLITS, (people, test_people, test_people), ("bounding_box_train", "query", "query"), strict=True
    ):
        (folder / split).mkdir(parents=True, exist_ok=True)
        known = sorted({name.split("_")[0] for name in names[whose]})[: first or None]
        chosen = {name for name in names[split] if not first or name.split("_")[0] in known}
        there = {link.name for link in (folder / split).iterdir()}
        if there - chosen:
            raise SystemExit(f"{folder / split} holds other images than are asked for: name another --runs")
        for name in sorted(chosen - there):
            with contextlib.suppress(FileExistsError):  # another command with the same --runs was quicker
                (folder / split / name).symlink_to((data / split / name).resolve())
    return folder


def counts(data: ReIDData) -> dict[str, object]:
    found = {name: (split.images, split.identities) for name, split in data.statistics().items()}
    return {"found": found, "as_published": found == PUBLISHED_COUNTS}


def meshes(data: ReIDData, folder: Path, device: str) -> dict[str, object]:
    """Bodies of the training images, those that are not there yet."""
    began, cpu = time.perf_counter(), time.process_time()
    with counting("estimate meshes") as progress:
        estimator = BlazePose(pose_weights(), choose_device(device))
        report = estimate_meshes(data, estimator, mesh_root=folder, splits=("train",), progress=progress)
    made, seconds, cpu_seconds = len(report.written), time.perf_counter() - began, time.process_time() - cpu
    cost = {"wall_ms_an_image": seconds, "cpu_ms_an_image": cpu_seconds} if made else {}
    names = {record.path.stem for record in data.train}
    with (folder / "market" / "train" / "doubts.csv").open(encoding="utf-8") as file:
        doubts = Counter(row["doubt"] for row in csv.DictReader(file) if row["image"] in names)
    return {
        "images": len(data.train),
        "doubtful": dict(doubts.most_common()),
        "doubtful_share": round(sum(doubts.values()) / len(data.train), 4),
        "estimated_by_this_call": made,
        **{name: round(1000 * spent / made, 1) for name, spent in cost.items()},
    }


def in_training(config: TrainConfig, stages: tuple[int, ...], what: Callable[[Training], None]) -> None:
    """Without the report and the pictures that `gcl-fast train` ends with: they show people."""
    with distributed.session(choose_device(config.device)):
        training = Training(config, stages, resume=True, overwrite=False)
        try:
            what(training)
            training.log.close()
        finally:
            training.close()


def generate_and_learn(training: Training) -> None:
    training.stage2()
    training.stage3()


TRAINED: dict[str, tuple[tuple[int, ...], str, Callable[[Training], None]]] = {
    "stage1": ((1,), "stage1", Training.stage1),
    "published": ((1,), "stage1", Training.stage1),
    "control": ((1,), "control", Training.control),
    "texture": ((2, 3), "stage3", generate_and_learn),
    "mesh": ((2, 3), "stage3", generate_and_learn),
}


def run_part(part: str, options: argparse.Namespace, start: str, seed: int) -> dict[str, object]:
    """Scores of one part, and its cost."""
    if part == "full":
        return full_scores(options, start, seed)
    config = settings(options, start, seed, "mesh" if part == "mesh" else "texture")
    began, cpu = time.perf_counter(), time.process_time()
    extra: dict[str, object] = {}
    if part in ("untrained", "baseline"):
        opened = OpenedDataset(config, with_meshes=False)
        encoder = build_networks(config).encoder.to(opened.device)
        if part == "baseline":
            extra["clusters"] = train_plainly(encoder, config, opened)
            save_checkpoint(plain_weights(options, start, seed), {"modules": {"encoder": encoder.state_dict()}})
        scores = opened.score(encoder)
    else:
        if part == "mesh":
            config = replace(config, init=str(options.runs / f"{start}_{seed}_texture" / "stage1" / "last.pt"))
        if part == "published":
            rule = replace(config.stage1.cluster, debias_cameras=False)
            stage1 = replace(config.stage1, cluster=rule, memory="each")
            config = replace(config, name=f"{start}_{seed}_published", stage1=stage1)
        stages, stage, steps = TRAINED[part]
        in_training(config, stages, steps)
        scores = read_metrics(config.run_dir)[stage]
        extra["clusters"] = clusters_of(config.run_dir, stage)
    cost = {"seconds": round(time.perf_counter() - began, 1), "cpu_seconds": round(time.process_time() - cpu, 1)}
    return {**kept(scores), **extra, **cost}


def kept(scores: dict[str, float]) -> dict[str, float]:
    return {name: round(float(scores[name]), 4) for name in ("mAP", "rank1", "rank5", "rank10", "mINP")}


def plain_weights(options: argparse.Namespace, start: str, seed: int) -> Path:
    return options.runs / f"{start}_{seed}_baseline" / "encoder.pt"


def full_scores(options: argparse.Namespace, start: str, seed: int) -> dict[str, object]:
    """Of each encoder whose part is finished by now, on the whole test set; what an earlier call scored is kept."""
    before = options.runs / "parts" / f"{start}_{seed}_full.json"
    scores = json.loads(before.read_text(encoding="utf-8")) if before.is_file() else {}
    config = settings(options, start, seed, "texture")
    opened = OpenedDataset(replace(config, root=str(options.data)), with_meshes=False)
    encoder = build_networks(config).encoder.to(opened.device)
    if "untrained" not in scores:
        scores["untrained"] = kept(opened.score(encoder))
    runs = {
        "stage1": "texture/stage1",
        "published": "published/stage1",
        "texture": "texture/stage3",
        "control": "texture/control",
        "mesh": "mesh/stage3",
    }
    states = {part: options.runs / f"{start}_{seed}_{place}" / "last.pt" for part, place in runs.items()}
    states["baseline"] = plain_weights(options, start, seed)
    for part, path in states.items():
        finished_part = (before.parent / f"{start}_{seed}_{part}.json").is_file()  # not a run that was cut short
        if finished_part and path.is_file() and part not in scores:
            encoder.load_state_dict(load_checkpoint(path)["modules"]["encoder"])
            scores[part] = kept(opened.score(encoder))
    return scores


def clusters_of(run_dir: Path, stage: str) -> list[int]:
    """The number of clusters in each epoch."""
    lines = [json.loads(line) for line in (run_dir / "history.jsonl").read_text(encoding="utf-8").splitlines()]
    return [int(line["clusters"]) for line in lines if line.get("stage") == stage and "clusters" in line]


def finished(runs: Path) -> dict[str, dict]:
    """What lies in <runs>/parts, by start, seed and part."""
    found: dict[str, dict] = {}
    for path in sorted((runs / "parts").glob("*.json")):
        start, seed, part = path.stem.split("_")
        found.setdefault(start, {}).setdefault(seed, {})[part] = json.loads(path.read_text(encoding="utf-8"))
    return found


def differences(found: dict[str, dict]) -> dict[str, dict]:
    """Points of mAP, by seed: what each part has over what it is compared with, on the people of tested_on and on all."""
    pairs = {
        "stage1_over_untrained": ("stage1", "untrained"),
        "stage1_over_published": ("stage1", "published"),
        "published_over_baseline": ("published", "baseline"),
        "texture_over_control": ("texture", "control"),
        "mesh_over_control": ("mesh", "control"),
        "texture_over_mesh": ("texture", "mesh"),
    }
    tables: dict[str, dict] = {}
    for start, seeds in found.items():
        for where in ("", "_full"):
            scores = {seed: parts.get("full", {}) if where else parts for seed, parts in seeds.items()}
            for name, (one, other) in pairs.items():
                both = {seed: s for seed, s in scores.items() if one in s and other in s}
                points = {seed: round(100 * (s[one]["mAP"] - s[other]["mAP"]), 2) for seed, s in both.items()}
                if len(points) > 1:
                    points |= {"mean": round(mean(points.values()), 2), "stdev": round(stdev(points.values()), 2)}
                if points:
                    tables.setdefault(start, {})[name + where] = points
    return tables


def write(options: argparse.Namespace, head: dict[str, object]) -> None:
    """After every part: what is done stays, if the rest is stopped."""
    found = finished(options.runs)
    result = {**head, "points_of_mAP": differences(found), "runs": found}
    write_whole(options.out, json.dumps(result, indent=2) + "\n")


def head_of(options: argparse.Namespace, full: ReIDData, data: ReIDData) -> dict[str, object]:
    configs = {
        start: to_dict(settings(options, start, 1, "texture"))
        for start in options.starts
        if not options.published or start == "imagenet"
    }
    for config in configs.values():
        for key in ("root", "mesh_root", "runs", "name", "seed", "init"):
            del config[key]
    return {
        "command": command(),
        "commit": commit(),
        "device": f"{device_name(options.device)}, {torch.get_num_threads()} threads",
        "torch": torch.__version__,
        "note": f"{NOTE} {options.note}".strip(),
        "counts": counts(full),
        "trained_on": {"people": len({record.pid for record in data.train}), "images": len(data.train)},
        "tested_on": {"people": len({r.pid for r in data.query}), "queries": len(data.query), "gallery": len(data.gallery)},
        "settings": configs,
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="Market-1501-v15.09.15")
    parser.add_argument("--people", type=int, default=0, help="train on the first so many; 0: all")
    parser.add_argument("--test-people", type=int, default=0, help="score on the first so many while training; 0: all")
    parser.add_argument("--published", action="store_true", help="the published size: ResNet-50, 256x128, full schedules")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1])
    parser.add_argument("--starts", nargs="+", choices=list(STARTS), default=["imagenet"])
    parser.add_argument("--parts", nargs="*", choices=list(PARTS), default=list(PARTS))
    parser.add_argument("--meshes", type=Path, help="where the meshes are or go; default <runs>/mesh")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--runs", type=Path, default=Path("runs/market1501"))
    parser.add_argument("--out", type=Path, default=Path("runs/market1501/result.json"))
    parser.add_argument("--note", default="", help="how the runs were made, where not one after the other by this command")
    options = parser.parse_args()
    full = load_dataset("market1501", options.data)
    data = load_dataset("market1501", view_of(options.data, options.people, options.test_people, options.runs / "data"))
    print(full.table())
    head = head_of(options, full, data)
    place = options.runs / "meshes.json"
    if {"texture", "mesh"} & set(options.parts) and not place.is_file():
        write_whole(place, json.dumps(meshes(data, options.meshes or options.runs / "mesh", options.device)))
    if place.is_file():
        head["meshes"] = json.loads(place.read_text(encoding="utf-8"))
    write(options, head)
    for seed in options.seeds:
        for start in options.starts:
            for part in options.parts:
                path = options.runs / "parts" / f"{start}_{seed}_{part}.json"
                if not path.is_file() or part == "full":
                    write_whole(path, json.dumps(run_part(part, options, start, seed)))
                print(f"{start} seed {seed} {part}: {path.read_text(encoding='utf-8')}", flush=True)
                write(options, head)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
