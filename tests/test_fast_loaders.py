"""The cached and the DALI loader against the torch loader: pixels, order, chance, resuming, plans that change, broken files;
and which loader is chosen."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from gcl_fast.config import TrainConfig, from_dict
from gcl_fast.data.augment import Augment, Change
from gcl_fast.data.loaders import finish, free_memory
from gcl_fast.data.loaders import reader as choose
from gcl_fast.data.loaders.cached import CachedLoader
from gcl_fast.data.loaders.dali import DaliLoader, dali
from gcl_fast.data.loaders.finish import finish_batch, finish_images
from gcl_fast.data.loaders.meshes_ahead import MeshesAhead
from gcl_fast.data.loaders.reader import Reader
from gcl_fast.data.loaders.recipes import Chance, Recipe
from gcl_fast.data.loaders.stores import Store, Stores
from gcl_fast.data.loaders.torch_loader import TorchLoader
from gcl_fast.data.plans import Plan, camera_aware_batches, identity_batches, sequential, shuffled
from gcl_fast.errors import ConfigError, InputError, MissingPackageError, TooLittleMemoryError
from gcl_fast.images import normalise, upright_size
from gcl_fast.meshes.sources import RenderedFolders
from gcl_fast.records import Batch, Record
from tests.test_loader import FakeMeshes

SIZE = (16, 8)
YAWS = (45, 90, 135, 180)
KINDS = [CachedLoader, DaliLoader]
LEVEL = 1 / 255 / 0.224  # one of 255 levels after normalisation by the smallest deviation


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> tuple[list[Record], RenderedFolders]:
    """Twelve pictures of several sizes, and their meshes as pictures."""
    root = tmp_path_factory.mktemp("world")
    rng = np.random.default_rng(0)
    records = []
    for i in range(12):
        size = [(63, 127), (8, 16), (64, 128)][i % 3]
        path = root / f"{i}.{'png' if i == 5 else 'jpg'}"
        Image.fromarray(rng.integers(0, 256, (6, 5, 3), dtype=np.uint8)).resize(size).save(path)
        records.append(Record(path, pid=i // 3, camera=i % 2, frame=i))
        for yaw in (0, *YAWS):
            folder = root / "mesh" / (f"render_{yaw}" if yaw else "render")
            folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray(rng.integers(0, 256, (5, 4), dtype=np.uint8)).resize((8, 16)).save(folder / f"{i}.jpg")
    return records, RenderedFolders(root / "mesh", "market1501", SIZE)


def compare(want: list[Batch], got: list[Batch], *, image: float, mesh: float) -> None:
    assert len(want) == len(got)
    for a, b in zip(want, got, strict=True):
        assert torch.equal(a.index, b.index) and torch.equal(a.pid, b.pid) and torch.equal(a.camera, b.camera)
        assert a.image.shape == b.image.shape and b.image.dtype == torch.float32 and b.image.is_contiguous()
        assert (a.image - b.image).abs().max() <= image
        assert (a.mesh is None) == (b.mesh is None)
        if a.mesh is not None:
            for x, y in ((a.mesh, b.mesh), (a.mesh_novel, b.mesh_novel)):
                assert x.shape == y.shape and (x - y).abs().max() <= mesh


def same(want: list[Batch], got: list[Batch]) -> None:
    compare(want, got, image=0, mesh=0)


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("kind", KINDS)
def test_the_torch_loaders_batches(world, kind, workers):
    records, pictures = world
    labels, cameras = [r.pid for r in records], [r.camera for r in records]
    plans = [
        shuffled(range(12), 5, seed=1, drop_last=False),
        identity_batches(labels, 2, 4, seed=2),
        camera_aware_batches(labels, cameras, 3, 4, seed=3),
    ]
    # Pillow and torch may round a resized pixel to neighbouring levels, three factors of colour jitter up to 1.5 spread it
    pixel = 0 if kind is CachedLoader else LEVEL + 1e-5
    for options, image, mesh in (
        ({}, pixel, 0),
        ({"augment": Augment(pad=2)}, pixel, 0),
        ({"augment": Augment(pad=0, color_jitter=0.5)}, 4 * pixel, 0),
        ({"meshes": pictures, "yaws": YAWS}, pixel, 0 if kind is CachedLoader else 2 / 255 + 1e-5),
        ({"meshes": FakeMeshes(), "yaws": YAWS}, pixel, 1 / 255 + 1e-6 if kind is CachedLoader else 0),
    ):
        loader, plain = kind(records, SIZE, seed=4, workers=workers, **options), TorchLoader(records, SIZE, seed=4, **options)
        for epoch, plan in enumerate(plans):  # sizes and lengths change, on one loader
            whole = list(loader.epoch(plan, epoch))
            compare(list(plain.epoch(plan, epoch)), whole, image=image, mesh=mesh)
            for start in (1, len(plan)):
                same(whole[start:], list(loader.epoch(plan, epoch, start=start)))
        loader.close()


@pytest.mark.parametrize("kind", [TorchLoader, *KINDS])
def test_turns_without_meshes(world, kind):
    """For a generator that has the bodies: the angles of a loader with meshes, and no mesh file opened."""
    records, _ = world
    plan = shuffled(range(12), 5, seed=1, drop_last=False)
    turning = kind(records, SIZE, seed=4, turns=True, yaws=YAWS)
    with_meshes = TorchLoader(records, SIZE, seed=4, meshes=FakeMeshes(), yaws=YAWS)
    for epoch in range(2):
        whole, expected = list(turning.epoch(plan, epoch)), list(with_meshes.epoch(plan, epoch))
        assert all(
            torch.equal(a.yaw, b.yaw) and a.mesh is None and a.mesh_novel is None for a, b in zip(whole, expected, strict=True)
        )
    turning.close()
    assert next(iter(kind(records, SIZE).epoch(plan, 0))).yaw is None
    with pytest.raises(InputError, match="augment must be None"):
        kind(records, SIZE, turns=True, augment=Augment(pad=2))
    with pytest.raises(InputError, match="yaws must name at least one angle"):
        kind(records, SIZE, turns=True, yaws=())


@pytest.mark.parametrize("kind", KINDS)
def test_an_epoch_left_half_way_does_not_reach_the_next(world, kind):
    records, pictures = world
    options = {"meshes": pictures, "yaws": YAWS, "seed": 1, "workers": 1}
    loader, plan = kind(records, SIZE, **options), shuffled(range(12), 2, seed=1)
    whole = [list(kind(records, SIZE, **options).epoch(plan, e)) for e in range(2)]
    for taken in (0, 1, 3):
        begun = loader.epoch(plan, 0)
        same(whole[0][:taken], [next(begun) for _ in range(taken)])
        same(whole[1], list(loader.epoch(plan, 1)))
    loader.close()
    same(whole[0][2:], list(loader.epoch(plan, 0, start=2)))
    loader.close()


def test_a_closed_loader_stops_its_own_threads_and_starts_new_ones(world):
    records, pictures = world
    plan, options = sequential(12, 2), {"meshes": pictures, "yaws": YAWS, "seed": 1}
    expected = list(CachedLoader(records, SIZE, **options).epoch(plan, 0))
    loader = CachedLoader(records, SIZE, workers=1, **options)
    begun, threads = loader.epoch(plan, 0), loader.stores.pool
    same(expected[:1], [next(begun)])
    loader.close()
    with pytest.raises(RuntimeError, match="shutdown"):
        threads.submit(print)
    same(expected[1:], list(begun))
    loader.close()
    same(expected, list(loader.epoch(plan, 0)))
    loader.close()


def test_a_loader_leaves_the_threads_of_shared_pictures_to_the_others(world):
    records, _ = world
    stores = Stores(records, SIZE, workers=1)
    first, second = (CachedLoader(records, SIZE, stores=stores) for _ in range(2))
    threads = stores.pool
    first.close()
    assert stores.pool is threads and threads.submit(int).result() == 0
    assert len(list(second.epoch(sequential(12, 4), 0))) == 3
    stores.close()


@pytest.mark.parametrize("kind", KINDS)
def test_broken_and_missing_files_are_named(world, tmp_path, kind):
    records, _ = world
    cut = tmp_path / "cut.jpg"
    cut.write_bytes(records[0].path.read_bytes()[:400])
    for bad, words in ((cut, f"cannot read image {cut}"), (tmp_path / "gone.jpg", r"gone\.jpg: no such file")):
        loader = kind([*records[:4], Record(bad, 0, 0)], SIZE)
        batches = loader.epoch(sequential(5, 2), 0)
        assert next(batches).index.tolist() == [0, 1] and next(batches).index.tolist() == [2, 3]
        with pytest.raises(OSError, match=words):
            next(batches)
        assert len(list(loader.epoch(sequential(4, 2), 1))) == 2  # the loader goes on
        loader.close()


def every_loaders_batch(paths):
    """The photos as each loader reads them, the torch loader's first."""
    records = [Record(path, 0, 0) for path in paths]
    return [next(kind(records, SIZE).epoch(sequential(len(records), len(records)), 0)).image for kind in (TorchLoader, *KINDS)]


