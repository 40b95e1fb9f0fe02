"""What changes in a new view beside the turn: backgrounds, colours, the crop, something in front."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from gcl_fast import distributed
from gcl_fast.config import VarianceConfig
from gcl_fast.guides import variance
from gcl_fast.guides.variance import Variance, draw_variance

SIZES = [(96, 48), (384, 128)]  # numbers that bfloat16 holds, and others


def drawn(config: VarianceConfig, size: int = 64, image_size: tuple[int, int] = (96, 48), seed: int = 0) -> Variance:
    return draw_variance(config, size, image_size, np.random.default_rng(seed), torch.device("cpu"))


def pictures(size: int, image_size: tuple[int, int] = (96, 48), dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.rand(size, 3, *image_size, generator=torch.Generator().manual_seed(1), dtype=dtype)


@pytest.mark.parametrize("image_size", SIZES)
def test_without_variance_a_view_stays_as_it_is(image_size: tuple[int, int]) -> None:
    image, nothing = pictures(4, image_size), drawn(VarianceConfig(), 4, image_size)
    assert (nothing.apply(image) - image).abs().max() < 1e-4 and not nothing.swapped.any()
    ground, other = (torch.zeros(4, 3, 2, 2), torch.zeros(4, 1, 2, 2)), (torch.ones(4, 3, 2, 2), torch.ones(4, 1, 2, 2))
    assert all(torch.equal(got, want) for got, want in zip(nothing.before_backdrop(ground, other), ground, strict=True))


@pytest.mark.parametrize("image_size", SIZES)
@pytest.mark.parametrize("config", [VarianceConfig(), VarianceConfig(crop=1.0)])
def test_half_precision_moves_no_picture(config: VarianceConfig, image_size: tuple[int, int]) -> None:
    """Places in a picture of 96 rows need more than bfloat16's eight bits."""
    image, change = pictures(8, image_size), drawn(config, 8, image_size)
    with torch.autocast("cpu", torch.bfloat16):
        got = change.apply(image)
        short = change.apply(image.bfloat16())
    assert got.dtype == torch.float32 and torch.equal(got, change.apply(image))
    assert torch.equal(short, change.apply(image.bfloat16().float()))


def test_a_crop_is_shifted_or_mirrored_and_repeats_the_edge() -> None:
    image, change = pictures(3), drawn(VarianceConfig(), 3)
    warp = change.warp.clone()
    warp[0, 0, 2] = 2 * 3 / 48  # three columns to the left
    warp[1, 1, 2] = -2 * 5 / 96  # five rows down
    warp[2, 0, 0] = -1
    got = replace(change, warp=warp).apply(image)
    left = torch.cat([image[0, :, :, 3:], image[0, :, :, -1:].expand(-1, -1, 3)], 2)
    down = torch.cat([image[1, :, :1].expand(-1, 5, -1), image[1, :, :-5]], 1)
    want = torch.stack([left, down, image[2].flip(2)])
    assert (got - want).abs().max() < 1e-4


def test_colours_and_what_stands_in_front() -> None:
    image, change = pictures(2), drawn(VarianceConfig(), 2)
    gain, offset = torch.full((2, 3, 1, 1), 1.1), torch.tensor([0.1, 0.0, -0.2]).view(1, 3, 1, 1).expand(2, 3, 1, 1)
    place = torch.tensor([[10, 30, 5, 9], [0, 0, 0, 0]])
    got = replace(change, gain=gain, offset=offset, place=place).apply(image)
    want = image * 1.1 + offset
    want[0, :, 10:30, 5:9] = 0
    assert (got - want).abs().max() < 1e-4


def test_gradients_are_those_of_finite_differences() -> None:
    change = drawn(VarianceConfig(background=1.0, colour=1.0, occluder=1.0, crop=1.0), 2, (6, 5))
    image = pictures(2, (6, 5), torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(change.apply, image)


def test_each_change_comes_as_often_as_asked_and_within_its_range() -> None:
    change = drawn(VarianceConfig(background=0.5, colour=0.3, occluder=0.2, crop=0.4), 4000)
    height = change.place[:, 1] - change.place[:, 0]
    shifted = (change.warp[:, :, 2] != 0).any(dim=1)
    counts = [change.swapped, change.gain[:, 0] != 1, height > 0, shifted, change.warp[:, 0, 0] < 0]
    for count, share in zip(counts, (0.5, 0.3, 0.2, 0.4, 0.2), strict=True):  # a crop is mirrored in half of the cases
        assert abs(float(count.float().mean()) - share) < 4 * (share * (1 - share) / 4000) ** 0.5
    for drawn_values, limit in ((change.gain - 1, variance.COLOUR), (change.offset, variance.COLOUR)):
        assert 0.99 * limit < drawn_values.abs().max() <= limit
    assert 0.99 * 2 * variance.SHIFT < change.warp[:, :, 2].abs().max() <= 2 * variance.SHIFT
    assert (change.place >= 0).all() and (change.place[:, 1] <= 96).all() and (change.place[:, 3] <= 48).all()
    assert sorted(change.backdrop.tolist()) == list(range(4000))


def test_changes_go_both_ways_and_to_the_edges() -> None:
    change = drawn(VarianceConfig(colour=1.0, occluder=1.0, crop=1.0), 4000)
    for values, limit in ((change.gain - 1, variance.COLOUR), (change.offset, variance.COLOUR), (change.warp[:, :, 2], 0.12)):
        assert values.min() < -0.98 * limit and values.max() > 0.98 * limit
    top, bottom, left, right = change.place.unbind(1)
    assert top.min() == left.min() == 0 and bottom.max() == 96 and right.max() == 48
    area = (bottom - top) * (right - left) / (96 * 48)
    assert variance.ERASED[0] - 0.02 < area.min() < 0.06 and 0.28 < area.max() <= variance.ERASED[1]


def test_another_background_comes_with_where_it_is_known() -> None:
    change = replace(drawn(VarianceConfig(), 2), swapped=torch.tensor([True, False]).view(2, 1, 1, 1))
    own, other = ((torch.full((2, 3, 2, 2), x), torch.full((2, 1, 2, 2), x)) for x in (1.0, 2.0))
    for part in change.before_backdrop(own, other):
        assert torch.equal(part[0], torch.full_like(part[0], 2.0)) and torch.equal(part[1], torch.full_like(part[1], 1.0))


def test_a_process_has_its_rows_of_the_joint_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    config = VarianceConfig(background=0.5, colour=0.3, occluder=0.2, crop=0.4)
    whole = drawn(config, 8)
    monkeypatch.setattr(distributed, "world", lambda: 2)
    for rank in (0, 1):
        monkeypatch.setattr(distributed, "rank", lambda rank=rank: rank)
        part = drawn(config, 4)
        rows = slice(4 * rank, 4 * rank + 4)
        assert all(torch.equal(getattr(part, name), getattr(whole, name)[rows]) for name in Variance.__dataclass_fields__)
