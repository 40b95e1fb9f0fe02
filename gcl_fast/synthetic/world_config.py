"""Difficulty of the synthetic world: every constant that decides it."""

from __future__ import annotations

from dataclasses import dataclass

from gcl_fast.errors import InputError


@dataclass(frozen=True)
class WorldConfig:
    """Difficulty of the world. Probabilities are in [0, 1]; the defaults are what `gcl-fast synth` writes.

    shirt_colors, trouser_colors  how many palette colours people draw from: fewer means more look-alikes
    pattern_probability           share of tops with stripes, checks, dots or blocks
    print_probability             share of people with a logo on the chest, and separately a print on the back
    bag_probability               share of people with a backpack or shoulder bag
    child_probability             share of children among the people
    camera_color                  0..1+, strength of the cameras' differences in gain, gamma and colour cross-talk
    exposure_jitter               standard deviation of the exposure of one visit, in stops
    light_contrast                0..1, share of directional light (1 = no ambient light at all)
    blur, noise                   multiply the cameras' blur and sensor noise
    jpeg_quality                  lowest and highest JPEG quality of a camera
    yaw_spread                    standard deviation in degrees of the heading around a camera's walking direction
    reverse_probability           share of visits in which people walk against the camera's usual direction
    occluder_probability          share of images with something in front of the person
    companion_probability         share of images with parts of another person beside or behind
    crop_shift, crop_scale        standard deviations of the detection box's shift (of its height) and of its log scale
    bad_crop_probability          share of boxes that cut the feet or the head
    standing_probability          share of visits in which the person stands still
    distractor_share, junk_share  images of people outside the query set, and bad detections (pid -1, Market only), as
                                  shares of the gallery
    frames_per_second             of every camera, for frame numbers
    """

    shirt_colors: int = 9
    trouser_colors: int = 6
    pattern_probability: float = 0.5
    print_probability: float = 0.35
    bag_probability: float = 0.4
    child_probability: float = 0.06
    camera_color: float = 0.6
    exposure_jitter: float = 0.12
    light_contrast: float = 0.42
    blur: float = 1.0
    noise: float = 1.0
    jpeg_quality: tuple[int, int] = (60, 92)
    yaw_spread: float = 22.0
    reverse_probability: float = 0.35
    occluder_probability: float = 0.14
    companion_probability: float = 0.08
    crop_shift: float = 0.02
    crop_scale: float = 0.05
    bad_crop_probability: float = 0.08
    standing_probability: float = 0.15
    distractor_share: float = 0.15
    junk_share: float = 0.05
    frames_per_second: float = 25.0

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if name.endswith(("_probability", "_share")) and not 0.0 <= value <= 1.0:
                raise InputError(f"WorldConfig: {name} must be in [0, 1], got {value}")
        if not self.shirt_colors >= 1 or not self.trouser_colors >= 1:
            raise InputError("WorldConfig: shirt_colors and trouser_colors must be at least 1")
        low, high = self.jpeg_quality
        if not 1 <= low <= high <= 100:
            raise InputError(f"WorldConfig: jpeg_quality must be 1 <= low <= high <= 100, got {self.jpeg_quality}")
