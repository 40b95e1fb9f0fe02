"""Few photos of one's own: whether they are enough, how long an epoch is, and what is said at the start."""

from __future__ import annotations

from dataclasses import replace

import pytest

from gcl_fast.config import ClusterConfig, ConfigError, Stage1Config, TrainConfig, load_shipped
from gcl_fast.errors import InputError
from gcl_fast.runs.photo_count import check_count, count_notes, with_iterations


def test_an_epoch_of_own_photos_goes_by_their_number() -> None:
    for name in ("folder", "csv"):
        config = load_shipped(name)
        steps = [with_iterations(config, images).stage1.iters for images in (2, 97, 1000, 12_800, 50_000)]
        assert steps == [1, 3, 31, 400, 400], name
    config = load_shipped("folder")
    given = replace(config, stage1=replace(config.stage1, iters=100))
    assert with_iterations(given, 97) is given
    assert count_notes(given, (1,), 1000, iters=100) == []
    (note,) = count_notes(given, (1,), 320, iters=100)
    assert note.startswith("an epoch of stage 1 shows each of 320 images about") and "--stage1.iters -1" in note
    (note,) = count_notes(with_iterations(config, 1000), (1,), 1000, iters=-1)
    assert note.startswith("an epoch of stage 1 has 31 steps of 256: each of 1,000 images about 8 times")
    (note,) = count_notes(with_iterations(config, 100_000), (1,), 100_000, iters=-1)
    assert ": 102,400 pictures of 100,000 images (" in note  # fewer than twice each
    with pytest.raises(ConfigError, match="iters must be at least -1, got -2"):
        Stage1Config(iters=-2)


def test_only_the_configurations_of_own_photos_go_by_their_number() -> None:
    from gcl_fast.config.yaml_files import shipped

    assert {name for name in shipped() if load_shipped(name).stage1.iters == -1} == {"csv", "folder"}
    assert TrainConfig().stage1.iters == 400


def test_too_few_photos_are_known_before_training() -> None:
    config = load_shipped("folder")
    with pytest.raises(
        InputError, match=r"9 training images, too few: .* 30 nearest images \(--stage1.cluster.k1\).* 31 images.* 6$"
    ):
        check_count(config, (1,), 9)
    with pytest.raises(
        InputError, match=r"7 training images, too few: .*4 images or more \(--stage1.cluster.min-samples\).* takes 8;"
    ):
        check_count(config, (1,), 7)
    with pytest.raises(InputError, match=r"--stage3.cluster.k1"):
        check_count(config, (2, 3), 9)
    with pytest.raises(InputError, match="1 training image: training needs at least two"):
        check_count(config, (2,), 1)
    check_count(config, (2,), 2)
    check_count(config, (1, 2, 3), 31)
    few = replace(config, stage1=replace(config.stage1, cluster=ClusterConfig(k1=6)))
    check_count(few, (1,), 9)
    check_count(few, (1,), 8)  # twice four images
    with pytest.raises(InputError, match="30 training images, too few: .* 30 nearest images .*, which would be all of them"):
        check_count(config, (1,), 30)
    pairs = replace(config, stage1=replace(config.stage1, cluster=ClusterConfig(k1=6, min_samples=2)))
    with pytest.raises(InputError, match="give more photos$"):  # no smaller k1 is advised
        check_count(pairs, (1,), 6)
    check_count(replace(config, dataset="market1501"), (1,), 9)  # a published layout trains as it did


@pytest.mark.parametrize("section", ["stage1.cluster", "stage1.jvtc.cluster", "stage3.cluster"])
def test_a_share_of_the_pairs_that_is_none_of_them_is_known_before_training(section: str) -> None:
    """The radius of clusters is their mean: of the published share for jvtc, 0.0016, 25 images have none."""
    rule, base = ClusterConfig(k1=6, rho=0.0016, min_samples=1), load_shipped("market1501")
    method = "jvtc" if "jvtc" in section else "cluster-contrast"
    stage1 = replace(base.stage1, method=method, cluster=rule, jvtc=replace(base.stage1.jvtc, cluster=rule))
    config = replace(base, stage1=stage1, stage3=replace(base.stage3, cluster=rule))
    stages = (3,) if "stage3" in section else (1,)
    with pytest.raises(InputError, match=rf"25 training images, too few: .* 0\.0016 .*--{section}.rho.* none of 300;"):
        check_count(config, stages, 25)
    check_count(config, stages, 26)
    never = replace(stage1, jvtc=replace(stage1.jvtc, epochs=9, global_from=10))
    if method == "jvtc":
        check_count(replace(config, stage1=never), stages, 25)


def test_a_large_k1_is_told_with_one_to_try() -> None:
    config = with_iterations(load_shipped("folder"), 97)
    first, second = count_notes(config, (1, 3), 97, iters=4)
    assert "--stage1.cluster.k1" in first and first.endswith("try --stage1.cluster.k1 9") and "a tenth of 97" in first
    assert second.endswith("try --stage3.cluster.k1 9")
    jvtc = replace(config, stage1=replace(config.stage1, method="jvtc"))
    assert count_notes(jvtc, (1,), 97, iters=-1)[0].endswith("try --stage1.jvtc.cluster.k1 9")
    assert count_notes(config, (2,), 97, iters=4) == count_notes(config, (1, 3), 3000, iters=400) == []
    mlc = replace(config, stage1=replace(config.stage1, method="mlc"))
    assert count_notes(mlc, (1,), 40, iters=-1) == []
