"""The torch loader: pixels, meshes, chance, resuming, workers, cache, augmentation, broken files."""

from __future__ import annotations

import pathlib
from collections.abc import Sequence
from dataclasses import fields

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import transforms

from gcl_fast.constants import NOVEL_YAWS
from gcl_fast.data.augment import Augment, Change, jitter_colors
from gcl_fast.data.loaders import stores as stores_module
from gcl_fast.data.loaders.torch_loader import TorchLoader
from gcl_fast.data.plans import sequential, shuffled
from gcl_fast.images import IMAGENET_MEAN, denormalise, load_image, load_uint8, normalise
from gcl_fast.records import Batch, Record

SIZE = (16, 8)


class FakeMeshes:
    """A view whose pixels are a function of file and angle, both readable from it."""

    def __init__(self, gone: Sequence[str] = ()) -> None:
        self.gone = set(gone)

    def render(self, record: Record, yaws: Sequence[float]) -> torch.Tensor:
        return torch.stack([torch.full(SIZE, (int(record.path.stem) * 360 + yaw) / 36000) for yaw in yaws])

    def missing(self, records: Sequence[Record]) -> list[Record]:
        return [r for r in records if r.path.name in self.gone]


def angles(batch: Batch) -> list[float]:
    """The yaws FakeMeshes was asked for."""
    value = (batch.mesh_novel[:, 0, 0, 0].double() * 0.5 + 0.5) * 36000
    return (value - batch.index * 360).round().tolist()


