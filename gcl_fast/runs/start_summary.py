"""What a run says before it begins: which recipe it trains by, and what the encoder starts from."""

from __future__ import annotations

from collections.abc import Sequence

from gcl_fast.config import JVTCConfig, Stage1Config, Stage2Config, Stage3Config, TrainConfig, WarmupConfig
from gcl_fast.models.start_weights import imagenet_source
from gcl_fast.progress import counted

FEW = 4  # identities; a batch with fewer teaches little
PUBLISHED_START = {
    "cluster-contrast": "The published recipe (Cluster Contrast) starts from ImageNet weights.",
    "mlc": "The published recipe (MLC) starts from ImageNet weights.",
    "jvtc": "The published recipe (JVTC) starts from ImageNet weights.",
}


def settings_summary(config: TrainConfig, stages: Sequence[int]) -> str:
    """Method, head, sampler, augmentation, learning rates and epochs of the stages to come, a line or two each."""
    lines = []
    if 1 in stages:
        lines += _stage1_lines(config)
    for number, stage in ((2, config.stage2), (3, config.stage3)):
        if number in stages:
            rates = f"lr {stage.lr:g}{_steps(stage.lr_steps, stage.lr_gamma)}"
            if isinstance(stage, Stage3Config):
                own = stage.lr_steps if stage.lr_steps_encoder is None else stage.lr_steps_encoder
                rates += f", encoder {stage.lr_encoder:g}{_steps(own, stage.lr_gamma)}"
            lines.append(
                f"stage {number}: guide {config.model.guide} · batches of {stage.batch_size} · {_epochs(stage)} · {rates}"
            )
    return "\n".join(lines)


def _stage1_lines(config: TrainConfig) -> list[str]:
    model, stage1 = config.model, config.stage1
    own: dict[str, WarmupConfig] = {"mlc": stage1.mlc, "jvtc": stage1.jvtc}
    settings: Stage1Config | WarmupConfig = own.get(stage1.method, stage1)
    features = "512 features" if model.variant == "jvtc" else "as many features as channels"
    frozen = model.norm_bias == "frozen" or (stage1.method == "mlc" and stage1.mlc.freeze_norm_bias)
    head = f"{model.backbone}, {model.pooling} pooling, {features}, norm bias {'frozen' if frozen else 'learned'}"
    if isinstance(settings, Stage1Config):
        identities = settings.batch_size // settings.num_instances
        how = "spread over cameras" if settings.camera_aware else settings.sampler
        batches, share = f"{counted(identities, 'identity')} x {counted(settings.num_instances, 'image')}, {how}", 1.0
    else:
        batches, share = f"batches of {settings.batch_size}", settings.backbone_lr
        if isinstance(settings, JVTCConfig):
            batches += f" ({counted(settings.batch_size // settings.views, 'image')} in {counted(settings.views, 'view')})"
    rates = f"lr {settings.lr:g}" + (f" (backbone {settings.lr * share:g})" if share != 1 else "")
    return [
        f"stage 1 by {stage1.method}: {head}",
        f"  {batches} · {_epochs(settings)} · {rates}{_steps(settings.lr_steps, settings.lr_gamma)} · {_augmentation(stage1)}",
    ]


def stage1_notes(config: TrainConfig, stages: Sequence[int]) -> list[str]:
    """A line where the batches of stage 1 show few identities, as they do where one of two settings that belong together was
    changed; one where its scores are of another feature than stage 3's."""
    stage1 = config.stage1
    if stage1.method == "mlc" and stage1.mlc.test_feature == "before-norm" and {1, 3} <= set(stages):
        return [
            "stage 1 is scored by its feature before the batch norm, as MLC is published, stage 3 by the one after it: scores "
            "that compare come with --stage1.mlc.test-feature after-norm, or later with gcl-fast evaluate --feature"
        ]
    size, identities = stage1.batch_size, stage1.batch_size // stage1.num_instances
    if 1 not in stages or stage1.method != "cluster-contrast" or identities >= FEW:
        return []
    fitting = max((n for n in range(2, size // FEW + 1) if size % n == 0), default=0)
    shows = f"a batch of stage 1 shows {counted(identities, 'identity')}, which teaches little"
    return [f"{shows}: try {f'--stage1.num-instances {fitting} or ' if fitting else ''}a larger --stage1.batch-size"]


def _epochs(stage: Stage1Config | WarmupConfig | Stage2Config) -> str:
    return counted(stage.epochs, "epoch") + (f" of {counted(stage.iters, 'iteration')}" if stage.iters else "")


def _steps(steps: tuple[int, ...], gamma: float) -> str:
    return f" x{gamma:g} after {', '.join(map(str, steps))}" if steps else ""


def _augmentation(stage1: Stage1Config) -> str:
    augment = stage1.augment
    parts = {
        f"flip {augment.flip:g}": augment.flip,
        f"pad {augment.pad}": augment.pad,
        f"crop to {augment.crop_smallest:g}": augment.crop_smallest < 1,
        f"turn {augment.rotation:g} degrees": augment.rotation,
        f"colours {augment.color_jitter:g}": augment.color_jitter,
        f"erase {augment.erase:g} up to {augment.erase_largest:g}": augment.erase,
    }
    return ", ".join(words for words, used in parts.items() if used) or "no augmentation"


def start_box(config: TrainConfig, stages: Sequence[int], *, goes_on: bool, given: bool = False) -> str:
    """What the encoder starts from, and what the published recipe does, in a box.

    goes_on: the first of these stages has a checkpoint in the run folder, and continues.
    given: it starts from what --init names.
    """
    model, first = config.model, min(stages)
    published = PUBLISHED_START[config.stage1.method]
    if first != 1:
        published = "The published GCL starts stages 2 and 3 from an encoder trained by JVTC or MLC, those from ImageNet weights."
    if goes_on:
        lines = [f"The encoder ({model.backbone}) goes on from this run's own checkpoint."]
    elif given:
        lines = [f"The encoder ({model.backbone}) starts from {config.init} (--init).", published]
    elif first != 1:
        lines = [f"The encoder ({model.backbone}) starts from what stage {first - 1} of this run left.", published]
    elif model.weights == "imagenet":
        lines = [f"The encoder ({model.backbone}) starts from ImageNet weights: {imagenet_source(model.backbone)}.", published]
    elif model.weights == "none":
        lines = [
            f"The encoder ({model.backbone}) starts from random weights.",
            published,
            "On real photos clusters then show cameras and colours rather than people: give",
            "--model.weights imagenet (downloads) or --model.weights FILE unless you mean it.",
        ]
    else:
        lines = [f"The encoder ({model.backbone}) starts from {model.weights}.", published]
    width = max(map(len, lines))
    rule = "─" * (width + 2)
    return "\n".join([f"┌{rule}┐", *(f"│ {line:<{width}} │" for line in lines), f"└{rule}┘"])
