"""The settings of a run as dataclasses.

A bad value is a ConfigError that names its key. Defaults are the published ones (of GCL-extended:
stages 2 and 3; Cluster Contrast: stage 1), so a dataset's YAML holds only what differs.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from gcl_fast.config.plain_values import not_negative, positive, require
from gcl_fast.constants import NOVEL_YAWS, DatasetName


@dataclass
class ModelConfig:
    """Networks: the published sizes by default; smaller ones for small machines."""

    variant: Literal["jvtc", "mlc", "act"] = "jvtc"
    """Head of the identity encoder: jvtc 512 features, mlc and act as wide as the backbone."""
    backbone: Literal["resnet50", "resnet18"] = "resnet50"
    width: int = 64
    """Channels of the backbone's first stage."""
    weights: str = "none"
    """'none', 'imagenet' (downloads, because you ask for it) or the path of a weights file."""
    guide: Literal["mesh", "texture"] = "mesh"
    """What the generator is told of a view: its mesh alone (published), or also the photo's own pixels carried there by the mesh,
    and its background; texture needs meshes with vertices."""
    generator_width: int = 16
    generator_mlp: int = 512
    discriminator_width: int = 32

    def __post_init__(self) -> None:
        positive(self, "width", "generator_width", "generator_mlp", "discriminator_width")


@dataclass
class ClusterConfig:
    """Pseudo-labels: k-reciprocal Jaccard distance, then DBSCAN."""

    k1: int = 30
    k2: int = 6
    eps: float = 0.55
    rho: float | None = None
    """When given, eps = mean of the smallest rho share of the non-zero distances (the CVPR 2021 rule)."""
    min_samples: int = 4
    debias_cameras: bool = False
    """Standardise the features within each camera before clustering (arXiv 2502.10195)."""

    def __post_init__(self) -> None:
        positive(self, "k1", "k2", "eps", "min_samples")
        if self.rho is not None:
            positive(self, "rho")


@dataclass
class AugmentConfig:
    """Stage 1 only; stages 2 and 3 have the generator instead."""

    flip: float = 0.5
    pad: int = 10
    erase: float = 0.5
    color_jitter: float = 0.0

    def __post_init__(self) -> None:
        not_negative(self, "flip", "pad", "erase", "color_jitter")


@dataclass
class WarmupConfig:
    """What the warm-ups with a memory row per image (MLC, JVTC) have in common; the published values of MMCL (CVPR 2020)."""

    epochs: int = 60
    iters: int = 0
    """Iterations an epoch; 0: one pass over the images."""
    batch_size: int = 128
    lr: float = 0.1
    backbone_lr: float = 0.1
    """The backbone's learning rate as a share of lr."""
    sgd_momentum: float = 0.9
    weight_decay: float = 5e-4
    lr_steps: tuple[int, ...] = (40,)
    lr_gamma: float = 0.1
    camstyle: bool = True
    """Use the camera-styled images of bounding_box_train_camstyle where they are; plain augmentation where not."""

    def __post_init__(self) -> None:
        positive(self, "epochs", "batch_size", "lr", "backbone_lr", "lr_gamma")
        not_negative(self, "iters", "sgd_momentum", "weight_decay")


@dataclass
class MLCConfig(WarmupConfig):
    """Multi-label classification against a memory (Wang and Zhang, CVPR 2020). Epochs count from 1."""

    threshold: float = 0.6
    """Similarity above which a row may be a positive."""
    min_neighbors: int = 10
    single_label_epochs: int = 5
    """First epochs in which each image is its own class."""
    positive_weight: float = 5.0
    hard_share: float = 0.01
    """Share of the negatives, the most similar ones, that count."""
    momentum: float = 0.5
    """Share of the old memory row after momentum_epochs; grows linearly from 0."""
    momentum_epochs: int = 60

    def __post_init__(self) -> None:
        super().__post_init__()
        positive(self, "min_neighbors", "positive_weight", "hard_share", "momentum_epochs")
        not_negative(self, "single_label_epochs", "momentum")
        require(-1 <= self.threshold <= 1, "MLCConfig.threshold", "a cosine, -1 to 1", self.threshold)
        require(self.hard_share <= 1, "MLCConfig.hard_share", "at most 1", self.hard_share)


