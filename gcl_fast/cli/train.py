"""gcl-fast train: any stage, or all three in a row."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal

import tyro

from gcl_fast.cli.options import default_config, parse
from gcl_fast.cli.train_help import short_help
from gcl_fast.config import TrainConfig, to_dict, yaml_text


@dataclass
class TrainOptions:
    """Train stage 1 (warm-up), 2 (generator) and 3 (joint), or one of them.

    Settings come from --config FILE (or a shipped name: market1501, dukemtmc, msmt17, csv, folder, demo, recommended, or a
    published recipe such as cluster_contrast_market, gcl_market), else from the data set's shipped YAML; each flag here changes
    one.
    """

    settings: Annotated[TrainConfig, tyro.conf.arg(name="")]  # nameless: its flags are --height, --stage1.lr ...
    config: Annotated[str | None, tyro.conf.arg(metavar="NAME|FILE")] = None
    """YAML of the settings: a shipped name or a file."""
    stage: Literal["1", "2", "3", "all"] = "all"
    method: Literal["cluster-contrast", "mlc", "jvtc"] | None = None
    """How stage 1 learns (also --stage1.method): sets head, sampler, augmentation, learning rates and epochs together, as
    published, unless the YAML or another flag says otherwise."""
    resume: bool = False
    """Go on with the run of this name where it stopped."""
    overwrite: bool = False
    """Remove what an existing run of this name wrote first; anything else in its folder stays."""
    dry_run: bool = False
    """Show data, settings, steps, and time and memory as measured in a few steps; write nothing."""
    dump_config: bool = False
    """Print all settings as YAML that --config reads, and end."""
    control: bool = False
    """After stage 3 also continue stage 1 for as many updates: what the generator adds is the difference."""


def main(argv: list[str]) -> int:
    if {"-h", "--help"} & set(argv):
        print(short_help(default_config([argument for argument in argv if argument not in ("-h", "--help")])))
        return 0
    argv = ["--help" if argument == "--help-all" else argument for argument in argv]
    options = parse(TrainOptions, argv, prog="gcl-fast train", default=TrainOptions(default_config(argv)))
    settings = options.settings
    if options.method is not None:
        settings = replace(settings, stage1=replace(settings.stage1, method=options.method))
    if options.dump_config:
        print(yaml_text(to_dict(settings)), end="")
        return 0

    from gcl_fast.runs.run_checks import check_moved, nothing_to_resume
    from gcl_fast.runs.training import train

    if (options.resume or options.overwrite) and options.config is not None:
        check_moved(settings, Path(options.config))
    if options.resume and (words := nothing_to_resume(settings)):
        print(words)
    stages = (1, 2, 3) if options.stage == "all" else (int(options.stage),)
    if options.dry_run:
        from gcl_fast.runs.dry_run import dry_run

        dry_run(settings, stages, resume=options.resume, overwrite=options.overwrite, control=options.control)
        return 0
    train(settings, stages, resume=options.resume, overwrite=options.overwrite, control=options.control)
    return 0
