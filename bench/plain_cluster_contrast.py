"""Cluster Contrast (Dai et al., ACCV 2022) in plain PyTorch, faiss and scikit-learn: the baseline of bench/market1501.py.

Nothing of the package's ops, loaders or stages is used: only the network that is trained, and its settings.
"""

from __future__ import annotations

import random
from collections.abc import Iterator

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from gcl_fast.config import TrainConfig
from gcl_fast.runs.dataset import OpenedDataset

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def jaccard_distances(features: np.ndarray, k1: int, k2: int) -> np.ndarray:
    """k-reciprocal Jaccard distances [N, N] (Zhong et al., CVPR 2017), of k1 neighbours with the image itself, as Cluster
    Contrast takes them (re-ranking takes one more). features [N, D], L2-normalised."""
    import faiss

    index = faiss.IndexFlatIP(features.shape[1])
    index.add(features)
    _, rank = index.search(features, k1)
    count, half = len(features), round(k1 / 2)

    def reciprocal(i: int, k: int) -> np.ndarray:
        near = rank[i, : k + 1]
        return near[(rank[near, : k + 1] == i).any(1)]

    wide = [reciprocal(i, k1) for i in range(count)]
    narrow = [reciprocal(i, half) for i in range(count)]
    weights = np.zeros((count, count), np.float32)
    for i in range(count):
        members = [wide[i]]
        for candidate in wide[i]:
            if len(np.intersect1d(narrow[candidate], wide[i])) > 2 / 3 * len(narrow[candidate]):
                members.append(narrow[candidate])
        members = np.unique(np.concatenate(members))
        closeness = np.exp(-(2 - 2 * features[members] @ features[i]))
        weights[i, members] = closeness / closeness.sum()
    weights = np.stack([weights[rank[i, :k2]].mean(0) for i in range(count)])
    distance = np.empty((count, count), np.float32)
    for i in range(count):
        columns = np.flatnonzero(weights[i])
        shared = np.minimum(weights[:, columns], weights[i, columns]).sum(1)
        distance[i] = 1 - shared / (2 - shared)
    return distance.clip(0)


def pseudo_labels(features: Tensor, k1: int, k2: int, eps: float, min_samples: int) -> np.ndarray:
    from sklearn.cluster import DBSCAN

    distance = jaccard_distances(features.numpy(), k1, k2)
    return DBSCAN(eps=eps, min_samples=min_samples, metric="precomputed").fit_predict(distance)


def batches(
    labels: np.ndarray, cameras: np.ndarray, people: int, instances: int, count: int, chance: random.Random
) -> Iterator[list[int]]:
    """`count` batches of people x instances images: one of a cluster, and others that other cameras saw where there are any."""
    members = {c: np.flatnonzero(labels == c).tolist() for c in range(labels.max() + 1)}
    queue: list[int] = []
    for _ in range(count):
        batch: list[int] = []
        while len(batch) < people * instances:
            if not queue:
                queue = chance.sample(list(members), len(members))
            own = members[queue.pop()]
            first = chance.choice(own)
            others = [i for i in own if cameras[i] != cameras[first]] or [i for i in own if i != first] or [first]
            more = (
                chance.sample(others, instances - 1) if len(others) >= instances - 1 else chance.choices(others, k=instances - 1)
            )
            batch += [first, *more]
        yield batch


class CentroidMemory:
    """One unit vector a cluster; each image moves its own after the step."""

    def __init__(self, features: Tensor, labels: np.ndarray, temperature: float, momentum: float) -> None:
        means = [features[torch.from_numpy(labels == c)].mean(0) for c in range(labels.max() + 1)]
        self.centroids = F.normalize(torch.stack(means), dim=1)
        self.temperature, self.momentum = temperature, momentum

    def loss(self, feature: Tensor, cluster: Tensor) -> Tensor:
        return F.cross_entropy(F.normalize(feature, dim=1) @ self.centroids.T / self.temperature, cluster)

    def update(self, feature: Tensor, cluster: Tensor) -> None:
        for row, c in zip(F.normalize(feature.detach(), dim=1), cluster.tolist(), strict=True):
            moved = self.momentum * self.centroids[c] + (1 - self.momentum) * row
            self.centroids[c] = moved / moved.norm()


def train_plainly(encoder: nn.Module, config: TrainConfig, opened: OpenedDataset) -> list[int]:
    """Trains the encoder with the sizes and lengths of config.stage1, labels as published (no debiasing of cameras). Returns the
    number of clusters in each epoch."""
    from torchvision import transforms as T

    stage, rule, size, device = config.stage1, config.stage1.cluster, config.image_size, opened.device
    records = opened.data.train
    cameras = np.array([record.camera for record in records])
    plain = [T.ToTensor(), T.Normalize(MEAN, STD)]
    resize = T.Resize(size, interpolation=T.InterpolationMode.BICUBIC)
    fill = MEAN if stage.augment.erase_fill == "released" else 0
    erasing = T.RandomErasing(stage.augment.erase, scale=(0.02, stage.augment.erase_largest), value=fill)
    changes = [T.RandomHorizontalFlip(stage.augment.flip), T.Pad(stage.augment.pad), T.RandomCrop(size)]
    transform, still = T.Compose([*changes, *plain, erasing]), T.Compose(plain)
    pictures = [resize(Image.open(record.path).convert("RGB")) for record in records]
    optimizer = torch.optim.Adam(encoder.parameters(), lr=stage.lr, weight_decay=stage.weight_decay)
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, list(stage.lr_steps), stage.lr_gamma)
    chance = random.Random(config.seed)
    torch.manual_seed(config.seed)
    found = []
    for _ in range(stage.epochs):
        encoder.eval()
        with torch.no_grad():
            parts = [
                encoder(torch.stack([still(p) for p in pictures[first : first + 64]]).to(device))[1].cpu()
                for first in range(0, len(pictures), 64)
            ]
        features = F.normalize(torch.cat(parts), dim=1)
        labels = pseudo_labels(features, rule.k1, rule.k2, rule.eps, rule.min_samples)
        found.append(int(labels.max()) + 1)
        if found[-1] < 2:
            raise SystemExit(f"baseline: {found[-1]} clusters of {len(labels)} images at eps {rule.eps}")
        memory = CentroidMemory(features.to(device), labels, stage.temperature, stage.momentum)
        encoder.train()
        people = stage.batch_size // stage.num_instances
        for batch in batches(labels, cameras, people, stage.num_instances, stage.iters, chance):
            image = torch.stack([transform(pictures[i]) for i in batch]).to(device)
            cluster = torch.from_numpy(labels[batch]).to(device)
            feature = encoder(image)[1]
            loss = memory.loss(feature, cluster)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            memory.update(feature, cluster)
        schedule.step()
    return found
