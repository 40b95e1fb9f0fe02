"""The settings of stage 1: pseudo-labels, augmentation, and the schedules of its methods."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from gcl_fast.config.plain_values import after_epochs, not_negative, positive, require, shares, shares_below_one, two_images


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
            shares(self, "rho")


@dataclass
class AugmentConfig:
    """Stage 1 only; stages 2 and 3 have the generator instead."""

    flip: float = 0.5
    """Probability of a left-right flip."""
    pad: int = 10
    """Pixels of black put around, before a crop of the old size; 0: none."""
    erase: float = 0.5
    """Probability that a rectangle is erased."""
    erase_largest: float = 0.4
    """Largest share of the image that is erased; the smallest is 0.02."""
    erase_fill: Literal["released", "mean"] = "released"
    """What is erased becomes: mean: the ImageNet mean, 0 once normalised; released: as the authors' code has it, which fills
    after normalising, with 0.485, 0.456, 0.406: lighter."""
    color_jitter: float = 0.0
    """Brightness, contrast and saturation change by at most this share."""
    crop_smallest: float = 1.0
    """Smallest share of the image to which it is cropped, then resized (an upright rectangle, 2 to 3 times as high as wide);
    1: not cropped."""
    rotation: float = 0.0
    """Turned in the picture plane by at most so many degrees to either side."""

    def __post_init__(self) -> None:
        not_negative(self, "pad")
        shares(self, "flip", "erase", "color_jitter")
        require(0 <= self.rotation <= 180, "AugmentConfig.rotation", "0 to 180 degrees", self.rotation)
        require(0.02 <= self.erase_largest <= 1, "AugmentConfig.erase_largest", "a share, 0.02 to 1", self.erase_largest)
        require(0 < self.crop_smallest <= 1, "AugmentConfig.crop_smallest", "a share above 0, at most 1", self.crop_smallest)


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
    memory_start: Literal["features", "zeros"] = "features"
    """What the memory rows are before training: the images' features, or zeros, which no image is like."""
    camstyle: bool = True
    """Use the camera-styled images of bounding_box_train_camstyle where they are; plain augmentation where not."""

    def __post_init__(self) -> None:
        positive(self, "epochs", "batch_size", "lr", "backbone_lr", "lr_gamma")
        two_images(self, self.batch_size)
        after_epochs(self, "lr_steps")
        not_negative(self, "iters", "sgd_momentum", "weight_decay")


@dataclass
class MLCConfig(WarmupConfig):
    """Multi-label classification against a memory (Wang and Zhang, CVPR 2020)."""

    memory_start: Literal["features", "zeros"] = "zeros"

    threshold: float = 0.6
    """Similarity above which a row may be a positive."""
    min_neighbors: int = 10
    single_label_epochs: int = 5
    """Last epoch in which each image is its own class; epochs count from first_epoch."""
    first_epoch: Literal[0, 1] = 0
    """Number of the first epoch, for single_label_epochs and momentum_epochs."""
    walk: Literal["released", "mutual"] = "released"
    """Which neighbours are positives: mutual, as the paper says: those before the first neighbour whose own t nearest do not hold
    the image; released, as the authors' code does: the nearest above the threshold always, and one more place counts as near."""
    freeze_norm_bias: bool = False
    """Keep the bias of the head's batch norm at 0 in this method, whatever model.norm_bias says."""
    test_feature: Literal["after-norm", "before-norm"] = "before-norm"
    """The feature that stage 1 and its control run are scored by, `gcl-fast evaluate` of them too: before the head's batch norm
    (published), or after it, as the later stages are."""
    positive_weight: float = 5.0
    hard_share: float = 0.01
    """Share of the negatives, the most similar ones, that count."""
    momentum: float = 0.5
    """Share of the old memory row after momentum_epochs; grows linearly from 0."""
    momentum_epochs: int = 60

    def __post_init__(self) -> None:
        super().__post_init__()
        positive(self, "min_neighbors", "positive_weight", "hard_share", "momentum_epochs")
        not_negative(self, "single_label_epochs")
        shares(self, "hard_share", "momentum")
        require(-1 <= self.threshold <= 1, "MLCConfig.threshold", "a cosine, -1 to 1", self.threshold)


