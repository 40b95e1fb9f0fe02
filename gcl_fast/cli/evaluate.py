"""gcl-fast evaluate: scores of a checkpoint on query and gallery."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import tyro

from gcl_fast.cli.options import SizeOption, named_png, parse
from gcl_fast.config import TrainConfig
from gcl_fast.config.plain_values import positive
from gcl_fast.config.schema import require_size
from gcl_fast.constants import OWN_DATA, DatasetName
from gcl_fast.errors import InputError

if TYPE_CHECKING:
    from gcl_fast.models import IdentityEncoder
    from gcl_fast.models.before_norm import BeforeNorm
    from gcl_fast.runs.dataset import OpenedDataset


@dataclass
class EvaluateOptions:
    """Score the identity encoder of a checkpoint: mAP, CMC-1/5/10, mINP."""

    checkpoint: tyro.conf.Positional[Path]
    """A run's checkpoint (runs/NAME/stage3/last.pt), its run folder (the last of stage 3 is taken, else of stage 1), or weights
    of an encoder that export or import-checkpoint wrote or import-checkpoint knows, with --dataset and --root of theirs."""
    dataset: DatasetName | None = None
    """Another data set than the one trained on."""
    root: str | None = None
    """Folder of the data set, where it has moved."""
    same_camera: bool = False
    """Also count matches in the query's own camera: for data of one camera."""
    rerank: bool = False
    """Also score after k-reciprocal re-ranking (k1 20, k2 6, lambda 0.3)."""
    ranked_lists: Path | None = None
    """Write a picture of ranked lists here (PNG)."""
    output: Path | None = None
    """Write the scores here (JSON)."""
    height: SizeOption = None
    """Height that images are resized to."""
    width: SizeOption = None
    """Width that images are resized to."""
    skip_broken: bool = False
    """Go on without images that cannot be read, which are named."""
    device: str = "auto"
    feature: Literal["auto", "after-norm", "before-norm"] = "auto"
    """The feature that is scored: after the head's batch norm, or the pooled map before it, as MLC tests; auto: as the run scored
    that stage, of weights alone after it."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """What the encoder computes in; auto: as trained (where that was auto too, bf16 where the device has it in hardware)."""

    def __post_init__(self) -> None:
        positive(self, "height", "width")
        named_png("--ranked-lists", self.ranked_lists)


def _encoder(options: EvaluateOptions) -> tuple[IdentityEncoder | BeforeNorm, TrainConfig]:
    """The encoder to score and the settings to read images with."""
    from gcl_fast.models.before_norm import BeforeNorm
    from gcl_fast.runs.networks import as_scored, encoder_of, find_encoder, is_checkpoint, networks_of, tell_taken

    path = find_encoder(options.checkpoint)
    scored: IdentityEncoder | BeforeNorm
    if is_checkpoint(path):
        config, networks, state = networks_of(path)
        encoder, trained = networks.encoder, config.image_size
        scored = as_scored(encoder, config, state["stage"])
    else:
        encoder, trained = encoder_of(path)
        scored = encoder
        if options.dataset is None or options.root is None:
            raise InputError(f"{path} holds weights alone, which name no data set: give --dataset and --root")
        config = TrainConfig()
    tell_taken(options.checkpoint, path)
    config = on_data(config, options.dataset, options.root, options.device, skip_broken=options.skip_broken)
    size = options.height or trained[0], options.width or trained[1]
    require_size("--height and --width", size)
    precision = config.precision if options.precision == "auto" else options.precision
    if options.feature != "auto":
        scored = BeforeNorm(encoder) if options.feature == "before-norm" else encoder
    return scored, replace(config, height=size[0], width=size[1], precision=precision)


def on_data(
    config: TrainConfig,
    dataset: DatasetName | None,
    root: str | None,
    device: str,
    *,
    skip_broken: bool = False,
    skip_unmeshed: bool = False,
) -> TrainConfig:
    """A run's settings on another data set, folder or device, leaving out what the run or the flags leave out; meshes of another
    data set or folder lie in their usual place there."""
    skip_broken, skip_unmeshed = config.skip_broken or skip_broken, config.skip_unmeshed or skip_unmeshed
    config = replace(config, device=device, skip_broken=skip_broken, skip_unmeshed=skip_unmeshed)
    if dataset is not None:
        config = replace(config, dataset=dataset, mesh_root=None)
    if root is not None:
        config = replace(config, root=root, mesh_root=None)
    return config


def _how_to_score(dataset: OpenedDataset) -> str:
    """What a user's own data lacks to be scored; nothing where it has query and gallery."""
    if dataset.data.query and dataset.data.gallery:
        return ""
    if dataset.config.dataset not in OWN_DATA:
        return "; another data set: --dataset and --root"
    return (
        f": scores need photos with who is on them. Into {dataset.config.root} (or a folder that --root names) put query.csv and "
        "gallery.csv with columns path and pid, and train.csv with path, and give --dataset csv (docs/own_photos.md)"
    )


def main(argv: list[str]) -> int:
    options = parse(EvaluateOptions, argv, prog="gcl-fast evaluate")

    from gcl_fast.files import check_writable, json_text, write_whole
    from gcl_fast.models import IdentityEncoder
    from gcl_fast.runs.dataset import OpenedDataset
    from gcl_fast.runs.run_pictures import ranked_lists_picture
    from gcl_fast.stages.layout import prepare

    for path in filter(None, (options.ranked_lists, options.output)):
        check_writable(path)
    encoder, config = _encoder(options)
    config = replace(config, same_camera=config.same_camera or options.same_camera)
    dataset = OpenedDataset(config, with_meshes=False)
    if not dataset.can_score:
        raise InputError(f"{config.dataset} at {config.root}: {dataset.scoring_note}{_how_to_score(dataset)}")
    print(dataset.table())
    feature = "after-norm" if isinstance(encoder, IdentityEncoder) else "before-norm"
    print(f"device {dataset.device}  precision {'bf16' if dataset.bf16 else 'fp32'}  feature {feature}")
    prepare(
        {"encoder": encoder}, replace(config, compile="off", step_graph=False), dataset.device
    )  # laid out as when the run scored it
    scores = {"plain": dataset.score(encoder)}
    if options.rerank:
        scores["reranked"] = dataset.score(encoder, rerank=True)
    for name, values in scores.items():
        values.pop("score", None)
        print(f"{name:9s} " + "  ".join(f"{k} {v:.2%}" for k, v in values.items()))
    if options.ranked_lists is not None:
        ranked_lists_picture(encoder, dataset, options.ranked_lists, f"{options.checkpoint}")
        print(f"ranked lists: {options.ranked_lists}")
    if options.output is not None:
        write_whole(options.output, json_text(scores, indent=2))
    return 0
