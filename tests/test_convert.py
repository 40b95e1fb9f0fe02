"""Published checkpoints: equal outputs after conversion, clear errors, nothing executed."""

from __future__ import annotations

import json
import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from gcl_fast.models import Discriminator, Generator, IdentityEncoder, convert_official, load_weights

SHAPES = json.loads((Path(__file__).parent / "fixtures" / "official_shapes.json").read_text())
DOUBLE = torch.float64


def official_state(kind: str, seed: int = 0) -> dict[str, Tensor]:
    """Random weights under the published names, scaled so that activations neither vanish nor explode."""
    rng = torch.Generator().manual_seed(seed)
    state = {}
    for name, shape in SHAPES["id_jvtc" if kind.startswith("id") else kind].items():
        if name.endswith("num_batches_tracked"):
            state[name] = torch.tensor(7)
        elif name.endswith(("running_var", "gamma")) or (kind.startswith("id") and len(shape) == 1 and name.endswith("weight")):
            state[name] = 0.5 + torch.rand(shape, generator=rng)
        elif len(shape) == 1:
            state[name] = 0.1 * torch.randn(shape, generator=rng)
        else:
            state[name] = torch.randn(shape, generator=rng) * (1.5 / np.prod(shape[1:])) ** 0.5
    if kind in ("id_mlc", "id_act"):
        head = "bn" if kind == "id_mlc" else "feat_bn"
        state = {f"base.{k}": v for k, v in state.items() if not k.startswith("feat")}
        like = {"weight": 0.8, "bias": 0.1, "running_mean": -0.2, "running_var": 0.6}
        state |= {f"{head}.{k}": v * (1 + torch.rand(2048, generator=rng)) for k, v in like.items()}
        state[f"{head}.num_batches_tracked"] = torch.tensor(7)
    return state


def randn(*shape: int, device: torch.device | str = "cpu", seed: int = 1) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=DOUBLE).to(device)


# --- the networks once more, from the description alone, on the published names ---------------------------------------


