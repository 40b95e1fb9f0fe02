"""gcl-fast train: any stage, or all three in a row."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from gcl_fast.cli.options import base_config, parse
from gcl_fast.config import TrainConfig


@dataclass
class TrainOptions(TrainConfig):
    """Train stage 1 (warm-up), 2 (generator) and 3 (joint), or one of them.

    Settings come from --config FILE (or a shipped name: market1501, dukemtmc, msmt17, csv, demo), else from the data
    set's shipped YAML; each flag here changes one.
    """

    stage: Literal["1", "2", "3", "all"] = "all"
    method: Literal["cluster-contrast", "mlc", "jvtc"] | None = None
    """How stage 1 learns; short for --stage1.method."""
    resume: bool = False
    """Go on with the run of this name where it stopped."""
    overwrite: bool = False
    """Delete an existing run of this name first."""
    control: bool = False
    """After stage 3 also continue stage 1 for as many updates: what the generator adds is the difference."""


def main(argv: list[str]) -> int:
    config, rest = base_config(argv)
    default = TrainOptions(**{name: getattr(config, name) for name in config.__dataclass_fields__})
    options = parse(TrainOptions, rest, prog="gcl-fast train", default=default)
    config = TrainConfig(**{name: getattr(options, name) for name in TrainConfig.__dataclass_fields__})
    if options.method is not None:
        config = replace(config, stage1=replace(config.stage1, method=options.method))

    from gcl_fast.runs.training import train

    stages = (1, 2, 3) if options.stage == "all" else (int(options.stage),)
    train(config, stages, resume=options.resume, overwrite=options.overwrite, control=options.control)
    return 0
