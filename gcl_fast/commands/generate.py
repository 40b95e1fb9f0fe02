"""gcl-fast generate: what the generator makes of photos and meshes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from gcl_fast.commands.evaluate import find_checkpoint, other_data
from gcl_fast.commands.options import parse, positional


@dataclass
class GenerateOptions:
    """Write reconstructions, novel views at given angles, or identity mixes of test images."""

    checkpoint: Annotated[Path, positional()]
    """A run's checkpoint of stage 2 or 3, or its run folder."""
    what: Literal["reconstruction", "novel", "mix"] = "novel"
    angles: tuple[float, ...] = (45, 90, 135, 180, 225, 270, 315)
    """Turns in degrees; any angle where mesh vertices are there."""
    num: int = 8
    split: Literal["train", "query", "gallery"] = "query"
    out: Path = Path("generated")
    dataset: str | None = None
    root: str | None = None
    device: str = "auto"
    seed: int = 0


def main(argv: list[str]) -> int:
    options = parse(GenerateOptions, argv, prog="gcl-fast generate")

    from gcl_fast.generation import generate_pictures
    from gcl_fast.workspace import Workspace, networks_of

    path = find_checkpoint(options.checkpoint, ("stage3", "stage2"))
    config, networks, state = networks_of(path)
    if "generator" not in state["modules"]:
        raise ValueError(f"{path} has no generator: it is a checkpoint of {state['stage']}; give one of stage 2 or 3")
    space = Workspace(other_data(config, options.dataset, options.root, options.device), with_meshes=True)
    meshes = space.train_meshes if options.split == "train" else space.test_meshes
    if meshes is None:
        raise ValueError(f"no meshes for the {options.split} images under {space.config.mesh_dir}")
    written = generate_pictures(
        networks.encoder.to(space.device), networks.generator.to(space.device), getattr(space.data, options.split), meshes,
        options.out, what=options.what, angles=options.angles, num=options.num, image_size=config.image_size,
        device=space.device, seed=options.seed,
    )
    print(f"{len(written)} pictures; the sheet is {written[0]}")
    return 0
