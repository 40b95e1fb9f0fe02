"""gcl-fast generate: what the generator makes of photos and meshes."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from gcl_fast.cli.evaluate import find_checkpoint, other_data
from gcl_fast.cli.options import parse, positional


@dataclass
class GenerateOptions:
    """Write reconstructions, novel views at given angles, or identity mixes of test images."""

    checkpoint: Annotated[Path, positional()]
    """A run's checkpoint of stage 2 or 3, or its run folder."""
    what: Literal["reconstruction", "novel", "mix"] = "novel"
    warp: bool = False
    """No generator: the photos' own pixels carried to the angles by their meshes (needs vertices)."""
    angles: tuple[float, ...] = (45, 90, 135, 180, 225, 270, 315)
    """Turns in degrees; any angle where mesh vertices are there."""
    num: int = 8
    split: Literal["train", "query", "gallery"] = "query"
    out: Path = Path("generated")
    dataset: str | None = None
    root: str | None = None
    device: str = "auto"
    seed: int = 0
    scores: Path | None = None
    """Also score all images of the split and write here (JSON): PSNR and SSIM of reconstructions, FID with --fid-weights."""
    fid_weights: str | None = None
    """Inception weights for the FID of the novel views: a file, or 'download' to fetch them."""


def write_scores(options, config, networks, space, meshes, fid) -> str:
    """Scores of the whole split, as a line and as a file."""
    from gcl_fast.files import write_whole
    from gcl_fast.generation import score_generated
    from gcl_fast.progress import counting

    with counting("score generated images") as progress:
        found = score_generated(
            networks.encoder,
            networks.generator,
            getattr(space.data, options.split),
            meshes,
            config.image_size,
            space.device,
            yaws=options.angles,
            fid=fid,
            progress=progress,
        )
    write_whole(options.scores, json.dumps({**found, "split": options.split, "angles": list(options.angles)}, indent=2) + "\n")
    return "  ".join(f"{name} {value:.4g}" for name, value in found.items())


def main(argv: list[str]) -> int:
    options = parse(GenerateOptions, argv, prog="gcl-fast generate")

    from gcl_fast.generation import FrechetDistance, draw_records, generate_pictures, warp_pictures
    from gcl_fast.runs.dataset import OpenedDataset
    from gcl_fast.runs.networks import networks_of

    if options.fid_weights is not None and options.scores is None:
        raise ValueError("--fid-weights needs --scores FILE.json, where the FID is written")
    path = find_checkpoint(options.checkpoint, ("stage3", "stage2", *(("stage1",) if options.warp else ())))
    config, networks, state = networks_of(path)
    if "generator" not in state["modules"] and not options.warp:
        raise ValueError(f"{path} has no generator: it is a checkpoint of {state['stage']}; give one of stage 2 or 3")
    space = OpenedDataset(other_data(config, options.dataset, options.root, options.device), with_meshes=True)
    meshes = space.train_meshes if options.split == "train" else space.test_meshes
    if meshes is None:
        raise ValueError(f"no meshes for the {options.split} images under {space.config.mesh_dir}")
    records = getattr(space.data, options.split)
    if options.warp:
        sheet = warp_pictures(
            draw_records(records, options.num, options.seed),
            meshes,
            options.out,
            angles=options.angles,
            image_size=config.image_size,
            device=space.device,
        )
        print(f"photos and their warped views: {sheet}")
        return 0
    fid = FrechetDistance(options.fid_weights, device=space.device) if options.fid_weights is not None else None
    written = generate_pictures(
        networks.encoder.to(space.device),
        networks.generator.to(space.device),
        records,
        meshes,
        options.out,
        what=options.what,
        angles=options.angles,
        num=options.num,
        image_size=config.image_size,
        device=space.device,
        seed=options.seed,
    )
    print(f"{len(written)} pictures; the sheet is {written[0]}")
    if options.scores is not None:
        print(f"scores: {write_scores(options, config, networks, space, meshes, fid)}")
    return 0