@dataclass
class JVTCConfig(WarmupConfig):
    """Joint visual and temporal consistency (Li and Zhang, ECCV 2020), without a source domain. Epochs count from 1."""

    epochs: int = 100
    lr: float = 0.1
    lr_steps: tuple[int, ...] = (39, 79)
    views: int = 4
    """Views of each image in a batch (K)."""
    local_temperature: float = 0.1
    global_temperature: float = 0.05
    global_weight: float = 0.2
    target_norm: Literal["l1", "l2"] = "l1"
    """How the c rows of a cluster share the target of the global loss: 1/c each (published), or 1/sqrt(c) each."""
    global_from: int = 10
    """First epoch of the global loss and of labels."""
    label_every: int = 5
    """Epochs between labels."""
    temporal_from: int = 30
    """First epoch whose labels also use frame numbers; beyond `epochs`: never, nor in the control run, and no frame numbers are
    needed."""
    bin_frames: int = 100
    """Width of a bin of the frame intervals."""
    smooth_bins: float = 50.0
    """Standard deviation of the Gaussian that smooths the bins."""
    within_camera: Literal["released", "once"] = "released"
    """Intervals of a cluster's n images in one camera to the first of them: released, as the authors' code counts: of all of
    them, the first too, n times each; once: of the others, once each."""
    per_recording: bool = True
    """Where file names tell recordings apart (MSMT17): clusters and intervals of each recording by itself, since each has a clock
    of its own; from temporal_from on."""
    recording_rho: float = 4.8e-3
    """Takes the place of cluster.rho within one recording, without eps_scale; the images of one so small that this gives no
    radius are alone."""
    candidates: int = 200
    """Visually nearest images of each whose joint similarity is computed."""
    momentum_step: float = 0.01
    momentum_max: float = 0.8
    """Share of the old memory row: momentum_step * epoch, at most momentum_max."""
    renormalise: bool = False
    """Bring a memory row to length 1 each time it moves."""
    euclidean_share: float = 0.3
    """Share of the squared distance itself in the distance that is clustered; the rest is its Jaccard distance."""
    joint_share: float = 0.5
    """The same of the joint distance."""
    eps_scale: float = 0.8
    """Factor on the radius that rho gives (0.8 without a source domain)."""
    cluster: ClusterConfig = field(default_factory=lambda: ClusterConfig(k1=21, rho=1.6e-3, min_samples=1))
    """k1 counts the image itself: 20 others."""

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
            "recording_rho",
        )
        not_negative(self, "global_weight", "momentum_step")
        shares(self, "momentum_max", "recording_rho")
        shares_below_one(self, "euclidean_share", "joint_share")
        require(self.batch_size % self.views == 0, "JVTCConfig.batch_size", f"a multiple of views={self.views}", self.batch_size)
        # The local loss tells an image's views from those of the batch's other images: of one alone it is 0.
        two = 2 * self.views
        require(self.batch_size >= two, "JVTCConfig.batch_size", f"the views of two images at least ({two})", self.batch_size)

    @property
    def reads_frames(self) -> bool:
        """Whether frame numbers are ever used; in a continuation, which goes on beyond `epochs`, as in stage 1."""
        return self.temporal_from <= self.epochs


@dataclass
class Stage1Config:
    """Warm-up of the identity encoder by an unsupervised method. The fields here are cluster-contrast's; `augment` and
    `eval_every` hold for every method; mlc and jvtc have sections of their own."""

    method: Literal["cluster-contrast", "mlc", "jvtc"] = "cluster-contrast"
    epochs: int = 50
    iters: int = 400
    """Iterations an epoch; 0: one pass over the clusters; -1: by the number of images, each about 8 times at most, and
    400 at most."""
    batch_size: int = 256
    num_instances: int = 16
    """Images of each identity in a batch (P x K: K)."""
    sampler: Literal["multiple-gallery", "random"] = "multiple-gallery"
    """The K images of an identity: multiple-gallery (published): one, and K - 1 that other cameras saw, repeated where they are
    fewer; random: any K."""
    camera_aware: bool = False
    """Spread the K images evenly over the identity's cameras, whatever `sampler` says."""
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
        two_images(self, self.batch_size)
        after_epochs(self, "lr_steps")
        not_negative(self, "weight_decay")
        shares(self, "momentum")
        require(self.iters >= -1, "Stage1Config.iters", "at least -1", self.iters)
        require(
            self.batch_size % self.num_instances == 0,
            "Stage1Config.batch_size",
            f"a multiple of num_instances={self.num_instances}",
            self.batch_size,
        )
