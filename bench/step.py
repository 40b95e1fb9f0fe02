"""One training iteration of each stage (of stage 1 Cluster Contrast) against the plain path (`reference.step`: eager float32,
nothing shared), which also checks it. Full: the published networks at 256x128, batches of 4 on a CPU and of 16 and 64 on a GPU.

With each number: `images_per_second`; on a GPU `peak_bytes`; where the time goes, by kind of work (`breakdown`, seconds).
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from statistics import fmean

import torch
from torch import Tensor, nn

from gcl_fast import _native
from gcl_fast.config import TrainConfig, from_dict
from gcl_fast.models import Discriminator, Generator, IdentityEncoder
from gcl_fast.models.three_networks import Networks
from gcl_fast.records import Batch
from gcl_fast.reference.step import Contrast, plain_cluster_contrast_step, plain_step
from gcl_fast.stages.generative import GenerativeStage
from gcl_fast.stages.joint import JointStage
from gcl_fast.stages.optimizer_state import load_optimizer
from gcl_fast.stages.stage import Stage
from gcl_fast.stages.views import draw_mix
from gcl_fast.stages.warmup.cluster_contrast import ClusterContrastStage

OP = "step"
STEPS = 5  # compared
TOLERANCE = {"fp32": 1e-3, "bf16": 5e-2}
CHECK = (
    f"every loss of {STEPS} iterations (of one at full size on a CPU), each from the plain path's weights, optimisers and bank, "
    "within 1e-3 of the plain path's (relative, at least 1e-2 absolute), with bf16 their means within 5e-2"
)
QUICK = {"stage": [1, 3], "batch": [4], "size": [(64, 40)], "backbone": ["resnet18"], "precision": ["fp32"]}
FULL = {
    "stage": [1, 2, 3],
    "batch": [16, 64] if torch.cuda.is_available() else [4],
    "size": [(256, 128)],
    "backbone": ["resnet50"],
    "precision": ["fp32", "bf16"] if torch.cuda.is_available() or _native.has_bfloat16_units() else ["fp32"],
}
IMAGES, CLUSTERS = 12936, 500  # Market-1501
KINDS = {  # of aten's operators, by a part of their name
    "convolution backward": ("convolution_backward",),
    "convolution": ("conv",),
    "normalisation": ("norm", "std", "mean"),
    "padding and resampling": ("pad", "upsample", "pool", "pixel_shuffle"),
    "activation": ("relu", "threshold", "clamp"),
    "products": ("mm", "linear", "dot"),
    "optimiser": ("adam", "sgd", "addcdiv", "addcmul", "lerp", "foreach"),
    "memory": ("bank", "gcl_fast"),
    "copies": ("copy", "fill", "zero", "cat", "contiguous"),
}


def config_of(case: dict, device: torch.device, *, plain: bool = False) -> TrainConfig:
    """plain: eager float32 in torch's own layout."""
    small = case["backbone"] == "resnet18"
    model = {
        "backbone": case["backbone"],
        **({"width": 16, "generator_width": 4, "generator_mlp": 32, "discriminator_width": 8} if small else {}),
    }
    height, width = case["size"]
    speed = {"precision": "fp32", "channels_last": "off", "compile": "off"} if plain else {"precision": case["precision"]}
    return from_dict(
        TrainConfig,
        {"height": height, "width": width, "device": str(device), "model": model, "stage1": {"memory": "hard"}, **speed},
    )


def calm(encoder: IdentityEncoder) -> None:
    """Residual branches a fifth as strong: else rounding grows ten thousandfold on its way through encoder, generator
    and encoder again, and no two ways of computing could be compared."""
    for block in encoder.modules():
        last = getattr(block, "bn3", None) or getattr(block, "bn2", None)
        if last is not None:
            nn.init.constant_(last.weight, 0.2)


class NoPictures:
    """As much of a data set as a stage needs to be made; the batches come from `make_batch`."""

    def __init__(self, device: torch.device) -> None:
        self.device, self.cameras, self.bodies = device, torch.zeros(IMAGES, dtype=torch.int64), None

    def train_loader(self, **options: object) -> None:
        return None


def make_stage(case: dict, device: torch.device, *, plain: bool = False) -> Stage:
    config = config_of(case, device, plain=plain)
    model = config.model
    torch.manual_seed(0)
    encoder = IdentityEncoder(model.variant, model.backbone, width=model.width)
    generator = Generator(encoder.code_dim, width=model.generator_width, mlp_width=model.generator_mlp)
    calm(encoder)
    if case["stage"] == 1:
        return warm_up(config, encoder, device)
    networks = Networks(encoder, generator, Discriminator(model.discriminator_width))
    if case["stage"] == 2:
        return GenerativeStage(config, networks, NoPictures(device))
    stage = JointStage(config, networks, NoPictures(device))
    rng = torch.Generator().manual_seed(1)
    bank = nn.functional.normalize(torch.randn(IMAGES, encoder.feature_dim, generator=rng), dim=1)
    stage.memory.features.copy_(bank)
    stage.memory.labels.copy_(torch.arange(IMAGES) % CLUSTERS)
    stage.centers = stage.memory.features[:CLUSTERS].clone()
    return stage