def test_the_orientation_tag_is_followed_by_every_loader(world, tmp_path):
    files, upright = [], []
    for turn in range(1, 9):
        exif = Image.Exif()
        exif[0x0112] = turn
        files += [tmp_path / f"{turn}.png", tmp_path / f"{turn}.jpg"]
        with Image.open(world[0][0].path) as image:
            picture = ImageOps.exif_transpose(_tagged(image, exif, files[-2]))
            _tagged(image, exif, files[-1])
        upright.append(normalise(np.array(picture.convert("RGB").resize(SIZE[::-1], Image.Resampling.BICUBIC))))
    for batch in every_loaders_batch(files):
        for turn, want in enumerate(upright):
            assert (batch[2 * turn] - want).abs().max() <= LEVEL + 1e-5
            assert (batch[2 * turn + 1] - want).abs().mean() < 0.4  # as JPEG is; another turn is 1 away


def test_an_orientation_tag_behind_the_pixels_of_a_png_is_followed_by_every_loader(tmp_path):
    """Some programs add what they know of a PNG at its end, where Pillow reads it with the pixels only."""
    exif = Image.Exif()
    exif[0x0112] = 6
    pixels = np.random.default_rng(0).integers(0, 256, (SIZE[1], SIZE[0], 3), dtype=np.uint8)
    path = tmp_path / "late.png"
    Image.fromarray(pixels).save(path, exif=exif)
    content = path.read_bytes()
    at = content.index(b"eXIf") - 4
    end = at + 12 + int.from_bytes(content[at : at + 4], "big")
    path.write_bytes(content[:at] + content[end:-12] + content[at:end] + content[-12:])  # the last 12 bytes are IEND
    assert upright_size(path) == SIZE
    want = normalise(np.ascontiguousarray(np.rot90(pixels, -1)))
    for batch in every_loaders_batch([path]):
        assert (batch[0] - want).abs().max() <= 1e-5