@dataclass
class JVTCConfig(WarmupConfig):
    """Joint visual and temporal consistency (Li and Zhang, ECCV 2020), without a source domain. Epochs count from 1."""

    lr: float = 0.01
    backbone_lr: float = 1.0
    views: int = 4
    """Views of each image in a batch (K)."""
    local_temperature: float = 0.1
    global_temperature: float = 0.05
    global_weight: float = 0.2
    global_from: int = 10
    """First epoch of the global loss and of labels."""
    label_every: int = 5
    """Epochs between labels."""
    temporal_from: int = 30
    """First epoch whose labels also use frame numbers; beyond `epochs`: never, and no frame numbers are needed."""
    bin_frames: int = 100
    """Width of a bin of the frame intervals."""
    smooth_bins: float = 50.0
    """Standard deviation of the Gaussian that smooths the bins."""
    candidates: int = 200
    """Visually nearest images of each whose joint similarity is computed."""
    momentum_step: float = 0.01
    momentum_max: float = 0.8
    """Share of the old memory row: momentum_step * epoch, at most momentum_max."""
    eps_scale: float = 0.8
    """Factor on the radius that rho gives (0.8 without a source domain)."""
    cluster: ClusterConfig = field(default_factory=lambda: ClusterConfig(k1=20, rho=1.6e-3, min_samples=1))

    def __post_init__(self) -> None:
        super().__post_init__()
        positive(
            self,
            "views",
            "local_temperature",
            "global_temperature",
            "global_from",
            "label_every",
            "temporal_from",
            "bin_frames",
            "smooth_bins",
            "candidates",
            "eps_scale",
        )
        not_negative(self, "global_weight", "momentum_step", "momentum_max")
        require(self.batch_size % self.views == 0, "JVTCConfig.batch_size", f"a multiple of views={self.views}", self.batch_size)
        require(self.momentum_max <= 1, "JVTCConfig.momentum_max", "at most 1", self.momentum_max)


@dataclass
class Stage1Config:
    """Warm-up of the identity encoder by an unsupervised method. The fields here are cluster-contrast's; `augment` and
    `eval_every` hold for every method; mlc and jvtc have sections of their own."""

    method: Literal["cluster-contrast", "mlc", "jvtc"] = "cluster-contrast"
    epochs: int = 50
    iters: int = 400
    """Iterations an epoch; 0: one pass over the clusters."""
    batch_size: int = 256
    num_instances: int = 16
    """Images of each identity in a batch (P x K: K)."""
    camera_aware: bool = False
    lr: float = 3.5e-4
    weight_decay: float = 5e-4
    lr_steps: tuple[int, ...] = (20, 40)
    """Epochs after which the learning rate is multiplied by lr_gamma."""
    lr_gamma: float = 0.1
    temperature: float = 0.05
    momentum: float = 0.1
    memory: Literal["each", "hard", "mean"] = "each"
    """What moves a centroid after a step: each image of its cluster in batch order, the least similar one (hard), or
    the mean of the batch's images of the cluster."""
    cluster: ClusterConfig = field(default_factory=lambda: ClusterConfig(eps=0.6))
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    eval_every: int = 10
    mlc: MLCConfig = field(default_factory=MLCConfig)
    jvtc: JVTCConfig = field(default_factory=JVTCConfig)

    def __post_init__(self) -> None:
        positive(self, "epochs", "batch_size", "num_instances", "lr", "lr_gamma", "temperature", "eval_every")
        not_negative(self, "iters", "weight_decay", "momentum")
        require(
            self.batch_size % self.num_instances == 0,
            "Stage1Config.batch_size",
            f"a multiple of num_instances={self.num_instances}",
            self.batch_size,
        )


@dataclass
class LossConfig:
    """Weights of the generative losses (the official values)."""

    adversarial: float = 1.0
    image: float = 5.0
    code: float = 5.0
    penalty: float = 0.01
    """Squared-gradient regulariser of the discriminator on real images."""
    mixup_alpha: float = 0.6

    def __post_init__(self) -> None:
        not_negative(self, "adversarial", "image", "code", "penalty")
        positive(self, "mixup_alpha")


@dataclass
class Stage2Config:
    """Warm-up of structure encoder, generator and discriminator; the identity encoder is frozen."""

    epochs: int = 40
    iters: int = 0
    """Iterations an epoch; 0: one pass over the images."""
    batch_size: int = 16
    lr: float = 1e-4
    beta1: float = 0.0
    beta2: float = 0.999
    weight_decay: float = 5e-4
    lr_steps: tuple[int, ...] = ()
    """Epochs after which all learning rates of the stage are multiplied by lr_gamma."""
    lr_gamma: float = 0.1
    loss: LossConfig = field(default_factory=LossConfig)

    def __post_init__(self) -> None:
        positive(self, "epochs", "batch_size", "lr", "lr_gamma")
        not_negative(self, "iters", "beta1", "beta2", "weight_decay")


@dataclass
class VarianceConfig:
    """Generated variance beside the turn (model.guide texture): shares of the new views in which it is drawn, 0 to 1."""

    background: float = 0.0
    """Another photo's background."""
    colour: float = 0.0
    """Brightness and colours as of another camera."""
    occluder: float = 0.0
    """Something in front."""
    crop: float = 0.0
    """A shifted crop, half of them mirrored."""

    def __post_init__(self) -> None:
        for name in ("background", "colour", "occluder", "crop"):
            value = getattr(self, name)
            require(0 <= value <= 1, f"VarianceConfig.{name}", "a share, 0 to 1", value)

    def any(self) -> bool:
        return max(self.background, self.colour, self.occluder, self.crop) > 0


