"""The package as a library: lazy names, and features of a user's images that are those of the data path."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import gcl_fast
from gcl_fast.config import TrainConfig, from_dict, to_dict
from gcl_fast.data.loaders.torch_loader import TorchLoader
from gcl_fast.encoder import Encoder, load_encoder
from gcl_fast.errors import CheckpointError, GclError, InputError, MissingFileError
from gcl_fast.evaluation import extract_features
from gcl_fast.models import IdentityEncoder
from gcl_fast.records import Record
from gcl_fast.runs.encoder_export import export_encoder
from gcl_fast.stages.checkpoint import save_checkpoint

Image = pytest.importorskip("PIL.Image", reason="photos are read by Pillow")
pytest.importorskip("torchvision", reason="the backbones need torchvision")

SIZE = (64, 40)


def trained_like(variant: str = "jvtc") -> IdentityEncoder:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = IdentityEncoder(variant, "resnet18", width=8)
        for name, buffer in network.named_buffers():  # statistics as after training
            if buffer.is_floating_point():
                buffer.copy_(0.5 + torch.rand_like(buffer) if name.endswith("var") else 0.1 * torch.randn_like(buffer))
    return network.eval()


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run folder with a checkpoint of stage 3."""
    values = {"height": SIZE[0], "width": SIZE[1], "model": {"variant": "jvtc", "backbone": "resnet18", "width": 8}}
    config = to_dict(from_dict(TrainConfig, values))
    modules = {"encoder": trained_like().state_dict()}
    save_checkpoint(tmp_path / "run/stage3/last.pt", {"stage": "stage3", "config": config, "modules": modules})
    return tmp_path / "run"


@pytest.fixture
def photos(tmp_path: Path) -> list[Path]:
    """Five files of several sizes and modes, one of them of the network's own size."""
    rng = np.random.default_rng(0)
    paths = []
    for i, (height, width) in enumerate([(128, 64), SIZE, (50, 90), (31, 17), (200, 100)]):
        picture = Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8))
        picture = picture.convert("L") if i == 2 else picture
        paths.append(tmp_path / f"{i}{'.jpg' if i % 2 else '.png'}")
        picture.save(paths[-1])
    return paths


def pixels(path: Path) -> np.ndarray:
    return np.array(Image.open(path).convert("RGB"))


def test_features_of_paths_are_those_of_evaluation_bit_for_bit(run: Path, photos: list[Path]) -> None:
    encoder = gcl_fast.load_encoder(run, device="cpu")
    assert encoder.image_size == SIZE and encoder.feature_dim == 512 and encoder.device == torch.device("cpu")
    loader = TorchLoader([Record(path, 0, 0) for path in photos], SIZE)
    for batch_size in (2, 64):
        want = extract_features(trained_like(), loader, len(photos), batch_size=batch_size, device="cpu")
        assert torch.equal(encoder(photos, batch_size=batch_size), want)
    assert want.dtype == torch.float32 and torch.allclose(want.norm(dim=1), torch.ones(5))


def test_every_kind_of_image_gives_the_same_features(run: Path, photos: list[Path]) -> None:
    encoder = load_encoder(run, device="cpu")
    for path in photos:
        want, array = encoder(path), pixels(path)
        assert want.shape == (1, 512)
        channels_first = torch.from_numpy(array).permute(2, 0, 1)
        kinds = [str(path), [path], Image.open(path), array, array[None], channels_first, channels_first[None], [array]]
        for images in kinds:
            assert torch.equal(encoder(images), want), type(images)
        unit = encoder(channels_first.float() / 255)
        if array.shape[:2] == SIZE:
            assert torch.equal(unit, want)  # not resized: the same numbers reach the network
        assert float((unit * want).sum()) > 0.999  # resized by torch's filter instead of Pillow's
    edges = np.zeros((32, 20, 3), np.uint8)
    edges[12:20] = 255  # bicubic weights go beyond black and white at an edge, pixels do not
    unit = torch.from_numpy(edges).permute(2, 0, 1).float() / 255
    scaled = torch.nn.functional.interpolate(unit[None], SIZE, mode="bicubic", antialias=True)
    assert scaled.max() > 1 and torch.equal(encoder(unit), encoder(scaled.clamp(0, 1)))
    mixed = encoder([photos[0], pixels(photos[1]), Image.open(photos[2])])
    torch.testing.assert_close(mixed, encoder(photos[:3]), rtol=0, atol=0)


def test_batches_and_progress_and_nothing_at_all(run: Path, photos: list[Path]) -> None:
    encoder, calls = load_encoder(run, device="cpu"), []
    features = encoder(photos, batch_size=2, progress=lambda done, total: calls.append((done, total)))
    assert calls == [(2, 5), (4, 5), (5, 5)] and features.shape == (5, 512)
    assert encoder([]).shape == (0, 512)
    encoder.network.train()
    assert torch.equal(encoder(photos, batch_size=2), features)  # always in eval mode
    (2 * features).requires_grad_().sum().backward()  # an ordinary tensor, not one of inference mode


