"""The networks: shapes, meaning of the outputs, gradients, initial weights, precision, weights from files, errors."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from gcl_fast.models import Discriminator, Generator, IdentityEncoder
from gcl_fast.models.blocks import AdaINResidualBlock, ResidualBlock
from gcl_fast.models.norms import ChannelLayerNorm, InstanceNorm, _LayerNorm, instance_norm
from gcl_fast.reference.step import adain as plain_adain
from gcl_fast.reference.step import layer_norm
from tests.weights import equal

DOUBLE = torch.float64


def randn(*shape: int, device: torch.device | str = "cpu", seed: int = 1, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype).to(device)


def seeded(make, *args, **kwargs) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return make(*args, **kwargs)


def small_encoder(variant: str = "jvtc", **kwargs) -> IdentityEncoder:
    return seeded(IdentityEncoder, variant, "resnet18", width=8, **kwargs)


# --- shapes -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(256, 128), (128, 64), (44, 40)])
def test_generator_shapes(size: tuple[int, int], device: torch.device) -> None:
    generator = seeded(Generator, 64, width=2, mlp_width=8).to(device)
    mesh, code = randn(2, 1, *size, device=device), randn(2, 64, device=device)
    structure = generator.encode(mesh)
    assert structure.shape == (2, 16, size[0] // 4, size[1] // 4)
    image = generator.decode(structure, code)
    assert image.shape == (2, 3, *size)
    assert torch.equal(image, generator(mesh, code))


@pytest.mark.parametrize("size", [(256, 128), (128, 64), (17, 17), (50, 19)])
def test_discriminator_maps_go_from_full_to_quarter(size: tuple[int, int], device: torch.device) -> None:
    maps = seeded(Discriminator, width=2).to(device)(randn(2, 3, *size, device=device))
    for scale, scores in enumerate(maps):
        rows, cols = size
        for _ in range(scale + 2):
            rows, cols = -(-rows // 2), -(-cols // 2)
        assert scores.shape == (2, 1, rows, cols)
    assert len(maps) == 3


@pytest.mark.parametrize("variant", ["jvtc", "mlc", "act"])
@pytest.mark.parametrize(("backbone", "width", "channels"), [("resnet18", 8, 64), ("resnet18", 12, 96), ("resnet50", 4, 128)])
def test_identity_encoder_shapes(variant: str, backbone: str, width: int, channels: int, device: torch.device) -> None:
    encoder = seeded(IdentityEncoder, variant, backbone, width=width, feature_width=24).to(device)
    code, feature = encoder(randn(2, 3, 128, 64, device=device))
    feature_dim = 24 if variant == "jvtc" else channels
    assert (encoder.code_dim, encoder.feature_dim) == (4 * channels, feature_dim)
    assert code.shape == (2, 4 * channels) and feature.shape == (2, feature_dim)


def test_published_sizes() -> None:
    with torch.device("meta"):
        assert {v: (e.code_dim, e.feature_dim) for v in ("jvtc", "mlc", "act") if (e := IdentityEncoder(v))} == {
            "jvtc": (8192, 512),
            "mlc": (8192, 2048),
            "act": (8192, 2048),
        }
        assert IdentityEncoder(backbone="resnet18").code_dim == 2048
        assert IdentityEncoder().backbone(torch.empty(1, 3, 256, 128)).shape == (1, 2048, 16, 8)
        assert Generator().encode(torch.empty(1, 1, 256, 128)).shape == (1, 128, 64, 32)


# --- identity encoder ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("backbone", ["resnet18", "resnet50"])
def test_backbone_is_torchvisions_with_last_stride_1(backbone: str) -> None:
    from torchvision.models import resnet

    theirs = seeded(getattr(resnet, backbone)).eval()
    for conv in (theirs.layer4[0].conv1, theirs.layer4[0].conv2, theirs.layer4[0].downsample[0]):
        conv.stride = (1, 1)
    ours = seeded(IdentityEncoder, "mlc", backbone).eval()
    ours.backbone.load_state_dict({k: v for k, v in theirs.state_dict().items() if not k.startswith("fc.")})
    theirs.avgpool, theirs.fc = nn.Identity(), nn.Identity()
    image = randn(1, 3, 64, 32)
    with torch.no_grad():
        got, float32, exact = ours.backbone(image).flatten(1), theirs(image), theirs.double()(image.double())
    assert (got - exact).abs().max() <= 2 * (float32 - exact).abs().max()


@settings(deadline=None, max_examples=12, derandomize=True)
@given(height=st.integers(1, 130), width=st.integers(1, 40))
def test_code_is_the_last_map_in_4_horizontal_parts(height: int, width: int) -> None:
    encoder = small_encoder("mlc").to(DOUBLE).eval()
    image = randn(2, 3, height, width, dtype=DOUBLE)
    with torch.no_grad():
        code, feature = encoder(image)
        fmap = encoder.backbone(image)
    parts = F.adaptive_avg_pool2d(fmap, (4, 1))  # [2, C, 4, 1]
    for channel in (0, 1, 63):
        for part in range(4):
            torch.testing.assert_close(code[:, channel * 4 + part], parts[:, channel, part, 0])
    torch.testing.assert_close(feature, fmap.mean((2, 3)) / (1 + 1e-5) ** 0.5)  # fresh running statistics: not L2-normalised


def test_training_mode_uses_batch_statistics() -> None:
    encoder = small_encoder().to(DOUBLE).train()
    _, feature = encoder(randn(6, 3, 64, 32, dtype=DOUBLE))
    torch.testing.assert_close(feature.mean(0), torch.zeros(512, dtype=DOUBLE))
    assert encoder.bn.num_batches_tracked == 1


@pytest.mark.parametrize("variant", ["jvtc", "mlc"])
def test_autocast_keeps_code_and_feature_in_float32(variant: str, device: torch.device) -> None:
    encoder = small_encoder(variant).to(device).eval()
    image = randn(4, 3, 64, 32, device=device)
    with torch.no_grad():
        exact = encoder(image)
        with torch.autocast(device.type, dtype=torch.bfloat16):
            half = encoder(image)
    for a, b in zip(half, exact, strict=True):
        assert a.dtype == torch.float32
        assert F.cosine_similarity(a, b).min() > 0.999  # bfloat16 keeps 8 bits


# --- weights from files -------------------------------------------------------------------------------------------------


def same(a: nn.Module, b: nn.Module) -> bool:
    return equal(a.state_dict(), b.state_dict())


def test_weights_from_own_checkpoint_and_from_torchvision(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import torchvision

    source = small_encoder()
    torch.save({"state_dict": source.state_dict()}, tmp_path / "own.pt")
    assert same(IdentityEncoder("jvtc", "resnet18", width=8, weights=tmp_path / "own.pt"), source)

    theirs = torchvision.models.resnet18()
    torch.save(theirs.state_dict(), tmp_path / "resnet18.pth")
    encoder = IdentityEncoder("act", "resnet18", weights=str(tmp_path / "resnet18.pth"))
    assert torch.equal(encoder.backbone.layer4[1].conv2.weight, theirs.layer4[1].conv2.weight)
    for wrong in ({"backbone": "resnet50"}, {"backbone": "resnet18", "width": 32}):
        with pytest.raises(ValueError, match=r"resnet18\.pth' must be a torchvision resnet"):
            IdentityEncoder("act", weights=tmp_path / "resnet18.pth", **wrong)
    with pytest.raises(ValueError, match=r"own\.pt' must be this encoder's state_dict"):
        IdentityEncoder("act", "resnet18", width=8, weights=tmp_path / "own.pt")

    asked = []  # ImageNet weights come from torchvision, on request alone

    class Weights:
        def get_state_dict(self, **_: object) -> dict[str, Tensor]:
            return theirs.state_dict()

    monkeypatch.setattr(torchvision.models, "get_weight", lambda name: asked.append(name) or Weights())
    IdentityEncoder("jvtc", "resnet18", width=4)
    assert asked == []
    encoder = IdentityEncoder("jvtc", "resnet18", weights="imagenet")
    assert asked == ["ResNet18_Weights.IMAGENET1K_V1"]
    assert torch.equal(encoder.backbone.conv1.weight, theirs.conv1.weight)

    def offline(_: Weights, **__: object) -> None:
        raise OSError("no route")

    monkeypatch.setattr(Weights, "get_state_dict", offline)
    with pytest.raises(OSError, match="could not be downloaded .*no route.* give a file"):
        IdentityEncoder("jvtc", "resnet18", weights="imagenet")


def test_bad_weights_files(tmp_path: Path) -> None:
    (tmp_path / "cut.pt").write_bytes(b"PK\x03\x04 and no more")
    with pytest.raises(ValueError, match=r"cut\.pt is a truncated"):
        small_encoder(weights=tmp_path / "cut.pt")
    with pytest.raises(FileNotFoundError, match="nowhere"):
        small_encoder(weights="nowhere.pt")
    with pytest.raises(ValueError, match="width 64 only, got width 8"):
        small_encoder(weights="imagenet")


def test_importing_the_models_needs_torch_alone() -> None:
    code = "import sys, gcl_fast.models; print([m for m in ('torchvision', 'safetensors', 'PIL', 'scipy') if m in sys.modules])"
    root = Path(__file__).parents[1]
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=root, check=True)
    assert done.stdout.strip() == "[]"


# --- blocks -------------------------------------------------------------------------------------------------------------


def test_channel_layer_norm_by_hand(device: torch.device) -> None:
    norm = seeded(ChannelLayerNorm, 3).to(device, DOUBLE)
    x = 5 + 2 * randn(4, 3, 6, 5, device=device, dtype=DOUBLE)
    y = ((norm(x) - norm.beta[:, None, None]) / norm.gamma[:, None, None]).flatten(1)
    torch.testing.assert_close(y.mean(1), torch.zeros_like(y[:, 0]))
    std = x.flatten(1).std(1)  # unbiased
    torch.testing.assert_close(y.std(1), std / (std + 1e-5), rtol=1e-12, atol=0)
    assert torch.autograd.gradcheck(norm, x.requires_grad_(), fast_mode=True)


def test_norms_equal_the_plain_ones_with_their_gradients(device: torch.device) -> None:
    norm = seeded(ChannelLayerNorm, 3).to(device, DOUBLE)
    scale, shift = (randn(2, 3, device=device, seed=s, dtype=DOUBLE).requires_grad_() for s in (2, 3))
    grad = randn(2, 3, 7, 5, device=device, seed=4, dtype=DOUBLE)
    for size in (1e-4, 1.0, 1e3):  # beside the 1e-5 that is added to the deviation
        x = (size * (1 + randn(2, 3, 7, 5, device=device, dtype=DOUBLE))).requires_grad_()
        for fast, plain, parameters in (
            (norm, lambda x: layer_norm(x, norm.gamma, norm.beta), (x, norm.gamma, norm.beta)),
            (InstanceNorm(3), lambda x: plain_adain(x, torch.ones_like(scale), torch.zeros_like(shift)), (x,)),
            (lambda x: instance_norm(x, scale, shift), lambda x: plain_adain(x, scale, shift), (x, scale, shift)),
            (
                lambda x: instance_norm(x, scale, shift, slope=0.2),
                lambda x: F.leaky_relu(plain_adain(x, scale, shift), 0.2),
                (x, scale, shift),
            ),
        ):
            got, want = fast(x), plain(x)
            torch.testing.assert_close(got, want, rtol=1e-9, atol=1e-9)
            for a, b in zip(*(torch.autograd.grad(y, parameters, grad) for y in (got, want)), strict=True):
                torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-8 * float(b.abs().max()))


def test_norms_keep_half_precision(device: torch.device) -> None:
    norm = seeded(ChannelLayerNorm, 3).to(device)
    x = (1 + randn(2, 3, 16, 16, device=device)).bfloat16().requires_grad_()
    scale, shift = (randn(2, 3, device=device, seed=s).bfloat16().requires_grad_() for s in (2, 3))
    grad = randn(2, 3, 16, 16, device=device, seed=4)
    for got, want in (
        (norm(x), layer_norm(x.double(), norm.gamma.double(), norm.beta.double())),
        (instance_norm(x, scale, shift), plain_adain(*(t.double() for t in (x, scale, shift)))),
    ):
        assert got.dtype == torch.bfloat16
        torch.testing.assert_close(got.double(), want, rtol=2e-2, atol=3e-2)
        (a,), (b,) = (torch.autograd.grad(y, x, grad.to(y.dtype), retain_graph=True) for y in (got, want))
        torch.testing.assert_close(a.double(), b.double(), rtol=2e-2, atol=2e-2 * float(b.abs().max()))


def test_norms_are_twice_differentiable(device: torch.device) -> None:
    """Once mean and deviation counted as constants: the second derivative of a sum was wrong, that of a square an error."""
    norm = seeded(ChannelLayerNorm, 3).to(device, DOUBLE)
    x, weight = randn(2, 3, 4, 5, device=device, dtype=DOUBLE), randn(2, 3, 4, 5, device=device, seed=1, dtype=DOUBLE)
    scale, shift = (randn(2, 3, device=device, seed=s, dtype=DOUBLE).requires_grad_() for s in (2, 3))

    def second(f: Callable[[Tensor], Tensor], power: int) -> Tensor:
        leaf = x.clone().requires_grad_()
        (first,) = torch.autograd.grad((f(leaf) ** power * weight).sum(), leaf, create_graph=True)
        return torch.autograd.grad(first.square().sum(), leaf)[0]

    for power in (1, 2):
        torch.testing.assert_close(second(norm, power), second(lambda x: layer_norm(x, norm.gamma, norm.beta), power))
        got, want = (second(lambda x, f=f: f(x, scale, shift), power) for f in (instance_norm, plain_adain))
        torch.testing.assert_close(got, want)
    leaves = x[:1, :, :2, :3].clone().requires_grad_(), norm.gamma, norm.beta
    assert torch.autograd.gradgradcheck(_LayerNorm.apply, leaves)


def test_channel_layer_norm_of_a_constant_has_finite_gradients() -> None:
    x = torch.full((1, 2, 4, 4), 3.0, requires_grad=True)
    norm = seeded(ChannelLayerNorm, 2)
    norm(x).sum().backward()
    assert all(t.grad.isfinite().all() for t in (x, norm.gamma, norm.beta))


def test_channels_last_stay_so_through_the_generator(device: torch.device) -> None:
    """A map that went over to the other layout would be copied by every convolution that follows, forward and back."""
    generator = seeded(Generator, 16, width=2, mlp_width=8).to(device, memory_format=torch.channels_last)
    seen: list[tuple[str, Tensor]] = []
    for name, module in generator.named_modules():
        if not isinstance(module, (nn.Linear, nn.LeakyReLU)):
            module.register_forward_hook(lambda _, __, out, name=name: seen.append((name, out)))
    mesh, code = randn(2, 1, 40, 44, device=device), randn(2, 16, device=device)
    generator(mesh.contiguous(memory_format=torch.channels_last), code)
    maps = [(name, out) for name, out in seen if isinstance(out, Tensor) and out.dim() == 4]
    assert {name.split(".")[0] for name, _ in maps} == {"", "structure", "decoder"} and len(maps) > 40
    for name, out in maps:
        assert out.is_contiguous(memory_format=torch.channels_last), name


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=["channels first", "channels last"])
def test_the_decoder_compiles_in_either_layout(layout: torch.memory_format) -> None:
    generator = seeded(Generator, 16, width=1, mlp_width=8).to(DOUBLE, memory_format=layout)
    decoder, (scales, shifts) = generator.decoder, generator.styles(randn(2, 16, dtype=DOUBLE))
    structure = randn(2, 8, 10, 12, dtype=DOUBLE).contiguous(memory_format=layout)
    compiled = torch.compile(decoder, backend="aot_eager", fullgraph=True)
    got, want = compiled(structure, scales, shifts), decoder(structure, scales, shifts)
    torch.testing.assert_close(got, want, rtol=1e-12, atol=1e-12)
    weights = list(decoder.parameters())
    for ours, theirs in zip(
        *(torch.autograd.grad(y.square().sum(), weights, retain_graph=True) for y in (got, want)), strict=True
    ):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9)


def test_adain_gives_channels_the_asked_mean_and_deviation(device: torch.device) -> None:
    x = (3 + 4 * randn(2, 3, 32, 32, device=device, dtype=DOUBLE)).requires_grad_()
    scale, shift = (randn(2, 3, device=device, seed=s, dtype=DOUBLE).requires_grad_() for s in (2, 3))
    y = instance_norm(x, scale, shift)
    torch.testing.assert_close(y.mean((2, 3)), shift)
    torch.testing.assert_close(y.std((2, 3), correction=0), scale.abs(), rtol=1e-6, atol=0)  # eps 1e-5 under a variance of 16
    small = x.detach()[:, :, :4, :4].clone().requires_grad_()
    assert torch.autograd.gradcheck(instance_norm, (small, scale, shift), fast_mode=True)


@pytest.mark.parametrize("norm", [None, InstanceNorm, ChannelLayerNorm])
def test_a_residual_block_is_its_definition(norm: type[nn.Module] | None, device: torch.device) -> None:
    block = seeded(ResidualBlock, 4, norm).to(device, DOUBLE)
    x = randn(2, 4, 8, 6, device=device, dtype=DOUBLE)
    inner = F.leaky_relu(block.first.norm(block.first.conv(x)), 0.2)
    torch.testing.assert_close(block(x), x + block.second.norm(block.second.conv(inner)))


def test_an_adaptive_residual_block_is_its_definition(device: torch.device) -> None:
    block = seeded(AdaINResidualBlock, 4).to(device, DOUBLE)
    x = randn(2, 4, 8, 6, device=device, dtype=DOUBLE)
    scale, shift = (randn(2, 8, device=device, seed=s, dtype=DOUBLE) for s in (2, 3))
    inner = F.leaky_relu(plain_adain(block.first(x), scale[:, :4], shift[:, :4]), 0.2)
    torch.testing.assert_close(block(x, scale, shift), x + plain_adain(block.second(inner), scale[:, 4:], shift[:, 4:]))


# --- gradients and initial weights --------------------------------------------------------------------------------------


def test_generator_gradients_reach_everything(device: torch.device) -> None:
    generator = seeded(Generator, 16, width=2, mlp_width=8).to(device, DOUBLE)
    mesh, code = (randn(2, *s, device=device, dtype=DOUBLE).requires_grad_() for s in ((1, 40, 44), (16,)))
    (generator(mesh, code) - randn(2, 3, 40, 44, device=device, dtype=DOUBLE)).abs().sum().backward()
    for name, grad in [("mesh", mesh.grad), ("code", code.grad), *((n, p.grad) for n, p in generator.named_parameters())]:
        assert grad is not None and grad.isfinite().all(), name
        before_norm = name.endswith("conv.bias") and not name.startswith("decoder.smooth")
        before_norm |= name.startswith("decoder.residual") and name.endswith("bias")
        if not before_norm:  # instance and layer norm cancel those biases, wholly or nearly
            assert grad.abs().max() > 1e-12, name


def test_the_device_meta_gives_shapes() -> None:
    with torch.device("meta"):
        generator, discriminator = Generator(16, width=1, mlp_width=8), Discriminator(2)
        encoder = IdentityEncoder("jvtc", "resnet18", width=8)
        mesh, image, code = torch.zeros(2, 1, 40, 44), torch.zeros(2, 3, 40, 44), torch.zeros(2, 16)
    assert generator(mesh, code).shape == (2, 3, 40, 44)
    assert [part.shape for part in encoder(image)] == [(2, encoder.code_dim), (2, encoder.feature_dim)]
    assert [scores.shape[2:] for scores in discriminator(image)] == [(10, 11), (5, 6), (3, 3)]


def test_each_slice_of_the_code_drives_its_block() -> None:
    generator = seeded(Generator, 16, width=2, mlp_width=8).to(DOUBLE)
    code = randn(1, 16, dtype=DOUBLE).requires_grad_()
    seen: list[Tensor] = []
    for block in generator.decoder.residual:
        block.register_forward_pre_hook(lambda _, args: seen.extend(args[1:]))
    generator.decode(randn(1, 16, 10, 10, dtype=DOUBLE), code)
    for i, value in enumerate(seen):  # scale 0, shift 0, scale 1, ...
        (grad,) = torch.autograd.grad(value.sum(), code, retain_graph=True)
        touched = grad.reshape(4, 4).abs().amax(1) > 0
        assert touched.tolist() == [part == i // 2 for part in range(4)]


def test_identity_encoder_gradients(device: torch.device) -> None:
    encoder = small_encoder().to(device, DOUBLE)
    image = randn(3, 3, 64, 32, device=device, dtype=DOUBLE).requires_grad_()
    code, feature = encoder(image)
    (code.square().sum() + (feature * randn(*feature.shape, device=device, dtype=DOUBLE)).sum()).backward()
    assert image.grad.abs().max() > 0
    for name, p in encoder.named_parameters():
        assert p.grad is not None and p.grad.isfinite().all(), name


def test_gradient_penalty_has_the_right_gradient(device: torch.device) -> None:
    net = seeded(Discriminator, width=3).to(device, DOUBLE)
    with torch.no_grad():
        for p in net.parameters():  # larger than N(0, 0.02), so that the penalty is not minute
            p.mul_(8)
    image = randn(2, 3, 20, 18, device=device, dtype=DOUBLE).requires_grad_()

    def penalty() -> Tensor:
        grads = [torch.autograd.grad(m.sum(), image, create_graph=True)[0] for m in net(image)]
        return sum(g.square().sum((1, 2, 3)).mean() for g in grads)

    names = [n for n, _ in net.named_parameters() if n.endswith("weight")]
    params = [net.get_parameter(n) for n in names]
    grads = torch.autograd.grad(penalty(), params)
    steps = [randn(*p.shape, device=device, seed=7 + i, dtype=DOUBLE) for i, p in enumerate(params)]
    analytic = sum((g * s).sum() for g, s in zip(grads, steps, strict=True))
    values = []
    for sign in (1, -1):  # central difference along one direction through all the weights
        with torch.no_grad():
            for p, s in zip(params, steps, strict=True):
                p.add_(s, alpha=sign * 1e-7)
        values.append(penalty().detach())
        with torch.no_grad():
            for p, s in zip(params, steps, strict=True):
                p.sub_(s, alpha=sign * 1e-7)
    numeric = (values[0] - values[1]) / 2e-7
    assert numeric.abs() > 1e-6
    torch.testing.assert_close(analytic, numeric, rtol=1e-5, atol=0)
    assert all(g.abs().max() > 0 for g in grads)


def test_initial_weights() -> None:
    generator = seeded(Generator, 256, width=16, mlp_width=64)
    for name, module in generator.named_modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            assert not module.bias.any(), name
            fan_in = module.weight[0].numel()
            if module.weight.numel() > 2000:
                assert module.weight.std().item() == pytest.approx((2 / fan_in) ** 0.5, rel=0.1), name
        if isinstance(module, ChannelLayerNorm):
            assert 0 <= module.gamma.min() < 0.3 and 0.7 < module.gamma.max() <= 1 and not module.beta.any()
    for name, p in seeded(Discriminator).named_parameters():
        if name.endswith("bias"):
            assert not p.any(), name
        elif p.numel() > 2000:
            assert p.std().item() == pytest.approx(0.02, rel=0.1), name


def test_initial_weights_follow_torchs_seed() -> None:
    for make in (lambda: Generator(16, width=2, mlp_width=4), lambda: Discriminator(width=2), small_encoder):
        assert same(seeded(make), seeded(make))


def test_half_precision_generator_and_discriminator(device: torch.device) -> None:
    generator, net = seeded(Generator, 16, width=2, mlp_width=8).to(device), seeded(Discriminator, width=4).to(device)
    mesh, code = randn(2, 1, 64, 40, device=device), randn(2, 16, device=device)
    exact = generator(mesh, code)
    with torch.autocast(device.type, dtype=torch.bfloat16):
        half = generator(mesh, code)
        scores = net(half)
    assert F.cosine_similarity(half.float().flatten(1), exact.flatten(1)).min() > 0.99
    sum(s.float().square().mean() for s in scores).backward()
    assert all(p.grad.isfinite().all() for p in generator.parameters())


# --- errors -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: IdentityEncoder("spcl"), ValueError, "variant must be one of jvtc, mlc, act, got 'spcl'"),
        (lambda: IdentityEncoder("jvtc", "vgg"), ValueError, "backbone must be one of resnet18, resnet50, .*got 'vgg'"),
        (lambda: IdentityEncoder(width=0), ValueError, "width must be at least 1, got 0"),
        (lambda: small_encoder(feature_width=1.5), TypeError, "feature_width must be an integer, got float"),
        (lambda: Generator(10), ValueError, "code_dim must be a multiple of 4, got 10"),
        (lambda: Generator(16, mlp_width=-1), ValueError, "mlp_width must be at least 1"),
        (lambda: Discriminator("32"), TypeError, "width must be an integer, got str"),
        (lambda: small_encoder()(torch.ones(2, 1, 64, 32)), ValueError, r"image must have shape \[B, 3, H, W\].*got \[2, 1, "),
        (lambda: small_encoder()(torch.ones(2, 3, 64, 32, dtype=torch.uint8)), TypeError, "floating-point .* got torch.uint8"),
        (lambda: Discriminator(2)([1]), TypeError, "image must be a torch.Tensor .* got list"),
        (lambda: Discriminator(2)(torch.ones(1, 3, 64, 16)), ValueError, "at least 17, got"),
    ],
)
def test_errors(call, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()


def test_generator_errors() -> None:
    generator = Generator(16, width=1, mlp_width=4)
    for shape in ((1, 1, 42, 40), (1, 1, 64, 62), (1, 1, 64, 36), (1, 3, 64, 40), (1, 64, 40)):
        with pytest.raises(ValueError, match=r"mesh must have shape \[B, 1, H, W\], H and W multiples of 4, .* at least 40, got"):
            generator.encode(torch.ones(shape))
    structure = torch.ones(2, 8, 10, 10)
    with pytest.raises(ValueError, match=r"structure must have shape \[B, 8, H, W\].*got \[2, 9, 10, 10\]"):
        generator.decode(torch.ones(2, 9, 10, 10), torch.ones(2, 16))
    for shape in ((1, 16), (2, 12), (2, 4, 4)):
        with pytest.raises(ValueError, match=r"code must have shape \[B, code_dim\] = \[2, 16\], got"):
            generator.decode(structure, torch.ones(shape))
    with pytest.raises(TypeError, match="code must be a floating-point tensor .* got torch.int64"):
        generator.decode(structure, torch.ones(2, 16, dtype=torch.int64))
