"""The settings of a run as dataclasses.

A bad value is a ConfigError that names its key. Defaults are the published ones, but for yaws and precision; what a stage-1
method sets outside its own section (head, augmentation) is in `method_recipes`. docs/fidelity.md says where published and shipped
differ.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from gcl_fast.config.plain_values import after_epochs, not_negative, positive, require, shares, shares_below_one, two_images
from gcl_fast.config.stage1_schema import ClusterConfig, Stage1Config
from gcl_fast.constants import NOVEL_YAWS, BackboneName, DatasetName


@dataclass
class ModelConfig:
    """Networks: the published sizes by default; smaller ones for small machines."""

    variant: Literal["jvtc", "mlc", "act"] = "jvtc"
    """Head of the identity encoder: jvtc 512 features, mlc and act as wide as the backbone."""
    pooling: Literal["avg", "gem"] = "avg"
    """How the backbone's map becomes the matching feature: its mean, or its generalised mean with a learned exponent."""
    norm_bias: Literal["learned", "frozen"] = "learned"
    """Bias of the batch norm that ends the head; frozen: it stays 0."""
    backbone: BackboneName = "resnet50"
    width: int = 64
    """Channels of a ResNet's first stage; the other backbones have theirs."""
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
        resnet = self.backbone.startswith("resnet")
        require(resnet or self.width == 64, "ModelConfig.width", f"64 with backbone {self.backbone}", self.width)


@dataclass
class LossConfig:
    """Weights of the generative losses (the official values)."""

    adversarial: float = 1.0
    image: float = 5.0
    code: float = 5.0
    foreground: float = 0.0
    """How much more a pixel of the person counts in the image losses: by the mask in the mesh file, else by the body's
    silhouette; 0 (published): as much as the background."""
    penalty: float = 0.01
    """Squared-gradient regulariser of the discriminator on real images."""
    mixup_alpha: float = 0.6

    def __post_init__(self) -> None:
        not_negative(self, "adversarial", "image", "code", "foreground", "penalty")
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
        two_images(self, self.batch_size)
        after_epochs(self, "lr_steps")
        not_negative(self, "iters", "weight_decay")
        shares_below_one(self, "beta1", "beta2")


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
    """A shifted crop; half as many are mirrored, drawn by themselves."""

    def __post_init__(self) -> None:
        shares(self, "background", "colour", "occluder", "crop")

    def any(self) -> bool:
        return max(self.background, self.colour, self.occluder, self.crop) > 0


@dataclass
class Stage3Config(Stage2Config):
    """Joint training of everything."""

    epochs: int = 20
    lr_encoder: float = 3.5e-4
    momentum_encoder: float = 0.9
    lr_steps: tuple[int, ...] = (10,)
    lr_steps_encoder: tuple[int, ...] | None = None
    """Epochs after which the encoder's learning rate alone is multiplied by lr_gamma, lr_steps then being the generator's and
    the discriminator's; default: lr_steps."""
    running_stats: Literal["all", "real"] = "all"
    """Which passes move the encoder's batch-norm averages: all, as the official code, or the real images' alone, since
    tests are on real images."""
    average_encoder: float = 0.0
    """Share of a moving average of the encoder's weights that stays at an update; that average is then what is scored and kept,
    also of the control. 0 (published): the weights themselves."""
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
        after_epochs(self, "lr_steps_encoder")
        not_negative(self, "momentum_encoder", "memory_w", "id_w")
        shares(self, "bank_momentum")
        shares_below_one(self, "average_encoder")


def require_size(name: str, image_size: tuple[int, int]) -> None:
    """Or ConfigError: reflection padding of the generator's pyramid needs more than 9 positions at a quarter of the size."""
    require(all(n % 4 == 0 and n >= 40 for n in image_size), name, "multiples of 4 and at least 40", image_size)


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
    cudnn_benchmark: Literal["auto", "on", "off"] = "auto"
    """cuDNN tries its algorithms once for each shape of a batch, of which a run has few; auto: on CUDA."""
    compile: Literal["auto", "on", "graphs", "off"] = "auto"
    """torch.compile of the networks: a minute or more at the start; graphs: they run as CUDA graphs, too; auto: off."""
    step_graph: bool = False
    """A training step (of all but method mlc) as one CUDA graph, for a GPU that waits for its host."""
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
    wandb: str | None = None
    """Project of Weights & Biases where the run is shown, too (package wandb, your login there)."""
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
        require(self.seed < 2**63, "TrainConfig.seed", "below 2^63", self.seed)
        require_size("TrainConfig.height and width", self.image_size)
        for name, share in vars(self.stage3.variance).items():
            possible = share == 0 or self.model.guide != "mesh"
            require(possible, f"TrainConfig.stage3.variance.{name}", "0 with model.guide mesh", share)
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