def warm_up(config: TrainConfig, encoder: IdentityEncoder, device: torch.device) -> ClusterContrastStage:
    stage = ClusterContrastStage(config, encoder.to(device), NoPictures(device))
    rng = torch.Generator().manual_seed(1)
    stage.labels.copy_(torch.arange(IMAGES) % CLUSTERS)
    stage.memory = stage._new_memory(CLUSTERS)
    stage.memory.features.copy_(nn.functional.normalize(torch.randn(CLUSTERS, encoder.feature_dim, generator=rng), dim=1))
    return stage


def make_batch(case: dict, device: torch.device) -> Batch:
    rng = torch.Generator().manual_seed(2)
    count, size = case["batch"], case["size"]
    mesh, novel = (torch.rand(count, 1, *size, generator=rng) * 2 - 1 for _ in range(2))
    index = torch.randperm(IMAGES, generator=rng)[:count]
    return Batch(torch.randn(count, 3, *size, generator=rng), mesh, novel, index, index, index).to(device)


def stepper(implementation: str, stage: Stage, batch: Batch) -> Callable[[], dict[str, Tensor]]:
    number = iter(range(1 << 30))
    if implementation == "native":
        return lambda: stage.step(batch, next(number))
    settings, contrast, device = stage.settings, None, stage.device
    for module in stage.modules.values():
        module.train()
    if stage.name == "stage1":
        return lambda: plain_cluster_contrast_step(
            stage.encoder,
            stage.optimizers["encoder"],
            batch.image,
            stage.labels[batch.index],
            stage.memory.features,
            temperature=settings.temperature,
            momentum=settings.momentum,
            hard=True,
        )
    if stage.name == "stage2":
        stage.encoder.eval()
    else:
        contrast = Contrast(
            stage.memory.features,
            stage.memory.labels,
            stage.centers,
            settings.temperature,
            settings.num_negatives,
            settings.bank_momentum,
        )

    def step() -> dict[str, Tensor]:
        iteration = next(number)
        weight, order = draw_mix(len(batch), settings.loss.mixup_alpha, stage.iteration_rng(iteration))
        seed = int(stage.iteration_rng(iteration).integers(2**31))
        order = torch.from_numpy(order).to(device)
        return plain_step(stage.modules, stage.optimizers, batch, mix_weight=weight, order=order, contrast=contrast, seed=seed)

    return step


def side(implementation: str, case: dict, device: torch.device) -> tuple[Stage, Callable[[], dict[str, Tensor]]]:
    stage = make_stage(case, device, plain=implementation == "reference")
    batch = make_batch(case, device).to(device, memory_format=stage.memory_format)
    return stage, stepper(implementation, stage, batch)


def take_over(stage: Stage, other: Stage) -> None:
    """The other's weights, optimisers and bank: from its own, rounding would soon lead a stage elsewhere."""
    for name, module in stage.modules.items():
        module.load_state_dict(copy.deepcopy(other.modules[name].state_dict()))
    for name, optimizer in stage.optimizers.items():
        load_optimizer(optimizer, copy.deepcopy(other.optimizers[name].state_dict()))
    stage.load_extra_state(copy.deepcopy(other.extra_state()))


def agree(pairs: dict[str, list[tuple[float, float]]], precision: str) -> None:
    """That of each loss ours is the plain path's, in every iteration or, of bfloat16, in their mean: its rounding, through three
    networks and a temperature, moves single losses by up to 7%, to either side."""
    tolerance = TOLERANCE[precision]
    for name, values in pairs.items():
        for ours, theirs in [tuple(map(fmean, zip(*values, strict=True)))] if precision == "bf16" else values:
            assert abs(ours - theirs) <= tolerance * max(abs(theirs), 10 * tolerance), f"{name} is {ours}, not {theirs}: {values}"


def check(case: dict, device: torch.device) -> None:
    (native, fast), (reference, plain) = (side(implementation, case, device) for implementation in ("native", "reference"))
    pairs: dict[str, list[tuple[float, float]]] = {}
    for _ in range(STEPS if device.type == "cuda" or case["backbone"] == "resnet18" else 1):
        take_over(native, reference)
        got, want = fast(), plain()
        for name, value in want.items():
            pairs.setdefault(name, []).append((float(got[name]), float(value)))
    agree(pairs, case["precision"])


def call(implementation: str, case: dict, device: torch.device) -> Callable[[], object]:
    return side(implementation, case, device)[1]


def breakdown(step: Callable[[], object], device: torch.device) -> dict[str, float]:
    """Seconds of one iteration by kind of work: on the GPU its kernels' time, on a CPU the operators' own."""
    from torch.profiler import ProfilerActivity, profile

    cuda = device.type == "cuda"
    with profile(activities=[ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if cuda else [])]) as profiled:
        step()
    kinds: dict[str, float] = {}
    for event in profiled.key_averages():
        name = event.key.lower()
        kind = next((k for k, parts in KINDS.items() if any(part in name for part in parts)), "rest")
        microseconds = event.self_device_time_total if cuda else event.self_cpu_time_total
        kinds[kind] = kinds.get(kind, 0.0) + microseconds / 1e6
    return {kind: round(value, 4) for kind, value in sorted(kinds.items(), key=lambda item: -item[1]) if value >= 5e-5}


def test_step(case, implementation, device, measure_images, benchmark) -> None:
    measure_images()
    benchmark.extra_info["breakdown"] = breakdown(call(implementation, case, device), device)