def _tagged(image, exif, path):
    image.save(path, exif=exif, quality=95)
    return Image.open(path)


def test_sixteen_bits_are_scaled_by_their_range_in_every_loader(tmp_path):
    levels = np.linspace(0, 65535, SIZE[0] * SIZE[1]).reshape(SIZE).astype(np.uint16)
    paths = [tmp_path / name for name in ("depth.png", "thermal.tif", "infrared.pgm")]
    for path in paths:
        Image.fromarray(levels).save(path)
    want = normalise(np.repeat((levels / 257).round().astype(np.uint8)[..., None], 3, -1))
    for batch in every_loaders_batch(paths):
        assert (batch - want).abs().max() <= 1e-5


def test_palettes_and_transparency_are_read_alike_by_every_loader(tmp_path):
    rng = np.random.default_rng(0)
    image = Image.fromarray(rng.integers(0, 256, (*SIZE, 4), dtype=np.uint8))
    names = {"clear.png": "RGBA", "palette.png": "P", "grey.png": "LA", "bits.png": "1", "still.gif": "P", "lossless.webp": "RGB"}
    for name, mode in names.items():
        picture = image.convert("L").convert(mode) if mode == "LA" else image.convert("RGBA" if mode == "RGBA" else "RGB")
        picture.convert(mode).save(tmp_path / name, **({"lossless": True} if name.endswith("webp") else {}))
    want, *others = every_loaders_batch([tmp_path / name for name in names])
    for batch in others:
        assert (batch - want).abs().max() <= 1e-5


