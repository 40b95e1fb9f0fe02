"""Titles of the report: stages, scores, guesses, groups of curves, and captions of pictures that the run gave none."""

from __future__ import annotations

from dataclasses import dataclass

from gcl_fast.report.formats import NOTHING, is_number

STAGES = {
    "untrained": "Untrained network",
    "stage1": "Stage 1: identity encoder warm-up",
    "stage2": "Stage 2: generator warm-up",
    "stage3": "Stage 3: joint training",
    "control": "Control: stage 1 continued",
}
SCORES = {"mAP": "mAP", "rank1": "Rank-1", "rank5": "Rank-5", "rank10": "Rank-10", "mINP": "mINP"}
GENERATING = ("stage2", "stage3")
GUESSES = {  # who made a view, as scores in metrics.json begin
    "blank_background": "Guess: background without a person",
    "mean_image": "Guess: mean training image",
    "source_image": "Guess: the photo, not turned",
    "carried_pixels": "No generator: the photo's pixels, turned by the mesh",
}


@dataclass(frozen=True)
class Measure:
    """How a score of generated views ends in metrics.json, and how it is shown."""

    key: str
    title: str
    note: str
    unit: str
    digits: int

    def text(self, value: object) -> str:
        return f"{value:.{self.digits}f}{self.unit}" if is_number(value) else NOTHING


MEASURES = (
    Measure("psnr", "Whole image, PSNR", "On RGB in [0, 1]; mean of the images' PSNRs; higher is better.", " dB", 2),
    Measure("psnr_body", "On the person's pixels alone, PSNR", "Within the silhouette of the turned mesh.", " dB", 2),
    Measure("ssim", "Structural similarity (SSIM)", "1 for equal images.", "", 3),
)
RESOLVED = {  # keys of what a run writes down of its machine and of settings on `auto`
    "hardware": "Processor or GPU",
    "device": "Device",
    "processes": "Processes",
    "threads": "CPU threads of a process",
    "precision": "Precision",
    "channels_last": "Channels-last memory layout",
    "compile": "torch.compile",
    "loader": "Image loader",
    "meshes": "Meshes",
    "images": "Training images",
    "torch": "PyTorch",
}
CAPTIONS = {  # by the end of a picture's name
    "novel_views": "People not trained on, turned to new angles: guiding mesh, generated view, truth; warped: the photo's own "
    "pixels, carried to the new angle by the mesh.",
    "ranked_lists": "Queries drawn at random (blue) and their best gallery images: green the same person, red another; "
    "below each its cosine similarity.",
    "train": "Training images: what the generator makes of a photo and a mesh.",
    "test": "Images not trained on: what the generator makes of a photo and a mesh.",
}
GROUPS = {  # by the first part of a scalar's name, in this order
    "total": "Total loss",
    "contrast": "Cluster contrast",
    "loss": "Loss",
    "image": "Image L1",
    "code": "Identity code L1",
    "adv": "Adversarial, generator",
    "dis": "Discriminator",
    "mem": "Memory contrast",
    "id": "Identity contrast",
    "scores": "Held-out scores",
    "clusters": "Pseudo-labels",
    "camera": "Agreement of clusters with cameras",
    "eps": "Clustering radius eps",
    "lr": "Learning rate",
}
SCHEDULES = ("lr",)
"""Groups of values that are set, not measured: drawn as steps."""
ALIASES = {"outliers": "clusters", "largest": "clusters", "num": "clusters", "memory": "mem", "identity": "id"}


def stage_title(name: str) -> str:
    return STAGES.get(name, name)


def stage_name(name: str) -> str:
    """Within a sentence: "stage 3"."""
    return STAGES[name].split(":")[0].lower()


def in_words(name: str) -> str:
    """A key as a title: "novel_views" -> "Novel views"."""
    return name.replace("_", " ").capitalize()


def group_of(name: str) -> str:
    """The panel a scalar belongs to: "image_rec" -> "image", "mAP" -> "scores", "train/loss" -> "train"."""
    if name in SCORES or name.lower().startswith(("rank", "cmc")):
        return "scores"
    first = name.split("/")[0] if "/" in name else name.split("_")[0]
    return ALIASES.get(first, first)