def test_the_program_s_default_type_and_device_are_not_looked_at(run: Path, photos: list[Path]) -> None:
    """Once features were of that type, and pixels were sent to that device."""
    encoder = load_encoder(run, device="cpu")
    images = [*photos, pixels(photos[0]), torch.from_numpy(pixels(photos[1])).permute(2, 0, 1)]
    want = encoder(images)
    torch.set_default_dtype(torch.float64)
    try:
        with torch.device("meta"):
            got = encoder(images)
    finally:
        torch.set_default_dtype(torch.float32)
    torch.testing.assert_close(got, want, rtol=0, atol=0)


def test_images_that_cannot_be_used_are_named(run: Path, photos: list[Path], tmp_path: Path) -> None:
    encoder = load_encoder(run, device="cpu")
    photos[3].write_bytes(photos[3].read_bytes()[:100])
    with pytest.raises(OSError, match=photos[3].name):
        encoder(photos)
    with pytest.raises(FileNotFoundError, match=r"nowhere\.jpg"):
        encoder(tmp_path / "nowhere.jpg")
    with pytest.raises(InputError, match="image 0: .* is a folder"):
        encoder(tmp_path)
    good = torch.zeros(3, 8, 8)
    for wrong, error, words in [
        (np.zeros((8, 8, 3)), ValueError, r"image 0 must be an array \[H, W, 3\] uint8.*got float64 \[8, 8, 3\]"),
        (np.zeros((3, 8, 8), np.uint8), ValueError, r"uint8.*got uint8 \[3, 8, 8\]"),
        (np.zeros((0, 8, 3), np.uint8), ValueError, "must have pixels"),
        (torch.zeros(8, 8, 3), ValueError, r"a tensor \[3, H, W\].*got torch.float32 \[8, 8, 3\]"),
        (torch.zeros(3, 8, 8, dtype=torch.int64), ValueError, "got torch.int64"),
        (torch.zeros(3, 0, 8), ValueError, "must have pixels"),
        ([good, good * 255 + 200], ValueError, r"image 1: .*\[0, 1\], got values from 200 to 200"),
        (good * float("nan"), ValueError, r"\[0, 1\]"),
        ([good, 3], TypeError, "image 1 must be a path.*got int"),
        (None, TypeError, "image 0 must be a path.*got NoneType"),
    ]:
        with pytest.raises(error, match=words):
            encoder(wrong)
    with pytest.raises(ValueError, match="batch_size"):
        encoder(good, batch_size=0)