def test_each_picture_is_read_once_for_all_loaders(world, monkeypatch):
    from gcl_fast.data.loaders import stores as module

    records, pictures = world
    read, decode = [], module.load_uint8
    monkeypatch.setattr(module, "load_uint8", lambda path, size: (read.append(path), decode(path, size))[1])
    shared = Stores(records, SIZE, meshes=pictures, yaws=YAWS, workers=2)
    plain = CachedLoader(records, SIZE, stores=shared)
    guided = CachedLoader(records, SIZE, stores=shared, meshes=pictures, yaws=YAWS)
    for epoch in range(3):
        list(plain.epoch(sequential(12, 5), epoch)), list(guided.epoch(sequential(12, 5), epoch))
    assert sorted(read) == sorted(r.path for r in records)
    assert shared.images.filled.all() and shared.meshes.filled.reshape(12, 5)[:, 0].all()
    assert shared.images.pictures.nbytes + shared.meshes.pictures.nbytes == free_memory.cached_bytes(12, SIZE, 5)
    with pytest.raises(ValueError, match="stores must hold the yaws"):
        CachedLoader(records, SIZE, stores=shared, meshes=pictures, yaws=(45,))
    with pytest.raises(ValueError, match="stores must hold these 3 records"):
        CachedLoader(records[:3], SIZE, stores=shared)
    shared.close()


def test_the_batched_form_is_the_row_by_row_form():
    chance = Chance(3, (), Augment(pad=5, color_jitter=0.4), (16, 12), turns=False)
    pixels = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (64, 3, 16, 12), dtype=np.uint8))
    recipe = Recipe(0, 0, np.arange(64))
    changes = [chance.change(recipe, row) for row in range(64)]
    plain = [c._replace(jitter=None) for c in changes]
    assert {c.flip for c in changes} == {False, True} and any(c.box for c in changes) and not all(c.box for c in changes)
    assert torch.equal(finish_batch(pixels, plain, 5), finish_images(pixels, plain, 5))
    assert torch.equal(finish_batch(pixels, None, 0), finish_images(pixels, None, 0))
    assert (finish_batch(pixels, changes, 5) - finish_images(pixels, changes, 5)).abs().max() <= LEVEL + 1e-5


def test_pictures_on_a_gpu_are_changed_together(monkeypatch):
    """Told by their device alone."""
    monkeypatch.setattr(finish, "finish_batch", lambda *given: given)
    pixels, changes = torch.empty(1, 3, 4, 2, dtype=torch.uint8, device="meta"), [Change(True, 0, 0, None, None)]
    assert finish_images(pixels, changes, 5) == (pixels, changes, 5)


def test_what_could_not_be_read_is_tried_again(world, tmp_path):
    path = tmp_path / "late.png"
    loader = CachedLoader([Record(path, 0, 0)], SIZE, workers=1)
    with pytest.raises(OSError, match=r"late\.png"):
        list(loader.epoch(sequential(1, 1), 0))
    Image.new("RGB", (8, 16), (200, 100, 50)).save(path)
    assert len(list(loader.epoch(sequential(1, 1), 1))) == 1
    loader.close()


