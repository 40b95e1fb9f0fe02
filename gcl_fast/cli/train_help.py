"""The short help of `gcl-fast train`: the settings that people change, in groups, with what they are in this command line."""

from __future__ import annotations

import textwrap

from gcl_fast.config import TrainConfig
from gcl_fast.constants import DATASETS

WIDTH = 96
COLUMN = 30  # where the words begin

USAGE = """\
usage: gcl-fast train [--config NAME|FILE] [--dataset NAME] [--root DIR] [--stage 1|2|3|all] ...

Train without labels: stage 1 (warm-up of the encoder), 2 (generator), 3 (both together). Stages 2
and 3 need a mesh for each photo (gcl-fast estimate-meshes makes them). Settings come from --config,
else from the data set's shipped YAML; each flag changes one. In brackets: what it is now, for
market1501 where this command names no --dataset or --config.

  gcl-fast train --dataset folder --root PHOTOS --stage 1       your own photos, no labels
  gcl-fast train --dataset market1501 --root DATA --name mine   all three stages
"""

# flag, what follows it, words; the flag's setting is looked up by its name (none: it is no setting)
GROUPS: dict[str, tuple[tuple[str, str, str], ...]] = {
    "What to train on": (
        ("dataset", "|".join(DATASETS), "how the images are listed; folder: every photo below --root"),
        ("root", "DIR", "where they are"),
        ("mesh-root", "DIR", "their meshes (default: ROOT/mesh)"),
        ("height", "N", "images are resized to this height"),
        ("width", "N", "and width"),
        ("skip-broken", "", "go on without images that cannot be read"),
        ("skip-unmeshed", "", "go on without images that have no mesh"),
        ("same-camera", "", "scores count matches in the same camera: data of one camera"),
    ),
    "The run": (
        ("config", "NAME|FILE", "YAML of settings, shipped or your own"),
        ("stage", "1|2|3|all", "which to train (default: all)"),
        ("name", "NAME", "of the run's folder"),
        ("runs", "DIR", "where run folders are"),
        ("resume", "", "go on where the run of this name stopped"),
        ("overwrite", "", "remove what the run of this name wrote, then start anew"),
        ("control", "", "then continue stage 1 for as many updates as stage 3 made"),
        ("seed", "N", "of everything random"),
        ("dry-run", "", "show data, settings, time and memory; write nothing"),
        ("dump-config", "", "print all settings as YAML for --config; train nothing"),
        ("wandb", "PROJECT", "also log to Weights & Biases"),
    ),
    "Where the encoder starts": (
        ("model.weights", "imagenet|none|FILE", "weights of the backbone (imagenet downloads)"),
        ("init", "RUN|FILE", "a run or weights of the whole encoder"),
        ("model.backbone", "NAME", "resnet50, resnet50_ibn_a, osnet_x1_0, vit_small_patch16 ..."),
    ),
    "Stage 1": (
        ("method", "NAME", "cluster-contrast, mlc or jvtc: sets all that belongs to it"),
        ("stage1.epochs", "N", "of cluster-contrast; the others: --stage1.mlc.epochs ..."),
        ("stage1.iters", "N", "steps an epoch; 0: one pass; -1: by the number of images"),
        ("stage1.batch-size", "N", "images a step"),
        ("stage1.num-instances", "N", "images of each person in it"),
        ("stage1.lr", "X", "learning rate"),
        ("stage1.cluster.eps", "X", "radius of clusters: the first to tune (0 to 1)"),
        ("stage1.cluster.k1", "N", "nearest images that tell people apart: fewer for few photos"),
        ("stage1.eval-every", "N", "epochs between scores"),
    ),
    "Stages 2 and 3": (
        ("model.guide", "mesh|texture", "what the generator sees of the new view"),
        ("yaws", "N N ...", "turns of the new views, degrees"),
        ("stage2.epochs", "N", "of the generator's warm-up"),
        ("stage2.batch-size", "N", "images a step"),
        ("stage3.epochs", "N", "of the joint training"),
        ("stage3.batch-size", "N", "images a step"),
        ("stage3.lr-encoder", "X", "learning rate of the encoder"),
        ("stage3.cluster.eps", "X", "radius of clusters"),
    ),
    "The machine": (
        ("device", "auto|cpu|cuda[:N]", "where to compute"),
        ("precision", "auto|fp32|bf16", "auto: bf16 where the device has it"),
        ("loader", "auto|cached|dali|torch", "who reads the images"),
        ("threads", "N", "that compute on a CPU; 0: one for each free core"),
        ("workers", "N", "threads or processes that read ahead"),
        ("eval-batch-size", "N", "images at once when scoring"),
        ("sync-bn", "", "batch norm over all GPUs"),
    ),
}

END = """\
--help-all lists every setting. --traceback shows where an error came from.
"""


def short_help(config: TrainConfig) -> str:
    """At most two screens; values in brackets are those of `config`."""
    lines = [USAGE]
    for title, flags in GROUPS.items():
        lines.append(f"{title}:")
        for flag, value, words in flags:
            lines += _entry(f"--{flag} {value}".rstrip(), words + _now(config, flag))
        lines.append("")
    return "\n".join([*lines, END.rstrip()])


def _entry(flag: str, words: str) -> list[str]:
    apart = " " * COLUMN
    wrapped = textwrap.wrap(words, WIDTH, initial_indent=apart, subsequent_indent=apart, break_on_hyphens=False)
    start = f"  {flag}"
    return [start, *wrapped] if len(start) >= COLUMN else [start + wrapped[0][len(start) :], *wrapped[1:]]


def _now(config: TrainConfig, flag: str) -> str:
    """What a setting is now, in brackets; nothing for switches that are off, and for flags that are no settings."""
    value: object = config
    path = "stage1.method" if flag == "method" else flag
    for part in path.replace("-", "_").split("."):
        value = getattr(value, part, None)
    if value is None or value is False:
        return ""
    shown = " ".join(map(str, value)) if isinstance(value, tuple) else f"{value:g}" if isinstance(value, float) else str(value)
    return f" [{'on' if value is True else shown}]"