def test_too_little_memory_is_no_fault_of_the_picture(run: Path, photos: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    def exhausted(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr("gcl_fast.encoder.to_mode", exhausted)
    with pytest.raises(MemoryError):
        load_encoder(run, device="cpu")(Image.open(photos[0]))


def test_every_kind_of_weights(run: Path, photos: list[Path], tmp_path: Path) -> None:
    want = load_encoder(run, device="cpu")(photos)
    assert torch.equal(load_encoder(run / "stage3/last.pt", device="cpu")(photos), want)
    export_encoder(trained_like(), tmp_path / "exported", ("safetensors",), image_size=SIZE)
    for path in (tmp_path / "exported", tmp_path / "exported/encoder.safetensors"):
        exported = load_encoder(path, device="cpu")
        assert exported.image_size == SIZE and torch.equal(exported(photos), want)
    state = trained_like("act").state_dict()
    foreign = {
        k.replace("backbone.", "module.base.") if k.startswith("backbone.") else f"module.feat_{k}": v for k, v in state.items()
    }
    torch.save({"state_dict": foreign}, tmp_path / "foreign.pth")
    assert load_encoder(tmp_path / "foreign.pth", device="cpu").image_size == (256, 128)
    encoder = load_encoder(tmp_path / "foreign.pth", device="cpu", image_size=SIZE)
    assert torch.equal(encoder(photos), Encoder(trained_like("act"), SIZE)(photos)) and "(64, 40)" in repr(encoder)


def test_iterables_of_images(run: Path, photos: list[Path]) -> None:
    encoder = load_encoder(run, device="cpu")
    want = encoder(photos)
    kinds = [(path for path in photos), map(Image.open, photos), tuple(photos), dict.fromkeys(photos).keys(), iter(photos)]
    for images in kinds:
        assert torch.equal(encoder(images, batch_size=np.int64(64)), want), type(images)
    folder = photos[0].parent
    assert torch.equal(encoder(folder.glob("0.png")), encoder(photos[0])) and encoder(folder.glob("*.none")).shape == (0, 512)


def test_objects_that_are_no_images(run: Path, photos: list[Path], tmp_path: Path) -> None:
    encoder, good = load_encoder(run, device="cpu"), torch.zeros(3, 8, 8)
    cut = tmp_path / "cut.png"
    cut.write_bytes(photos[0].read_bytes()[:200])
    closed = Image.open(photos[0])
    closed.close()
    for wrong, error, words in [
        (photos[0].read_bytes(), TypeError, "image 0: got bytes; open them first"),
        ([good, b"a"], TypeError, "image 1: got bytes"),
        ({"a": photos[0]}, TypeError, "image 0 must be a path.*got dict"),
        ([good, Image.open(cut)], InputError, "image 1: the PIL image is truncated, damaged or closed"),
        ([good, good, closed], InputError, "image 2: the PIL image is truncated, damaged or closed"),
        (Image.new("F", (4, 4)), InputError, "^image 0: an image of mode F"),
        ([good, good.to_sparse()], TypeError, "image 1 must be a dense tensor, got layout torch.sparse_coo"),
        (good[None].to_sparse(), TypeError, "images must be a dense tensor"),
        ([good.to("meta")], TypeError, "image 0 must be a dense tensor, got one on the device meta"),
    ]:
        with pytest.raises(error, match=words):
            encoder(wrong)
    for batch_size in (True, 2.0, 0, None):
        with pytest.raises(ValueError, match="batch_size"):
            encoder(good, batch_size=batch_size)


def test_a_stage_s_folder_and_a_run_of_stage_2_alone(run: Path, photos: list[Path]) -> None:
    want = load_encoder(run, device="cpu")(photos[0])
    assert torch.equal(load_encoder(run / "stage3", device="cpu")(photos[0]), want)
    (run / "stage3").rename(run / "stage2")
    assert torch.equal(load_encoder(run, device="cpu")(photos[0]), want)


@pytest.mark.parametrize(
    "name",
    ["backbone.conv1.weight", "bn.weight", "feat.weight", "backbone.layer4.0.conv1.weight", "backbone.layer1.0.conv1.weight"],
)
def test_a_missing_entry_is_named(name: str, tmp_path: Path) -> None:
    state = trained_like().state_dict()
    del state[name]
    torch.save(state, tmp_path / "weights.pt")
    with pytest.raises(InputError, match=rf"weights\.pt.*{name.removeprefix('backbone.')}") as raised:
        load_encoder(tmp_path / "weights.pt", device="cpu")
    assert "\n" not in str(raised.value)


def test_weights_that_cannot_be_used_are_named(run: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(MissingFileError, match=r"no checkpoint in .*empty: expected stage3/last\.pt or stage1/last\.pt"):
        load_encoder(tmp_path / "empty")
    with pytest.raises(FileNotFoundError, match=r"nowhere\.pt"):
        load_encoder(tmp_path / "nowhere.pt")
    (tmp_path / "broken.pt").write_bytes(b"no checkpoint")
    with pytest.raises((GclError, ValueError), match=r"broken\.pt"):
        load_encoder(tmp_path / "broken.pt")
    for name in ("program.onnx", "program.pt2"):
        with pytest.raises(InputError, match=rf"{name} is an exported program"):
            load_encoder(tmp_path / name)
    if not torch.cuda.is_available():
        with pytest.raises(GclError, match="no CUDA GPU"):
            load_encoder(run, device="cuda")
    for size in ((64,), (0, 40), (64.0, 40), (True, 40), (), 64, "64"):
        with pytest.raises(ValueError, match="image_size"):
            load_encoder(run, device="cpu", image_size=size)
    assert load_encoder(run, device="cpu", image_size=np.array([64, 40])).image_size == (64, 40)
    assert issubclass(CheckpointError, GclError)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
def test_on_a_gpu(run: Path, photos: list[Path]) -> None:
    features = load_encoder(run, device="cuda")(photos)
    assert features.device.type == "cpu"
    torch.testing.assert_close(features, load_encoder(run, device="cpu")(photos), rtol=0, atol=1e-3)


def test_names_are_loaded_when_they_are_used() -> None:
    code = (
        "import sys, gcl_fast\n"
        "assert 'torch' not in sys.modules and not [m for m in sys.modules if m.startswith('gcl_fast.')]\n"
        "assert {'ops', 'reference', 'compat', 'models', 'config', 'load_encoder', 'train'} <= set(dir(gcl_fast))\n"
        "class Block:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.split('.')[0] in {'torchvision', 'PIL', 'yaml', 'tyro', 'rich', 'anny', 'safetensors', 'tensorboard'}:\n"
        "            raise ImportError(name + ' is blocked')\n"
        "sys.meta_path.insert(0, Block())\n"
        "for name in gcl_fast.__all__:\n"
        "    getattr(gcl_fast, name)\n"
        "assert gcl_fast.ops.rasterize and callable(gcl_fast.load_encoder) and callable(gcl_fast.train)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    with pytest.raises(AttributeError, match="module 'gcl_fast' has no attribute 'trian'"):
        gcl_fast.trian  # noqa: B018  # the access is the test
    assert (Path(gcl_fast.__file__).parent / "py.typed").is_file() and gcl_fast.train.__doc__
