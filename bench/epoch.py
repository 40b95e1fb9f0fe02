"""One whole epoch of stage 3 on a synthetic world: features and pseudo-labels, all batches, evaluation.

"native" is what `gcl-fast train` runs. "reference" does the same work the usual way: the torch loader that decodes each time, the
plain step, the dense Jaccard distance with scikit-learn's DBSCAN, scores by sorting. Pictures that `cached` keeps were decoded
by the check and the warm-up: an epoch is timed as every epoch but the first runs. With each number: seconds of its three parts
and of waiting for the loader within the second (`breakdown`).
"""

from __future__ import annotations

import atexit
import importlib.util
import shutil
import tempfile
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from types import ModuleType

import numpy as np
import torch
from torch import Tensor

from gcl_fast import ops
from gcl_fast.config import TrainConfig, from_dict
from gcl_fast.evaluation import extract_features
from gcl_fast.pseudo_labels import centroids
from gcl_fast.runs.dataset import OpenedDataset
from gcl_fast.runs.networks import build_networks
from gcl_fast.stages.joint import JointStage
from gcl_fast.synthetic import write_world

OP = "epoch"
CHECK = "the same features give the same pseudo-labels and, within 1e-4, the same mAP; losses: see bench/step.py"
IMPLEMENTATIONS = ("native", "reference")
QUICK = {"images": [64], "size": [(80, 40)], "backbone": ["resnet18"]}
FULL = {"images": [384], "size": [(96, 48)], "backbone": ["resnet18"]}
if torch.cuda.is_available():
    FULL = {"images": [960], "size": [(256, 128)], "backbone": ["resnet50"]}
PER_ID, K1, K2 = 8, 10, 3


def beside(name: str) -> ModuleType:
    """Another bench of this folder, whose usual ways are the baseline here too."""
    spec = importlib.util.spec_from_file_location(f"bench_{name}", Path(__file__).with_name(f"{name}.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


neighbors, ranking, step = map(beside, ("neighbors", "ranking", "step"))


@cache
def world(images: int, size: tuple[int, int]) -> Path:
    root = Path(tempfile.mkdtemp(prefix="gcl_bench_"))
    atexit.register(shutil.rmtree, root, ignore_errors=True)
    people = images // PER_ID
    write_world(
        root / "data",
        num_train_ids=people,
        num_test_ids=max(people // 2, 16),
        images_per_id=PER_ID,
        image_size=size,
        novel_views=False,
    )
    return root / "data"


class Epoch:
    """Opens the world and runs epochs one way."""

    def __init__(self, implementation: str, case: dict, device: torch.device) -> None:
        plain = implementation == "reference"
        small = {"width": 16, "generator_width": 4, "generator_mlp": 32, "discriminator_width": 8}
        model = {"backbone": case["backbone"], **(small if case["backbone"] == "resnet18" else {})}
        self.config = from_dict(
            TrainConfig,
            {
                "root": str(world(case["images"], case["size"])),
                "height": case["size"][0],
                "width": case["size"][1],
                "model": model,
                "device": str(device),
                "workers": 0,
                "loader": "torch" if plain else "cached",
                **({"precision": "fp32", "channels_last": "off", "compile": "off"} if plain else {}),
                "stage3": {
                    "batch_size": 16,
                    "cluster": {"k1": K1, "k2": K2, "eps": 0.6, "min_samples": 2, "debias_cameras": False},
                },
            },
        )
        self.plain, self.device, self.seconds = plain, device, {}
        self.dataset = OpenedDataset(self.config, with_meshes=True)
        self.stage = JointStage(self.config, build_networks(self.config), self.dataset)
        self.updates = 0

    def __call__(self) -> None:
        """One epoch: features, labels, updates, scores."""
        stage, clock = self.stage, time.perf_counter
        begin = clock()
        stage.enter_epoch(0)
        if self.plain:
            stage.memory.features.copy_(self.dataset.features(stage.encoder))
            labels = usual_labels(stage.memory.features, self.config)
            stage.memory.labels.copy_(labels)
            stage.centers = centroids(stage.memory.features, stage.memory.labels)
            plan = stage.plan_of(np.flatnonzero(labels.numpy() >= 0), 0)
        else:
            plan = stage.plan_epoch(0)
        labelled, waited = clock(), 0.0
        batches = iter(stage.batches(plan, 0, 0))
        for _ in plan:
            asked = clock()
            batch = next(batches).to(self.device, memory_format=stage.memory_format)
            waited += clock() - asked
            update = step.stepper("reference", stage, batch) if self.plain else (lambda b=batch: stage.step(b, self.updates))
            update()
            self.updates += 1
        trained = clock()
        if self.plain:
            usual_scores(self.dataset, stage.encoder)
        else:
            stage.score()
        done = clock()
        self.seconds = {
            "features and labels": labelled - begin,
            "updates": trained - labelled,
            "of them waiting for data": waited,
            "evaluation": done - trained,
        }


def usual_labels(features: Tensor, config: TrainConfig) -> Tensor:
    from sklearn.cluster import DBSCAN

    rule, x = config.stage3.cluster, features.cpu()
    rank = (x @ x.T).topk(rule.k1, dim=1).indices.numpy()
    distance = neighbors.usual_jaccard(x.numpy(), rank, rule.k1, rule.k2)
    labels = DBSCAN(eps=rule.eps, min_samples=rule.min_samples, metric="precomputed").fit_predict(distance.clip(0))
    return torch.from_numpy(labels.astype(np.int64))


def held_out(dataset: OpenedDataset, encoder: torch.nn.Module) -> list[Tensor]:
    """Query and gallery features, then their people and cameras."""
    sides = dataset.data.query, dataset.data.gallery
    features = [
        extract_features(
            encoder, loader, len(records), batch_size=dataset.config.eval_batch_size, device=dataset.device, amp=dataset.bf16
        )
        for loader, records in zip(dataset.test_loaders(), sides, strict=True)
    ]
    return [*features, *(torch.tensor([getattr(r, field) for r in records]) for field in ("pid", "camera") for records in sides)]


def usual_scores(dataset: OpenedDataset, encoder: torch.nn.Module) -> float:
    return ranking.official(*held_out(dataset, encoder))[0]


def check(case: dict, device: torch.device) -> None:
    epoch = Epoch("native", case, device)
    features, rule = epoch.dataset.features(epoch.stage.encoder), epoch.config.stage3.cluster
    got = ops.dbscan(ops.jaccard_distance(features, rule.k1, rule.k2), rule.eps, rule.min_samples)
    assert torch.equal(got.cpu(), usual_labels(features, epoch.config)) and int(got.max()) > 0
    inputs = held_out(epoch.dataset, epoch.stage.encoder)
    assert abs(ops.rank_metrics(*inputs).mAP - ranking.official(*inputs)[0]) <= 1e-4


def call(implementation: str, case: dict, device: torch.device) -> Callable[[], object]:
    return Epoch(implementation, case, device)


def test_epoch(case, implementation, device, measure, benchmark) -> None:
    epochs: list[Epoch] = []
    measure(lambda run: epochs.append(run))
    benchmark.extra_info["images_per_second"] = round(case["images"] / benchmark.stats["median"], 3)
    benchmark.extra_info["breakdown"] = {name: round(value, 4) for name, value in epochs[0].seconds.items()}
