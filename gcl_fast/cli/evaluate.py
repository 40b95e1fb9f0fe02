"""gcl-fast evaluate: scores of a checkpoint on query and gallery."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

from gcl_fast.cli.options import parse, positional
from gcl_fast.config import TrainConfig


@dataclass
class EvaluateOptions:
    """Score the identity encoder of a checkpoint: mAP, CMC-1/5/10, mINP."""

    checkpoint: Annotated[Path, positional()]
    """A run's checkpoint (runs/NAME/stage3/last.pt) or its run folder (the last stage's is taken)."""
    dataset: str | None = None
    """Another data set than the one trained on."""
    root: str | None = None
    rerank: bool = False
    """Also score after k-reciprocal re-ranking (k1 20, k2 6, lambda 0.3)."""
    ranked_lists: Path | None = None
    """Write a picture of ranked lists here (PNG)."""
    output: Path | None = None
    """Write the scores here (JSON)."""
    device: str = "auto"


def find_checkpoint(path: Path, stages: tuple[str, ...] = ("stage3", "stage1")) -> Path:
    """The path itself, or the last stage's checkpoint in a run folder."""
    if path.is_dir():
        found = [path / stage / "last.pt" for stage in stages if (path / stage / "last.pt").exists()]
        if not found:
            raise FileNotFoundError(f"no checkpoint in {path}: expected {' or '.join(f'{s}/last.pt' for s in stages)}")
        return found[0]
    return path


def other_data(config: TrainConfig, dataset: str | None, root: str | None, device: str) -> TrainConfig:
    changes = {name: value for name, value in (("dataset", dataset), ("root", root)) if value is not None}
    if changes:
        changes["mesh_root"] = None
    if changes.get("dataset") not in (None, "market1501", "dukemtmc", "msmt17", "csv"):
        raise ValueError(f"--dataset must be market1501, dukemtmc, msmt17 or csv, got {dataset!r}")
    return replace(config, device=device, **changes)


def main(argv: list[str]) -> int:
    options = parse(EvaluateOptions, argv, prog="gcl-fast evaluate")

    from gcl_fast.runs.dataset import OpenedDataset
    from gcl_fast.runs.networks import networks_of
    from gcl_fast.runs.run_pictures import ranked_lists_picture

    config, networks, _ = networks_of(find_checkpoint(options.checkpoint))
    space = OpenedDataset(other_data(config, options.dataset, options.root, options.device), with_meshes=False)
    if not space.data.query or not space.data.gallery:
        raise ValueError(f"{config.dataset} at {config.root} has no query or gallery images to score on")
    print(space.data.table())
    encoder = networks.encoder.to(space.device)
    scores = {"plain": space.score(encoder)}
    if options.rerank:
        scores["reranked"] = space.score(encoder, rerank=True)
    for name, values in scores.items():
        values.pop("score", None)
        print(f"{name:9s} " + "  ".join(f"{k} {v:.2%}" for k, v in values.items()))
    if options.ranked_lists is not None:
        ranked_lists_picture(encoder, space, options.ranked_lists, f"{options.checkpoint}")
        print(f"ranked lists: {options.ranked_lists}")
    if options.output is not None:
        from gcl_fast.files import write_whole

        write_whole(options.output, json.dumps(scores, indent=2) + "\n")
    return 0
