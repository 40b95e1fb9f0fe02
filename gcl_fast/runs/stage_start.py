"""What a stage starts from: the stage before it in the run's folder, or files that --init names."""

from __future__ import annotations

from collections.abc import Sequence

from gcl_fast.config import TrainConfig
from gcl_fast.errors import CheckpointError, RunError
from gcl_fast.models.identity import IdentityEncoder
from gcl_fast.models.three_networks import Networks
from gcl_fast.runs.folder import stage_checkpoint
from gcl_fast.runs.networks import build_networks, load_module, load_networks
from gcl_fast.stages.checkpoint import load_trained


def look_at_init(config: TrainConfig, stages: Sequence[int], *, overwrite: bool = False) -> None:
    """Load what the first stage will start from, once in vain, which takes seconds at most: what cannot be loaded is refused
    before a run folder is touched, where it would be in the way of the mended command.

    overwrite: what the folder holds is about to be removed.
    Errors: as loading has them.
    """
    load_start(build_networks(config, start=False), config, stages, stages[0], tell=True, removed=overwrite)


def starts_from_init(config: TrainConfig, stages: Sequence[int], stage: int, *, removed: bool = False) -> bool:
    """Whether a stage starts from what --init names: the first of the run. A later call keeps that setting, and what the calls
    before it trained is not to be lost: its stage starts from the one before it, as in one call for all.

    removed: what the run folder holds is about to be removed.
    """
    before = stage_checkpoint(config.run_dir, f"stage{stage - 1}")
    return bool(config.init) and stage == stages[0] and (removed or not before.exists())


def load_start(
    networks: Networks, config: TrainConfig, stages: Sequence[int], stage: int, *, tell: bool = False, removed: bool = False
) -> None:
    """Load what a stage starts from.

    tell: print what the files of --init hold.
    removed: what the run folder holds is about to be removed.
    """
    given: set[str] = set()
    if config.init and starts_from_init(config, stages, stage, removed=removed):
        given = load_networks(networks, config.init, stage, tell=tell)
    if stage == 2 and not given:
        load_stage1(networks.encoder, config)
    if stage == 3:
        load_stage2(networks, config, given=given, removed=removed)


def load_stage1(encoder: IdentityEncoder, config: TrainConfig) -> None:
    path = stage_checkpoint(config.run_dir, "stage1")
    if not path.exists():
        raise RunError(
            f"this stage needs an identity encoder: train stage 1 in this run first ({path} is missing) or give --init FILE"
        )
    load_module(encoder, load_trained(path)["modules"]["encoder"], str(path))


def load_stage2(networks: Networks, config: TrainConfig, *, given: set[str], removed: bool = False) -> None:
    """The networks of stage 2, but for those that were given."""
    path, wanted = stage_checkpoint(config.run_dir, "stage2"), {"encoder", "generator", "discriminator"} - given
    if not wanted:
        return
    if removed or not path.exists():
        state = "is about to be removed by --overwrite" if path.exists() else "is missing"
        raise RunError(
            f"stage 3 needs the {', '.join(sorted(wanted))} of stage 2: {path} {state}; train --stage 2 first "
            "or give their files to --init, joined by commas"
        )
    modules = load_trained(path)["modules"]
    for name in sorted(wanted):
        if name not in modules:
            raise CheckpointError(f"{path} holds no {name}: no checkpoint of stage 2")
        load_module(getattr(networks, name), modules[name], str(path))