class Published:
    def __init__(self, state: dict[str, Tensor], device: torch.device) -> None:
        self.w = {k: v.to(device, DOUBLE) for k, v in state.items()}

    def conv(self, x: Tensor, name: str, stride: int = 1, dilation: int = 1) -> Tensor:
        weight = self.w[f"{name}.weight"]
        pad = dilation * (weight.shape[-1] // 2)
        steps = [(torch.arange(-pad, n + pad, device=x.device), n) for n in x.shape[2:]]
        rows, cols = (n - 1 - (n - 1 - i.abs()).abs() for i, n in steps)  # mirrored at the edge pixel
        return F.conv2d(x[:, :, rows][:, :, :, cols], weight, self.w[f"{name}.bias"], stride, 0, dilation)

    @staticmethod
    def norm(x: Tensor) -> Tensor:
        mean = x.mean((2, 3), keepdim=True)
        return (x - mean) / ((x - mean).square().mean((2, 3), keepdim=True) + 1e-5).sqrt()

    @staticmethod
    def act(x: Tensor) -> Tensor:
        return torch.where(x > 0, x, 0.2 * x)

    # generator

    def encode(self, x: Tensor) -> Tensor:
        root = "enc_content.model"
        for i, stride in enumerate((2, 1, 1, 2)):
            x = self.act(self.norm(self.conv(x, f"{root}.{i}.conv", stride)))
        for i in range(4):
            y = self.act(self.norm(self.conv(x, f"{root}.4.model.{i}.model.0.conv")))
            x = x + self.norm(self.conv(y, f"{root}.4.model.{i}.model.1.conv"))
        parts = [self.norm(self.conv(x, f"{root}.5.conv1.conv"))]
        for name, dilation in (("conv6", 3), ("conv12", 6), ("conv18", 9)):
            y = self.act(self.norm(self.conv(x, f"{root}.5.{name}.0.conv")))
            parts.append(self.norm(self.conv(y, f"{root}.5.{name}.1.conv", dilation=dilation)))
        return self.norm(self.conv(torch.cat(parts, 1), f"{root}.5.fuse.conv"))

    def mlp(self, x: Tensor, name: str) -> Tensor:
        for i in range(3):
            x = x @ self.w[f"{name}.model.{i}.fc.weight"].T + self.w[f"{name}.model.{i}.fc.bias"]
            x = self.act(x) if i < 2 else x
        return x

    def layer_norm(self, x: Tensor, name: str) -> Tensor:
        flat = x.reshape(len(x), -1)
        mean = flat.mean(1)
        std = ((flat - mean[:, None]).square().sum(1) / (flat.shape[1] - 1)).sqrt()
        y = (x - mean[:, None, None, None]) / (std + 1e-5)[:, None, None, None]
        return y * self.w[f"{name}.gamma"][:, None, None] + self.w[f"{name}.beta"][:, None, None]

    def decode(self, x: Tensor, code: Tensor) -> Tensor:
        for i in range(4):
            part = code[:, 2048 * i : 2048 * (i + 1)]
            w, b = self.mlp(part, f"mlp_w{i + 1}"), self.mlp(part, f"mlp_b{i + 1}")
            y = x
            for j in range(2):
                y = self.norm(self.conv(y, f"dec.model.1.model.{i}.model.{j}.conv"))
                y = y * w[:, 128 * j : 128 * (j + 1), None, None] + b[:, 128 * j : 128 * (j + 1), None, None]
                y = self.act(y) if j == 0 else y
            x = x + y
        for i in (3, 5):
            x = x.repeat_interleave(2, 2).repeat_interleave(2, 3)
            x = self.act(self.layer_norm(self.conv(x, f"dec.model.{i}.conv"), f"dec.model.{i}.norm"))
        for i in (6, 7):
            x = self.act(self.conv(x, f"dec.model.{i}.conv"))
        return self.conv(x, "dec.model.8.conv")

    # discriminator

    def score(self, x: Tensor, scale: int) -> Tensor:
        for i, stride in enumerate((1, 1, 2, 1, 2)):
            x = self.act(self.conv(x, f"cnns.{scale}.{i}.conv", stride))
        for i in range(5, 9):
            y = self.act(self.conv(x, f"cnns.{scale}.{i}.model.0.conv"))
            x = x + self.conv(y, f"cnns.{scale}.{i}.model.1.conv")
        return self.conv(x, f"cnns.{scale}.9")

    def scores(self, x: Tensor) -> list[Tensor]:
        ones = torch.ones(1, 1, 3, 3, dtype=DOUBLE, device=x.device)
        maps = []
        for scale in range(3):
            maps.append(self.score(x, scale))
            total = F.conv2d(x.flatten(0, 1)[:, None], ones, stride=2, padding=1)
            count = F.conv2d(torch.ones_like(x[:1, :1]), ones, stride=2, padding=1)
            x = (total / count)[:, 0].unflatten(0, x.shape[:2])
        return maps

    # identity encoder

    def bn(self, x: Tensor, name: str) -> Tensor:
        mean, var, weight, bias = (self.w[f"{name}.{k}"] for k in ("running_mean", "running_var", "weight", "bias"))
        shape = (1, -1) + (1,) * (x.dim() - 2)
        return (x - mean.view(shape)) / (var.view(shape) + 1e-5).sqrt() * weight.view(shape) + bias.view(shape)

    def resnet50(self, x: Tensor, root: str) -> Tensor:
        x = F.relu(self.bn(F.conv2d(x, self.w[f"{root}conv1.weight"], stride=2, padding=3), f"{root}bn1"))
        x = F.max_pool2d(x, 3, 2, 1)
        for stage, (depth, stage_stride) in enumerate(((3, 1), (4, 2), (6, 2), (3, 1)), start=1):
            for i in range(depth):
                p, stride = f"{root}layer{stage}.{i}.", stage_stride if i == 0 else 1
                y = F.relu(self.bn(F.conv2d(x, self.w[p + "conv1.weight"]), p + "bn1"))
                y = F.relu(self.bn(F.conv2d(y, self.w[p + "conv2.weight"], stride=stride, padding=1), p + "bn2"))
                y = self.bn(F.conv2d(y, self.w[p + "conv3.weight"]), p + "bn3")
                if i == 0:
                    x = self.bn(F.conv2d(x, self.w[p + "downsample.0.weight"], stride=stride), p + "downsample.1")
                x = F.relu(x + y)
        return x

    def identity(self, image: Tensor, kind: str) -> tuple[Tensor, Tensor]:
        fmap = self.resnet50(image, "" if kind == "id_jvtc" else "base.")
        batch, channels, height, _ = fmap.shape
        parts = fmap.reshape(batch, channels, 4, height // 4, -1).mean((3, 4))
        code = torch.stack([parts[:, c, p] for c in range(channels) for p in range(4)], 1)
        pooled = fmap.mean((2, 3))
        if kind == "id_jvtc":
            return code, self.bn(pooled @ self.w["feat.weight"].T + self.w["feat.bias"], "feat_bn")
        return code, self.bn(pooled, "bn" if kind == "id_mlc" else "feat_bn")


def close(ours: Tensor, theirs: Tensor) -> None:
    assert theirs.abs().mean() > 1e-3  # the comparison is not one of zeros
    torch.testing.assert_close(ours, theirs, rtol=1e-8, atol=1e-8)  # float64 on both sides


def test_generator_equals_published(device: torch.device) -> None:
    state = official_state("gen")
    ours = Generator().to(device, DOUBLE)
    ours.load_state_dict(convert_official(state, "gen"))
    theirs = Published(state, device)
    mesh, code = randn(2, 1, 64, 40, device=device), randn(2, 8192, device=device)
    structure = theirs.encode(mesh)
    assert structure.shape == (2, 128, 16, 10)
    with torch.no_grad():
        close(ours.encode(mesh), structure)
        close(ours(mesh, code), theirs.decode(structure, code))


def test_discriminator_equals_published(device: torch.device) -> None:
    state = official_state("dis")
    ours = Discriminator().to(device, DOUBLE)
    ours.load_state_dict(convert_official(state, "dis"))
    image = randn(2, 3, 70, 33, device=device)
    with torch.no_grad():
        for a, b in zip(ours(image), Published(state, device).scores(image), strict=True):
            close(a, b)


@pytest.mark.parametrize("kind", ["id_jvtc", "id_mlc", "id_act"])
def test_identity_encoder_equals_published(kind: str, device: torch.device) -> None:
    state = official_state(kind)
    ours = IdentityEncoder(kind.removeprefix("id_")).to(device, DOUBLE).eval()
    ours.load_state_dict(convert_official(state, kind))
    image = randn(2, 3, 64, 32, device=device)
    with torch.no_grad():
        for a, b in zip(ours(image), Published(state, device).identity(image, kind), strict=True):
            close(a, b)


# --- forms a checkpoint comes in ----------------------------------------------------------------------------------------

NUMBERS = {"conv1": "0", "bn1": "1", "layer1": "4", "layer2": "5", "layer3": "6", "layer4": "7"}


def numbered(name: str) -> str:
    if not name.startswith("base."):
        return name
    first, _, rest = name.removeprefix("base.").partition(".")
    return f"base.{NUMBERS[first]}.{rest}"


@pytest.mark.parametrize("kind", ["gen", "dis", "id_jvtc", "id_mlc", "id_act"])
def test_every_form_of_a_checkpoint_gives_the_same(kind: str) -> None:
    state = official_state(kind)
    before = torch.get_rng_state()
    plain = convert_official(state, kind)
    assert torch.equal(torch.get_rng_state(), before)
    parallel = {f"module.{k}": v for k, v in state.items()}
    forms = [
        parallel,
        {"state_dict": parallel, "epoch": 3, "best": None},
        {kind.split("_")[0]: state},
        {"state_dict": state | {"classifier.weight": torch.ones(3, 2)}},
    ]
    if kind.startswith("id"):
        forms.append(state | {"fc.weight": torch.ones(3, 2), "base.fc.weight": torch.ones(3, 2)})
        forms.append({numbered(k): v for k, v in state.items()})
    for form in forms:
        got = convert_official(form, kind)
        assert got.keys() == plain.keys() and all(got[k] is plain[k] for k in plain)


def test_all_published_weights_are_used() -> None:
    for kind in ("gen", "dis", "id_jvtc"):
        state = official_state(kind)
        used = {id(v) for v in convert_official(state, kind).values()}
        left = [k for k, v in state.items() if id(v) not in used]
        assert all(kind == "gen" and k.endswith(("norm.running_mean", "norm.running_var")) for k in left)


def test_missing_counters_are_zero_and_adain_statistics_unneeded() -> None:
    state = {k: v for k, v in official_state("id_jvtc").items() if not k.endswith("num_batches_tracked")}
    assert convert_official(state, "id_jvtc")["bn.num_batches_tracked"].item() == 0
    state = {k: v for k, v in official_state("gen").items() if "running" not in k}
    Generator().load_state_dict(convert_official(state, "gen"))


def test_other_sizes_with_a_module() -> None:
    small = Discriminator(width=4)
    state = dict(official_state("dis").items())
    with pytest.raises(ValueError, match=r"cnns\.0\.0\.conv\.weight \(expected \[4, 3, 1, 1\], got \[32, 3, 1, 1\]\)"):
        convert_official(state, "dis", module=small)
    assert convert_official(state, "dis", module=Discriminator()).keys() == small.state_dict().keys()


def edited(kind: str, *, drop: str | None = None, **change: Tensor) -> dict[str, Tensor]:
    return {k: v for k, v in official_state(kind).items() if k != drop} | {k.replace("__", "."): v for k, v in change.items()}


@pytest.mark.parametrize(
    ("state", "kind", "message"),
    [
        (edited("gen", drop="dec.model.3.norm.gamma"), "gen", r"missing dec\.model\.3\.norm\.gamma$"),
        (edited("gen", mlp_w1__model__0__fc__weight=torch.ones(512, 512)), "gen", r"mlp_w1.*\[512, 2048\], got \[512, 512\]"),
        (edited("dis", cnns__3__9__weight=torch.ones(1)), "dis", r"unknown cnns\.3\.9\.weight$"),
        (edited("dis", cnns__0__9__bias="text"), "dis", r"cnns\.0\.9\.bias \(expected \[1\], got str\)"),
        (edited("id_jvtc", layer3__6__conv1__weight=torch.ones(1)), "id_jvtc", r"unknown layer3\.6\.conv1\.weight$"),
        (edited("id_jvtc"), "id_mlc", r"missing bn\.weight"),
        (edited("id_mlc"), "id_act", r"missing feat_bn\.weight"),
        (edited("gen"), "dis", r"missing cnns\.0\.0\.conv\.weight.* and \d+ more"),
        ({}, "gen", "missing"),
        ({"base.0.weight": 0, "base.3.0.conv1.weight": 0}, "id_act", "no ReLU"),
        ({}, "generator", "kind must be one of gen, dis"),
    ],
)
def test_errors_name_what_is_wrong(state: dict, kind: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        convert_official(state, kind)


def test_not_a_mapping() -> None:
    with pytest.raises(TypeError, match="state_dict must be a mapping"):
        convert_official([1], "gen")


# --- files --------------------------------------------------------------------------------------------------------------


class MakesFolder:
    """Creates a folder when unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("form", ["zip", "legacy", "pickle", "named"])
def test_a_malicious_file_is_refused_and_not_executed(form: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    mark, path = tmp_path / "executed", tmp_path / ("x.safetensors" if form == "named" else "x.pth")
    content = {"state_dict": {"a": torch.ones(2)}, "extra": MakesFolder(mark)}
    if form == "pickle":
        path.write_bytes(pickle.dumps(content["extra"], protocol=2))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=form != "legacy")
    with pytest.raises(ValueError, match=path.name):
        load_weights(path)
    assert not mark.exists()
    pickle.loads(pickle.dumps(MakesFolder(mark)))
    assert mark.exists()  # the file would have done it


def test_refusal_names_the_object(tmp_path: Path) -> None:
    torch.save({"a": MakesFolder(tmp_path / "executed")}, tmp_path / "x.pth")
    with pytest.raises(ValueError, match=r"x\.pth was refused: it holds \S*mkdir"):
        load_weights(tmp_path / "x.pth")


@pytest.mark.parametrize("legacy", [False, True])
def test_checkpoint_with_numpy_scores(legacy: bool, tmp_path: Path) -> None:
    scores = {"best": np.float64(0.5), "epoch": np.int64(3), "loss": np.float32(1)}
    torch.save({"state_dict": {"a": torch.arange(3)}} | scores, tmp_path / "x.pth", _use_new_zipfile_serialization=not legacy)
    content = load_weights(str(tmp_path / "x.pth"))
    assert content.keys() == {"state_dict", *scores} and content["best"] is None
    assert content["state_dict"]["a"].tolist() == [0, 1, 2]


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    from safetensors.torch import save_file

    folder, state = tmp_path_factory.mktemp("saved"), {"a": torch.arange(40.0), "b": torch.ones(2, 3)}
    torch.save(state, folder / "new.pth")
    torch.save(state, folder / "old.pth", _use_new_zipfile_serialization=False)
    save_file(state, folder / "safe.safetensors")
    return {name: next(folder.glob(f"{name}.*")) for name in ("new", "old", "safe")}


@pytest.mark.parametrize("name", ["new", "old", "safe"])
def test_whole_files_are_read(name: str, saved: dict[str, Path]) -> None:
    content = load_weights(saved[name])
    assert content["a"].tolist() == list(range(40)) and content["b"].shape == (2, 3)


@pytest.mark.parametrize("name", ["new", "old", "safe"])
@settings(deadline=None, max_examples=25, derandomize=True)
@given(share=st.floats(0, 1, exclude_max=True))
def test_truncated_at_any_byte_is_an_error_that_names_the_file(name: str, saved: dict[str, Path], share: float) -> None:
    whole = saved[name].read_bytes()
    path = saved[name].with_name(f"cut_{saved[name].name}")
    path.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(ValueError, match=rf"{path.name} (is|was) (empty|.*truncated|.*ends within that name)"):
        load_weights(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"<!DOCTYPE html> not found", "no torch checkpoint"), (b"", "empty"), ([1, 2], "got list"), ({1: 2}, "names to tensors")],
)
def test_not_a_checkpoint(content: object, message: str, tmp_path: Path) -> None:
    path = tmp_path / "x.pth"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        torch.save(content, path)
    with pytest.raises(ValueError, match=rf"x\.pth.*{message}"):
        load_weights(path)


def test_no_such_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"nowhere\.pth does not exist"):
        load_weights(tmp_path / "nowhere.pth")
    with pytest.raises(FileNotFoundError, match="is not a file"):
        load_weights(tmp_path)
