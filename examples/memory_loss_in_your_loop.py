"""The memory losses in a training loop of your own: GCL's instance memory by ops, Cluster Contrast's by a drop-in module.

    python examples/memory_loss_in_your_loop.py --steps 200

Data is random: points about a few centres stand for images of a few people, two noisy copies for a photo and its new view.
"""

from __future__ import annotations

import argparse

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from gcl_fast import ops
from gcl_fast.compat import ClusterMemory

PEOPLE, EACH, WIDTH = 20, 16, 32  # N = 320 images


def instance_memory(network: nn.Module, images: Tensor, labels: Tensor, index: Tensor, bank: Tensor, seed: int) -> Tensor:
    """GCL: photo and new view against a bank with a row per image; the bank then moves towards the photo's feature."""
    photo, view = (network(images[index] + 0.3 * torch.randn(len(index), WIDTH)) for _ in range(2))  # [B, D] each
    terms = ops.gcl_memory_loss(photo, view, bank, labels, index, temperature=0.04, num_negatives=128, seed=seed)
    ops.bank_update_(bank, index, normalize(photo.detach(), dim=1), momentum=0.2)  # in place
    return terms.sum()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    torch.manual_seed(0)
    torch.set_default_device(options.device)

    labels = torch.arange(PEOPLE).repeat_interleave(EACH)  # in earnest: ops.dbscan(ops.jaccard_distance(features), ...)
    images = torch.randn(PEOPLE, WIDTH)[labels] + torch.randn(len(labels), WIDTH)
    network = nn.Sequential(nn.Linear(WIDTH, 64), nn.ReLU(), nn.Linear(64, 64))
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)

    with torch.no_grad():  # both memories start from the features as they are
        features = normalize(network(images), dim=1)
    bank = features.clone()  # [N, D], a row per image
    clusters = ClusterMemory(features.shape[1], PEOPLE, temp=0.05, momentum=0.2)  # a row per cluster
    clusters.features = normalize(torch.stack([features[labels == person].mean(0) for person in range(PEOPLE)]), dim=1)

    for step in range(options.steps):
        index = torch.randperm(len(labels))[:64]
        memory = instance_memory(network, images, labels, index, bank, seed=step)
        contrast = clusters(network(images[index]), labels[index])  # its memory moves in the backward
        optimizer.zero_grad()
        (memory + contrast).backward()
        optimizer.step()
        if step % max(1, options.steps // 5) == 0 or step == options.steps - 1:
            print(f"step {step:4d}: instance memory {memory.item():.3f}, cluster memory {contrast.item():.3f}")

    with torch.no_grad():
        _, nearest = ops.knn(network(images), 2)
    print(f"nearest neighbour is the same person: {(labels[nearest[:, 1]] == labels).float().mean():.0%}")


if __name__ == "__main__":
    main()
