"""gcl-fast generate: what the generator makes of photos and meshes."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import tyro

from gcl_fast.cli.evaluate import on_data
from gcl_fast.cli.options import parse
from gcl_fast.config.plain_values import not_negative, positive, require
from gcl_fast.constants import NOVEL_YAWS, DatasetName
from gcl_fast.errors import CheckpointError, InputError

if TYPE_CHECKING:
    from gcl_fast.generation import FrechetDistance
    from gcl_fast.meshes.sources import MeshSource
    from gcl_fast.models.generator import Generator
    from gcl_fast.models.identity import IdentityEncoder
    from gcl_fast.models.three_networks import Networks
    from gcl_fast.records import Record
    from gcl_fast.runs.dataset import OpenedDataset


@dataclass
class GenerateOptions:
    """Write reconstructions, novel views at given angles, or identity mixes of a split's images (query; of a data set without:
    train)."""

    checkpoint: tyro.conf.Positional[Path]
    """A run's checkpoint of stage 2 or 3, or its run folder."""
    what: Literal["reconstruction", "novel", "mix"] | None = None
    """Pictures to write; default: novel, with --turntable none but its own."""
    warp: bool = False
    """No generator: the photos' own pixels carried to the angles by their meshes (needs vertices)."""
    turntable: bool = False
    """The people turning once around: an animation (GIF) and a strip of it (needs vertices)."""
    angles: tuple[float, ...] = NOVEL_YAWS
    """Turns in degrees; any angle where mesh vertices are there."""
    num: int = 8
    split: Literal["train", "query", "gallery"] | None = None
    """Images to draw from; default: query, of a data set without query images train."""
    out: Path = Path("generated")
    dataset: DatasetName | None = None
    root: str | None = None
    skip_broken: bool = False
    """Go on without images that cannot be read, which are named."""
    skip_unmeshed: bool = False
    """Go on without training images that have no mesh."""
    device: str = "auto"
    seed: int = 0
    scores: Path | None = None
    """Also score all images of the split and write here (JSON): PSNR and SSIM of reconstructions, FID with --fid-weights; where
    the data set has true views (truth/index.csv), novel views against them by angle, beside guesses that need no generator."""
    fid_weights: str | None = None
    """Inception weights for the FID of the novel views: a file, or 'download' to fetch them."""

    def __post_init__(self) -> None:
        require(len(self.angles) > 0, "--angles", "at least one angle", self.angles)
        require(all(map(math.isfinite, self.angles)), "--angles", "finite", self.angles)
        positive(self, "num")
        not_negative(self, "seed")
        for flag, value in {"--turntable": self.turntable, "--scores": self.scores}.items():
            require(not (self.warp and value), flag, "without --warp, which asks for no generator", str(value))


def warp(options: GenerateOptions, dataset: OpenedDataset, records: list[Record], meshes: MeshSource) -> None:
    """--warp: a sheet of the photos' own pixels at the angles."""
    from gcl_fast.generation import draw_records, warp_pictures

    sheet = warp_pictures(
        draw_records(records, options.num, options.seed),
        meshes,
        options.out,
        angles=options.angles,
        image_size=dataset.config.image_size,
        device=dataset.device,
    )
    print(f"photos and their warped views: {sheet}")


def generate(
    options: GenerateOptions, networks: Networks, dataset: OpenedDataset, records: list[Record], meshes: MeshSource
) -> None:
    """Pictures by the generator and, with --scores, the scores of the whole split."""
    from gcl_fast.generation import FrechetDistance, generate_pictures, turntable

    fid = FrechetDistance(options.fid_weights, device=dataset.device) if options.fid_weights is not None else None
    encoder, generator = networks.encoder.to(dataset.device), networks.generator.to(dataset.device)
    size = dataset.config.image_size
    if options.what is not None or not options.turntable:  # unasked, it would write over pictures that were
        written = generate_pictures(
            encoder,
            generator,
            records,
            meshes,
            options.out,
            what=options.what or "novel",
            angles=options.angles,
            num=options.num,
            image_size=size,
            device=dataset.device,
            seed=options.seed,
        )
        print(f"{len(written)} pictures; the sheet is {written[0]}")
    if options.turntable:
        animation, strip = turntable(
            encoder,
            generator,
            records,
            meshes,
            options.out,
            num=options.num,
            image_size=size,
            device=dataset.device,
            seed=options.seed,
        )
        print(f"a full turn: {animation}, side by side in {strip}")
    if options.scores is not None:
        score(options, options.scores, encoder, generator, dataset, records, meshes, fid)