@pytest.fixture(scope="module")
def records(tmp_path_factory) -> list[Record]:
    folder = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(0)
    found = []
    for i in range(12):
        pixels = rng.integers(0, 256, (6, 5, 3), dtype=np.uint8)
        path = folder / f"{i}.jpg"
        Image.fromarray(pixels).resize((9, 20)).save(path)
        found.append(Record(path, pid=i // 3, camera=i % 2, frame=i))
    return found


def equal(a: Batch, b: Batch) -> bool:
    pairs = [(getattr(a, f.name), getattr(b, f.name)) for f in fields(Batch)]
    return all(x is y is None or torch.equal(x, y) for x, y in pairs)


def all_equal(left: Sequence[Batch], right: Sequence[Batch]) -> bool:
    return len(left) == len(right) and all(equal(a, b) for a, b in zip(left, right, strict=True))


def test_pixels_are_torchvisions(records):
    official = transforms.Compose(
        [
            transforms.Resize(SIZE, interpolation=transforms.InterpolationMode.BICUBIC),
            transforms.ToTensor(),
            transforms.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
        ]
    )
    for record in records[:3]:
        with Image.open(record.path) as image:
            expected = official(image.convert("RGB"))
        assert torch.equal(load_image(record.path, SIZE), expected)


def test_denormalise_inverts(records):
    pixels = load_uint8(records[0].path, SIZE)
    back = denormalise(normalise(pixels))
    assert torch.equal((back * 255).round().to(torch.uint8), torch.from_numpy(pixels).movedim(-1, 0))
    assert denormalise(torch.full((2, 3, 4, 4), 1e3)).max() == 1
    with pytest.raises(ValueError, match=r"uint8 \[..., H, W, 3\], got torch.float32 \[4, 4\]"):
        normalise(torch.zeros(4, 4))


def test_grey_and_transparent_images_become_rgb(tmp_path):
    for mode in ("L", "RGBA", "P", "CMYK"):
        path = tmp_path / f"{mode}.{'tiff' if mode == 'CMYK' else 'png'}"
        Image.new("RGB", (8, 16), (200, 200, 200)).convert(mode).save(path)
        pixels = load_uint8(path, SIZE)
        assert pixels.shape == (*SIZE, 3) and abs(int(pixels.mean()) - 200) <= 2


def test_batches(records):
    loader = TorchLoader(records, SIZE, meshes=FakeMeshes())
    batches = list(loader.epoch(sequential(12, 5), 0))
    assert [len(b) for b in batches] == [5, 5, 2] and len(loader) == 12
    assert torch.cat([b.index for b in batches]).tolist() == list(range(12))
    for b in batches:
        assert b.pid.tolist() == [records[i].pid for i in b.index] and b.pid.dtype == torch.int64
        assert b.camera.tolist() == [records[i].camera for i in b.index] and b.camera.dtype == torch.int64
        assert b.image.shape == (len(b), 3, *SIZE) and b.image.is_contiguous()
        for row, i in enumerate(b.index):
            assert torch.equal(b.image[row], load_image(records[i].path, SIZE))
            assert torch.equal(b.mesh[row, 0], (torch.full(SIZE, int(i) * 360 / 36000) - 0.5) / 0.5)
        assert b.mesh.shape == b.mesh_novel.shape == (len(b), 1, *SIZE)
        assert set(angles(b)) <= set(NOVEL_YAWS)
    plain = next(TorchLoader(records, SIZE).epoch(sequential(12, 5), 0))
    assert plain.mesh is None and plain.mesh_novel is None and torch.equal(plain.image, batches[0].image)


def test_a_batch_has_memory_of_its_own(records):
    plan = sequential(12, 5)
    for loader in (TorchLoader(records, SIZE), TorchLoader(records, SIZE, cache=True)):
        batch = next(loader.epoch(plan, 0))
        for tensor in (batch.index, batch.pid, batch.image):
            tensor.fill_(-1)
        again = next(loader.epoch(plan, 0))
        assert plan.batches[0].tolist() == again.index.tolist() == [0, 1, 2, 3, 4] and again.pid[4] == 1
        assert torch.equal(again.image[0], load_image(records[0].path, SIZE))


def test_novel_yaws_are_uniform_over_all_seven(records):
    loader = TorchLoader(records, SIZE, meshes=FakeMeshes(), cache=True)
    plan = sequential(12, 4)
    drawn = np.array([a for epoch in range(100) for b in loader.epoch(plan, epoch) for a in angles(b)])
    counts = np.array([(drawn == yaw).sum() for yaw in NOVEL_YAWS])
    assert counts.sum() == drawn.size == 1200
    assert ((counts - 1200 / 7) ** 2 / (1200 / 7)).sum() < 22.5  # chi-squared, 6 degrees of freedom, p = 0.001
    other = TorchLoader(records, SIZE, meshes=FakeMeshes(), yaws=(10,))
    assert all(a == 10 for b in other.epoch(plan, 0) for a in angles(b))


def test_chance_depends_on_seed_epoch_position_and_row(records):
    def draws(seed: int, epoch: int) -> list[float]:
        loader = TorchLoader(records, SIZE, meshes=FakeMeshes(), seed=seed)
        return [a for b in loader.epoch(sequential(12, 3), epoch) for a in angles(b)]

    assert draws(0, 0) == draws(0, 0)
    assert len({tuple(draws(s, e)) for s in range(3) for e in range(3)}) == 9
    assert len({tuple(draws(0, 0)[i : i + 3]) for i in (0, 3, 6, 9)}) > 1
    repeated = TorchLoader(records[:1] * 30, SIZE, meshes=FakeMeshes())
    assert len(set(angles(next(repeated.epoch(sequential(30, 30), 0))))) > 3


@pytest.mark.parametrize("options", [{"meshes": FakeMeshes()}, {"augment": Augment(pad=2)}])
def test_processes_draw_as_one_would_for_the_joint_batch(records, options):
    loader, plan = TorchLoader(records, SIZE, **options), sequential(12, 4)
    joint = list(loader.epoch(plan, 1))
    for rank in (0, 1):
        for whole, part in zip(joint, loader.epoch(plan.share(rank, 2), 1), strict=True):
            rows = slice(2 * rank, 2 * rank + 2)
            assert torch.equal(part.image, whole.image[rows])
            assert part.mesh_novel is None or torch.equal(part.mesh_novel, whole.mesh_novel[rows])


@pytest.mark.parametrize("workers", [0, 2])
def test_resuming_workers_and_cache_change_nothing(records, workers):
    plan = shuffled(range(12), 3, seed=1)
    guided, augmented = {"meshes": FakeMeshes(), "seed": 5}, {"augment": Augment(pad=2, color_jitter=0.2), "seed": 5}
    for options in (guided, augmented):
        expected = {e: list(TorchLoader(records, SIZE, **options).epoch(plan, e)) for e in (0, 1)}
        assert not equal(expected[0][0], expected[1][0])
        for cache in (False, True) if options is guided else (True,):
            loader = TorchLoader(records, SIZE, **options, workers=workers, cache=cache)
            for _ in range(2):  # cold and warm
                assert all_equal(list(loader.epoch(plan, 0)), expected[0])
            assert all_equal(list(loader.epoch(plan, 1, start=2)), expected[1][2:])
            assert list(loader.epoch(plan, 1, start=4)) == []
            begun = loader.epoch(plan, 0)
            assert equal(next(begun), expected[0][0])
            assert all_equal(list(loader.epoch(plan, 1, start=1)), expected[1][1:])  # after an epoch left half way
            if workers:
                with pytest.raises(RuntimeError, match="ended when another was started"):
                    next(begun)
            loader.close()


def test_global_generators_are_left_alone(records):
    torch.manual_seed(0)
    np.random.seed(0)
    before = torch.get_rng_state(), np.random.get_state()[1].tolist()
    loader = TorchLoader(records, SIZE, augment=Augment(pad=1), workers=1)
    list(loader.epoch(sequential(12, 6), 0))
    loader.close()
    assert torch.equal(torch.get_rng_state(), before[0]) and np.random.get_state()[1].tolist() == before[1]


def test_cache_reads_each_file_once(records, monkeypatch):
    read: list[pathlib.Path] = []
    rendered: list[tuple[float, ...]] = []
    monkeypatch.setattr(stores_module, "load_uint8", lambda path, size: (read.append(path), load_uint8(path, size))[1])
    meshes = FakeMeshes()
    plain_render = meshes.render
    meshes.render = lambda record, yaws: (rendered.append(tuple(yaws)), plain_render(record, yaws))[1]
    loader = TorchLoader(records, SIZE, meshes=meshes, cache=True)
    for epoch in range(3):
        list(loader.epoch(sequential(12, 4), epoch))
    assert sorted(read) == sorted(r.path for r in records)
    assert sum(0.0 in yaws for yaws in rendered) == 12 and len(rendered) == 36
    assert loader.cache.bytes == 12 * 16 * 8 * 7


def test_augmented_pictures_do_not_enter_the_cache(records):
    loader = TorchLoader(records, SIZE, augment=Augment(flip=0, pad=0, erase=1, color_jitter=0), cache=True)
    for epoch in range(2):
        list(loader.epoch(sequential(12, 4), epoch))
    assert np.array_equal(loader.cache.images.pictures[3].movedim(0, -1).numpy(), load_uint8(records[3].path, SIZE))


def test_shared_cache_that_does_not_fit_is_refused(records, monkeypatch):
    usage = stores_module.shutil.disk_usage
    needed = 12 * 16 * 8 * 3
    for free in (10, needed - 1):
        monkeypatch.setattr(stores_module.shutil, "disk_usage", lambda path, free=free: usage("/")._replace(free=free))
        with pytest.raises(ValueError, match="shared memory"):
            TorchLoader(records, SIZE, cache=True, workers=1)
    TorchLoader(records, SIZE, cache=True)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_broken_image_is_named_when_it_is_due(records, tmp_path, workers):
    cut = tmp_path / "cut.jpg"
    cut.write_bytes(records[0].path.read_bytes()[:400])
    loader = TorchLoader([*records[:4], Record(cut, 0, 0)], SIZE, workers=workers)
    batches = loader.epoch(sequential(5, 2), 0)
    assert next(batches).index.tolist() == [0, 1] and next(batches).index.tolist() == [2, 3]
    with pytest.raises(OSError, match=f"cannot read image {cut}"):
        next(batches)
    assert len(list(loader.epoch(sequential(4, 2), 1))) == 2  # the loader goes on
    loader.close()


def test_missing_files_and_meshes_are_named(records, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"gone\.jpg: no such file"):
        next(TorchLoader([Record(tmp_path / "gone.jpg", 0, 0)], SIZE).epoch(sequential(1, 1), 0))
    with pytest.raises(FileNotFoundError, match=r"2 of 12 images have no mesh") as caught:
        TorchLoader(records, SIZE, meshes=FakeMeshes(gone=["3.jpg", "7.jpg"]))
    assert "3.jpg" in str(caught.value) and "7.jpg" in str(caught.value)
    small = FakeMeshes(gone=["3.jpg"])
    small.folder = pathlib.Path("/m/vertices")
    with pytest.raises(FileNotFoundError, match=r"1 of 12 images have no mesh below /m/vertices"):
        TorchLoader(records, SIZE, meshes=small)
    small = FakeMeshes()
    small.render = lambda record, yaws: torch.zeros(len(yaws), 4, 4)
    with pytest.raises(ValueError, match=r"0\.jpg: expected float32 views \[2, 16, 8\], got torch.float32 \[2, 4, 4\]"):
        next(TorchLoader(records, SIZE, meshes=small).epoch(sequential(1, 1), 0))
    small.render = lambda record, yaws: torch.zeros(len(yaws), *SIZE, dtype=torch.float64)
    with pytest.raises(ValueError, match=r"0\.jpg: expected float32 views \[2, 16, 8\], got torch.float64 \[2, 16, 8\]"):
        next(TorchLoader(records, SIZE, meshes=small).epoch(sequential(1, 1), 0))


def test_what_a_worker_cannot_read_is_told_in_a_line(tmp_path):
    loader = TorchLoader([Record(tmp_path / "gone.jpg", 0, 0)], SIZE, workers=1)
    with pytest.raises(FileNotFoundError) as caught:
        next(loader.epoch(sequential(1, 1), 0))
    loader.close()
    assert str(caught.value).endswith("gone.jpg: no such file") and "\n" not in str(caught.value)


def test_bad_arguments(records):
    for options, words in (
        ({"image_size": (16,)}, "image_size"),
        ({"image_size": (0, 8)}, "image_size"),
        ({"seed": -1}, "seed"),
        ({"seed": True}, "seed"),
        ({"seed": 2**63}, "seed"),
        ({"workers": 1.5}, "workers"),
        ({"meshes": FakeMeshes(), "augment": Augment()}, "augment"),
        ({"meshes": FakeMeshes(), "yaws": ()}, "yaws"),
    ):
        with pytest.raises(ValueError, match=words):
            TorchLoader(records, **{"image_size": SIZE, **options})
    loader = TorchLoader(records, SIZE)
    with pytest.raises(ValueError, match="positions below 12.*got 12"):
        loader.epoch(sequential(13, 4), 0)
    with pytest.raises(ValueError, match="start must be between 0 and the plan's 3 batches, got 4"):
        loader.epoch(sequential(12, 4), 0, start=4)
    with pytest.raises(ValueError, match="epoch"):
        loader.epoch(sequential(12, 4), -1)
    assert tuple(range(45, 316, 45)) == NOVEL_YAWS


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(seed))


def test_each_augmentation():
    image = np.random.default_rng(0).integers(1, 256, (64, 32, 3), dtype=np.uint8)
    original = image.copy()
    off = {"flip": 0.0, "pad": 0, "erase": 0.0, "color_jitter": 0.0}
    same = Augment(**off)(image, rng())
    assert np.array_equal(same, image) and not np.shares_memory(same, image)
    assert np.array_equal(Augment(**{**off, "flip": 1.0})(image, rng()), image[:, ::-1])
    mean = np.array([round(255 * m) for m in IMAGENET_MEAN])
    offsets = set()
    for seed in range(60):
        cropped = Augment(**{**off, "pad": 3})(image, rng(seed))
        padded = np.pad(image, ((3, 3), (3, 3), (0, 0)))
        hits = [(t, x) for t in range(7) for x in range(7) if np.array_equal(padded[t : t + 64, x : x + 32], cropped)]
        assert len(hits) == 1
        offsets.update(hits)
        erased = Augment(**{**off, "erase": 1.0, "erase_fill": "mean"})(image, rng(seed))
        changed = (erased != image).any(axis=2)
        rows, columns = np.flatnonzero(changed.any(axis=1)), np.flatnonzero(changed.any(axis=0))
        box = erased[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        assert (box == mean).all() and 0.015 < box.shape[0] * box.shape[1] / (64 * 32) < 0.42
        jittered = Augment(**{**off, "color_jitter": 0.3})(image, rng(seed))
        assert jittered.dtype == np.uint8 and jittered.shape == image.shape and not np.array_equal(jittered, image)
    assert len(offsets) > 20 and {t for t, _ in offsets} == set(range(7)) == {x for _, x in offsets}
    assert np.array_equal(image, original)
    grey = np.full((8, 8, 3), 128, dtype=np.uint8)
    values = [Augment(**{**off, "color_jitter": 0.2})(grey, rng(s)) for s in range(30)]
    assert all(102 <= v.min() == v.max() <= 154 for v in values) and len({int(v[0, 0, 0]) for v in values}) > 10


def test_draws_fill_their_ranges_and_no_more():
    height, width, source = 80, 60, rng()
    augment = Augment(color_jitter=0.2, erase=1.0, crop_smallest=0.5, crop_aspect=(1.0, 2.0), rotation=10.0)
    changes = [augment.choose((height, width), source) for _ in range(4000)]
    boxes, crops = (np.array([getattr(c, name) for c in changes if getattr(c, name)]) for name in ("box", "crop"))
    assert len(boxes) == len(changes) and len(crops) > 3900

    def ends(values, low, high, slack):
        assert low - slack <= min(values) <= low + slack and high - slack <= max(values) <= high + slack

    ends([factor for c in changes for factor in c.jitter], 0.8, 1.2, 1e-3)
    ends([c.angle for c in changes], -10, 10, 0.05)
    for rectangles, areas, aspects in ((boxes, (0.02, 0.4), (0.3, 1 / 0.3)), (crops, (0.5, 1.0), (1.0, 2.0))):
        top, left, h, w = rectangles.T
        ends(h * w / (height * width), *areas, 0.02)
        ends(np.log(h / w), *np.log(aspects), 0.15)
        assert top.min() == left.min() == 0 and (top + h).max() == height and (left + w).max() == width


def test_erased_boxes_are_rather_tall():
    """Height / width is drawn evenly from 0.3 to 3.3, as by Zhong et al.: above 1 three times in four."""
    boxes = [Augment(erase=1.0, erase_area=(0.02, 0.1)).choose((60, 60), rng(s)).box for s in range(400)]
    assert 0.65 < np.mean([h > w for _, _, h, w in boxes]) < 0.85


def test_a_crop_may_lie_beside_the_picture():
    image = np.random.default_rng(0).integers(1, 256, (6, 4, 3), dtype=np.uint8)
    padded = np.pad(image, ((9, 9), (9, 9), (0, 0)))
    for top, left in ((0, 9), (9, 0), (18, 18), (12, 7)):
        change = Change(False, top, left, None, None)
        found = Augment(pad=9).apply(image, change)
        assert np.array_equal(found, padded[top : top + 6, left : left + 4])


@pytest.mark.parametrize(
    ("factors", "first", "second"),
    [
        ((1.0, 1.0, 0.0), [124] * 3, [19] * 3),  # 124.2 and 18.7, the greys of ITU-R BT.601
        ((1.0, 0.0, 1.0), [71] * 3, [71] * 3),  # their mean
        ((2.0, 1.0, 1.0), [255, 200, 100], [20, 40, 70]),
        ((1.0, 1.0, 1.5), [238, 88, 13], [6, 21, 43]),
    ],
)
def test_colours_by_hand(factors, first, second):
    image = np.array([[[200, 100, 50], [10, 20, 35]]], dtype=np.uint8)
    assert jitter_colors(image, factors).tolist() == [[first, second]]


def test_augmentation_happens_as_often_as_asked():
    image = np.arange(6 * 4 * 3, dtype=np.uint8).reshape(6, 4, 3)
    flips = sum(not np.array_equal(Augment(flip=0.3, pad=0, erase=0)(image, rng(s)), image) for s in range(1000))
    assert 240 < flips < 360
    aspects = {"erase_aspect": 0}, {"erase_aspect": 1.5}
    for bad in ({"flip": 1.5}, {"pad": -1}, {"pad": 1.5}, {"erase_area": (0.5, 0.2)}, *aspects, {"erase": -1}):
        with pytest.raises(ValueError, match=f"Augment: {next(iter(bad))} must be"):
            Augment(**bad)