@dataclass
class Stage3Config(Stage2Config):
    """Joint training of everything."""

    epochs: int = 20
    lr_encoder: float = 3.5e-4
    momentum_encoder: float = 0.9
    lr_steps: tuple[int, ...] = (10,)
    running_stats: Literal["all", "real"] = "all"
    """Which passes move the encoder's batch-norm averages: all, as the official code, or the real images' alone, since
    tests are on real images (matters while the generated ones are still far from them)."""
    memory_w: float = 1.0
    id_w: float = 1.0
    temperature: float = 0.04
    bank_momentum: float = 0.2
    """Share of the old bank row that stays at an update."""
    num_negatives: int = 8192
    variance: VarianceConfig = field(default_factory=VarianceConfig)
    cluster: ClusterConfig = field(default_factory=ClusterConfig)
    eval_every: int = 5

    def __post_init__(self) -> None:
        super().__post_init__()
        positive(self, "lr_encoder", "temperature", "num_negatives", "eval_every")
        not_negative(self, "momentum_encoder", "memory_w", "id_w", "bank_momentum")


@dataclass
class TrainConfig:
    """One training run."""

    dataset: DatasetName = "market1501"
    root: str = "data"
    """Folder that holds the dataset's folder (market1501/, dukemtmc-reid/, msmt17/, or the CSV lists)."""
    mesh_root: str | None = None
    """Folder of the meshes; default <root>/mesh."""
    meshes: Literal["auto", "vertices", "rendered"] = "auto"
    height: int = 256
    width: int = 128
    yaws: tuple[int, ...] = NOVEL_YAWS
    """Turns from which the new view is drawn, degrees."""
    name: str = "run"
    runs: str = "runs"
    """The run is written to <runs>/<name>."""
    seed: int = 1
    device: str = "auto"
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """bf16: autocast, with losses, gradient penalty and optimisers in float32; auto: where the device has it
    in hardware."""
    channels_last: Literal["auto", "on", "off"] = "auto"
    """Memory layout of images and networks; auto: on CUDA."""
    compile: Literal["auto", "on", "graphs", "off"] = "auto"
    """torch.compile of the networks: a minute or more at the start; graphs: they run as CUDA graphs, too; auto: off."""
    threads: int = 0
    """Threads that compute on the CPU; 0: one for each core that is free at the start, or what OMP_NUM_THREADS says."""
    workers: int = 4
    """Threads (loader torch: processes) that read ahead; 0: none."""
    loader: Literal["auto", "cached", "dali", "torch"] = "auto"
    """Who reads the images: cached (decoded pictures stay in memory, of the GPU where they fit), dali, torch, or the first
    of these that can be used."""
    cache: bool = False
    """Loader torch: keep decoded images in memory."""
    skip_broken: bool = False
    skip_unmeshed: bool = False
    """Train without the images that have no mesh, in the runs that need meshes."""
    checkpoint_every: int = 200
    """Iterations between checkpoints inside an epoch; each epoch ends with one too."""
    log_every: int = 10
    picture_every: int = 5
    """Epochs between pictures."""
    eval_batch_size: int = 64
    same_camera: bool = False
    """Scores also count matches in the query's own camera: for data of one camera."""
    tensorboard: bool = True
    sync_bn: bool = False
    """With several GPUs: batch norm over the joint batch (SyncBatchNorm) instead of each GPU's share."""
    init: str | None = None
    """Weights the first stage starts from: a run's folder or checkpoint, or files of any kind import-checkpoint knows, joined by
    commas."""
    model: ModelConfig = field(default_factory=ModelConfig)
    stage1: Stage1Config = field(default_factory=Stage1Config)
    stage2: Stage2Config = field(default_factory=Stage2Config)
    stage3: Stage3Config = field(default_factory=Stage3Config)

    def __post_init__(self) -> None:
        positive(self, "height", "width", "checkpoint_every", "log_every", "picture_every", "eval_batch_size")
        not_negative(self, "threads", "workers", "seed")
        # Reflection padding of the generator's pyramid needs more than 9 positions at a quarter of the size.
        fits = all(n % 4 == 0 and n >= 40 for n in self.image_size)
        require(fits, "TrainConfig.height and width", "multiples of 4 and at least 40", self.image_size)
        varied = self.stage3.variance.any() and self.model.guide == "mesh"
        require(not varied, "TrainConfig.stage3.variance", "0 throughout with model.guide mesh", self.stage3.variance)
        require(len(self.yaws) > 0, "TrainConfig.yaws", "at least one angle", self.yaws)

    @property
    def image_size(self) -> tuple[int, int]:
        return self.height, self.width

    @property
    def run_dir(self) -> Path:
        return Path(self.runs) / self.name

    @property
    def mesh_dir(self) -> Path:
        return Path(self.mesh_root) if self.mesh_root else Path(self.root) / "mesh"