def test_what_is_begun_is_not_begun_again():
    loaded, busy = [], threading.Event()
    with ThreadPoolExecutor(1) as pool:
        pool.submit(busy.wait)
        store = Store(3, (1,), lambda key, views: loaded.append(key) or torch.full((1, 1), key), pool=pool)
        for keys in ([0], [0, 1], [1, 1, 2]):
            store.request(keys)
        busy.set()
        assert store.gather(np.array([2, 0, 1, 0])).flatten().tolist() == [2, 0, 1, 0]
    assert loaded == [0, 1, 2]


def test_auto_takes_the_first_that_can_be_used(world, monkeypatch):
    dali()  # where it is missing, this test is about nothing
    records, pictures = world
    said: list[str] = []
    options = {"meshes": pictures, "yaws": YAWS, "say": said.append}
    images, all_of_it = (free_memory.cached_bytes(12, SIZE, views) for views in (0, 5))

    def with_room(room: int, kind: str = "auto") -> Reader:
        said.clear()
        monkeypatch.setattr(choose, "may_take", lambda device: room)
        return Reader(kind, records, SIZE, **options)

    reader = with_room(all_of_it)
    assert reader.kind == "cached" and reader.stores.meshes is not None and not said and reader.host_bytes == all_of_it
    plain = TorchLoader(records, SIZE, meshes=pictures, yaws=YAWS)
    same(list(plain.epoch(sequential(12, 4), 0)), list(reader.loader(meshes=pictures).epoch(sequential(12, 4), 0)))
    reader = with_room(all_of_it - 1)
    assert reader.kind == "cached" and reader.stores.meshes is None and "meshes not kept" in said[0] and len(said) == 1
    same(list(plain.epoch(sequential(12, 4), 0)), list(reader.loader(meshes=pictures).epoch(sequential(12, 4), 0)))
    assert with_room(images - 1).kind == "dali" and len(said) == 1 and said[0].startswith("loader: dali (cached: needs")
    assert isinstance(reader.loader(), CachedLoader) and isinstance(with_room(0).loader(), DaliLoader)
    monkeypatch.setattr(choose, "cannot_dali", lambda: "does not run here")
    assert with_room(0).kind == "torch" and len(said) == 1 and "dali: does not run here" in said[0]
    with pytest.raises(TooLittleMemoryError, match="loader cached: needs .* MiB, 0 MiB may be taken"):
        with_room(0, "cached")
    with pytest.raises(ValueError, match="loader must be one of auto, cached, dali, torch, got 'fast'"):
        Reader("fast", records, SIZE)
    with pytest.raises(ConfigError, match="loader must be one of 'auto', 'cached', 'dali', 'torch', got 'fast'"):
        from_dict(TrainConfig, {"loader": "fast"})


def test_what_other_readers_keep_is_not_free(world, monkeypatch):
    records, pictures = world
    all_of_it = free_memory.cached_bytes(12, SIZE, 5)
    monkeypatch.setattr(choose, "may_take", lambda device: all_of_it + 9)
    for taken, fits in ((9, True), (10, False)):
        reader = Reader("cached", records, SIZE, meshes=pictures, yaws=YAWS, taken=taken, say=lambda line: None)
        assert (reader.stores.meshes is not None) == fits


def test_a_reader_hands_its_settings_on_to_its_loaders(world):
    reader = Reader("torch", world[0], SIZE, yaws=(10, 20), seed=3, cache=True)
    assert reader.loader(turns=True).yaws == (10, 20) and reader.loader().chance.seed == 3
    assert reader.loader().cache is not None and Reader("torch", world[0], SIZE).loader().cache is None