def score(
    options: GenerateOptions,
    into: Path,
    encoder: IdentityEncoder,
    generator: Generator,
    dataset: OpenedDataset,
    records: list[Record],
    meshes: MeshSource,
    fid: FrechetDistance | None,
) -> None:
    """--scores: the whole split's reconstructions, and its novel views where the truth is known, into a JSON file."""
    from gcl_fast.files import json_text, write_whole
    from gcl_fast.generation import can_ssim, mean_training_image, score_generated, score_novel_views
    from gcl_fast.progress import counting

    size, truth = dataset.config.image_size, Path(dataset.config.root) / "truth"
    views = {}
    with counting("score generated images") as progress:
        scores = score_generated(
            encoder, generator, records, meshes, size, dataset.device, yaws=options.angles, fid=fid, progress=progress
        )
    if options.split != "train" and (truth / "index.csv").is_file():
        mean = mean_training_image([record.path for record in dataset.data.train], size)
        with counting("score novel views") as progress:
            views = score_novel_views(
                encoder, generator, truth, meshes, size, dataset.device, mean_image=mean, with_ssim=can_ssim(), progress=progress
            ).as_metrics()
    facts = {**scores, **views, "split": options.split, "angles": list(options.angles)}
    write_whole(into, json_text(facts, indent=2))
    means = {name: value for name, value in {**scores, **views}.items() if not isinstance(value, dict)}
    print("scores: " + "  ".join(f"{name} {value:.4g}" for name, value in means.items()))


def of_split(dataset: OpenedDataset, split: str) -> tuple[list[Record], MeshSource]:
    """The images and their meshes. Errors: InputError where there are none; training images always have theirs."""
    records = {"train": dataset.data.train, "query": dataset.data.query, "gallery": dataset.data.gallery}[split]
    meshes = dataset.train_meshes if split == "train" else dataset.test_meshes
    if not records:
        raise InputError(f"the data set has no {split} images: --split train draws from those of training")
    if meshes is None:
        raise InputError(
            f"no meshes for the {split} images under {dataset.config.mesh_dir}: gcl-fast estimate-meshes --split test makes them "
            "from photos; --split train draws from the images of training"
        )
    return records, meshes


def main(argv: list[str]) -> int:
    options = parse(GenerateOptions, argv, prog="gcl-fast generate")

    from gcl_fast.files import check_writable, make_folder
    from gcl_fast.runs.dataset import OpenedDataset
    from gcl_fast.runs.networks import find_checkpoint, networks_of, tell_taken

    if options.fid_weights is not None and options.scores is None:
        raise InputError("--fid-weights needs --scores FILE.json, where the FID is written")
    if options.scores is not None:
        check_writable(options.scores)
    make_folder(options.out)
    path = find_checkpoint(options.checkpoint, ("stage3", "stage2", *(("stage1",) if options.warp else ())))
    config, networks, state = networks_of(path)
    if "generator" not in state["modules"] and not options.warp:
        raise CheckpointError(f"{path} has no generator: it is a checkpoint of {state['stage']}; give one of stage 2 or 3")
    tell_taken(options.checkpoint, path)
    config = on_data(
        config,
        options.dataset,
        options.root,
        options.device,
        skip_broken=options.skip_broken,
        skip_unmeshed=options.skip_unmeshed,
    )
    dataset = OpenedDataset(config, with_meshes=True)
    split = options.split or ("query" if dataset.data.query else "train")
    if options.split is None and split == "train":
        print("pictures of training images: the data set has no query images")
    records, meshes = of_split(dataset, split)
    options = replace(options, split=split)
    if options.warp:
        warp(options, dataset, records, meshes)
    else:
        generate(options, networks, dataset, records, meshes)
    return 0