def test_without_dali_it_says_what_to_install(world, monkeypatch):
    import sys

    monkeypatch.setattr(choose.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(choose, "may_take", lambda device: 0)
    said: list[str] = []
    assert Reader("auto", world[0], SIZE, say=said.append).kind == "torch" and "pip install nvidia-dali-cuda130" in said[0]
    monkeypatch.setitem(sys.modules, "nvidia.dali.fn", None)
    with pytest.raises(MissingPackageError, match="pip install nvidia-dali-cuda130"):
        DaliLoader(world[0], SIZE)


def test_free_memory_is_a_share_and_divided_among_processes(monkeypatch):
    monkeypatch.setattr(free_memory, "free_bytes", lambda device: 800)
    assert free_memory.may_take() == 400
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    assert free_memory.may_take() == 100
    monkeypatch.undo()
    assert 2**20 < free_memory.free_bytes() < 2**50


@pytest.mark.parametrize(
    ("limit", "used", "cache", "folder"),
    [
        ("memory.max", "memory.current", "inactive_file", "sys/fs/cgroup"),
        ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file", "sys/fs/cgroup/memory"),
    ],
)
def test_a_container_s_limit_leaves_what_is_not_used_and_the_page_cache(tmp_path, monkeypatch, limit, used, cache, folder):
    monkeypatch.setattr(free_memory, "Path", lambda *parts: tmp_path.joinpath(*(part.lstrip("/") for part in parts)))
    assert free_memory.free_bytes() == 2**62  # nobody says
    group = tmp_path / folder
    group.mkdir(parents=True)
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/meminfo").write_text("MemTotal: 9000 kB\nMemAvailable:    5000 kB\n")
    assert free_memory.free_bytes() == 5000 * 1024
    (group / used).write_text("3000000\n")
    (group / "memory.stat").write_text(f"anon 7\n{cache} 500000\n")
    (group / limit).write_text("max\n")
    assert free_memory.free_bytes() == 5000 * 1024
    (group / limit).write_text("4000000\n")
    assert free_memory.free_bytes() == 1500000
    (group / used).write_text("9000000\n")
    assert free_memory.free_bytes() == 0


def test_free_memory_of_a_gpu_is_what_it_says_and_for_one_process(monkeypatch):
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (4000, 9000))
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    assert free_memory.free_bytes("cuda") == 4000 and free_memory.may_take("cuda") == 1000


def test_an_epoch_that_is_left_leaves_no_meshes_behind(world):
    records, _ = world
    stores = Stores(records, SIZE, workers=1)
    loader = CachedLoader(records, SIZE, stores=stores, meshes=FakeMeshes(), yaws=YAWS)
    begun = loader.epoch(sequential(12, 2), 0)
    next(begun)
    assert loader._rendered._ahead
    begun.close()
    assert not loader._rendered._ahead
    stores.close()


def test_meshes_begun_ahead_are_kept_for_their_batch_alone(world):
    records, _ = world
    recipe, busy = Recipe(0, 0, np.arange(3)), threading.Event()
    with ThreadPoolExecutor(1) as pool:
        ahead = MeshesAhead(FakeMeshes(), records, Chance(0, YAWS, None, SIZE, True), pool)
        ahead.request(recipe)
        expected = ahead.take(recipe)
        assert not ahead._ahead
        pool.submit(busy.wait)  # what is begun now cannot run
        ahead.request(recipe)
        ahead.forget()
        busy.set()
        assert all(torch.equal(a, b) for a, b in zip(ahead.take(recipe), expected, strict=True))


def test_bad_arguments_are_named_by_the_loader(world):
    for kind in KINDS:
        with pytest.raises(ValueError, match=f"{kind.__name__}: image_size"):
            kind(world[0], (16,))
        with pytest.raises(ValueError, match=f"{kind.__name__}.epoch: plan must hold positions below 12.*got 12"):
            kind(world[0], SIZE).epoch(Plan((np.array([12]),)), 0)
