"""Exported encoders give the checkpoint's features, normalised once, for any batch size; what does not is not kept."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from gcl_fast import load_encoder
from gcl_fast.cli.main import main
from gcl_fast.config import TrainConfig, from_dict
from gcl_fast.constants import BACKBONES
from gcl_fast.images import normalise
from gcl_fast.models import IdentityEncoder
from gcl_fast.runs import encoder_export as export
from gcl_fast.runs.encoder_export import FeatureOf, export_encoder, parity
from gcl_fast.runs.networks import build_networks, encoder_of, find_encoder, load_networks
from gcl_fast.stages.checkpoint import save_checkpoint
from tests.weights import equal

SIZE = (64, 40)


@pytest.mark.parametrize(
    "job", ["from gcl_fast.cli.doctor import examine; examine()", "import gcl_fast.runs.encoder_export as e; e._need_onnx()"]
)
def test_onnxruntime_leaves_no_id_of_the_device(job: str, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime", reason="only it would")
    told = {name: value for name, value in os.environ.items() if name != "ORT_DISABLE_TELEMETRY"}
    home = {"HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path)}
    subprocess.run([sys.executable, "-c", job], check=True, env={**told, **home})
    assert not list(tmp_path.rglob("*onnxruntime*"))


def small(variant: str = "jvtc", **kwargs: object) -> IdentityEncoder:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        encoder = IdentityEncoder(variant, "resnet18", width=8, **kwargs)
        for name, buffer in encoder.named_buffers():  # statistics as after training
            if buffer.is_floating_point():
                buffer.copy_(0.5 + torch.rand_like(buffer) if name.endswith("var") else 0.1 * torch.randn_like(buffer))
    return encoder.eval()


def features(encoder: IdentityEncoder, pixels: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return F.normalize(encoder(normalise(pixels))[1], dim=1)


PIXELS = torch.randint(0, 256, (7, *SIZE, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(3))
IMAGE = PIXELS.permute(0, 3, 1, 2).float() / 255


def test_weights_and_program(tmp_path: Path) -> None:
    from safetensors import safe_open

    encoder = small().train()
    done = export_encoder(encoder, tmp_path, ("safetensors", "torch"), image_size=SIZE, source="run/last.pt")
    assert encoder.training and done["torch"][1] < 1e-5 and done["safetensors"][1] < 1e-5
    encoder.eval()
    files = {"encoder.json": ""}
    program = torch.export.load(tmp_path / "encoder.pt2", extra_files=files)
    for batch in (1, 2, 7):
        torch.testing.assert_close(program.module()(IMAGE[:batch]), features(encoder, PIXELS[:batch]), rtol=0, atol=1e-5)
    facts = json.loads(files["encoder.json"])
    assert (
        "inside the exported graph" in facts["normalisation"]
        and "[B, 3, 64, 40]" in facts["input"]
        and facts["source"] == "run/last.pt"
    )
    with safe_open(tmp_path / "encoder.safetensors", "pt") as file:
        assert "not in the weights" in file.metadata()["normalisation"] and file.metadata()["variant"] == "jvtc"
        assert set(file.keys()) == set(encoder.state_dict())
    assert json.loads((tmp_path / "encoder.json").read_text())["parity"]["torch"] == done["torch"][1]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["encoder.json", "encoder.pt2", "encoder.safetensors"]
    assert len({p.stat().st_mode for p in tmp_path.iterdir()}) == 1  # all are read by whoever may read one


@pytest.mark.parametrize("backbone", BACKBONES)
def test_exported_weights_of_any_backbone_are_loaded_again(backbone: str, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    if backbone.startswith("vit"):
        pytest.importorskip("timm", reason="the vision transformer is timm's")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        encoder = IdentityEncoder("mlc", backbone, pooling="gem").eval()
    export_encoder(encoder, tmp_path, ("safetensors",), image_size=(64, 48))
    for path in (tmp_path, tmp_path / "encoder.safetensors"):
        again = load_encoder(path, device="cpu")
        assert again.network.backbone_name == backbone and again.image_size == (64, 48)
    assert equal(encoder.state_dict(), again.network.state_dict())
    config = from_dict(TrainConfig, {"model": {"variant": "mlc", "backbone": backbone, "pooling": "gem", "weights": "none"}})
    networks = build_networks(config)
    assert load_networks(networks, str(tmp_path / "encoder.safetensors"), 1) == {"encoder"}
    assert equal(encoder.state_dict(), networks.encoder.state_dict())


@pytest.mark.parametrize("variant", ["jvtc", "mlc"])
def test_onnx(variant: str, tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx", reason="ONNX export needs onnx")
    pytest.importorskip("onnxscript", reason="ONNX export needs onnxscript")
    runtime = pytest.importorskip("onnxruntime", reason="the check of ONNX files needs onnxruntime")
    encoder = small(variant)
    done = export_encoder(encoder, tmp_path, ("onnx",), image_size=SIZE)
    assert done["onnx"][1] < 1e-5
    session = runtime.InferenceSession(tmp_path / "encoder.onnx", providers=["CPUExecutionProvider"])
    for batch in (1, 7):
        got = torch.from_numpy(session.run(["feature"], {"image": IMAGE[:batch].numpy()})[0])
        torch.testing.assert_close(got, features(encoder, PIXELS[:batch]), rtol=0, atol=1e-5)
    facts = {p.key: p.value for p in onnx.load(tmp_path / "encoder.onnx").metadata_props}
    assert "inside the exported graph" in facts["normalisation"] and facts["variant"] == variant


def test_the_check_finds_what_is_wrong(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = small()
    network = FeatureOf(encoder).eval()
    assert parity(encoder, network, SIZE) < 1e-5
    assert parity(encoder, lambda x: network((x - network.mean) / network.std), SIZE) > 1e-2  # normalised twice
    assert parity(encoder, lambda x: network(x)[:1], SIZE) == float("inf")
    assert parity(encoder, lambda x: network(x) * float("nan"), SIZE) == float("inf")
    whole = export.WRITERS["safetensors"]
    monkeypatch.setitem(export.WRITERS, "safetensors", lambda *a: (run := whole(*a)) and (lambda x: run(x) + 1e-3))
    with pytest.raises(RuntimeError, match=r"encoder\.safetensors was not kept.*differ"):
        export_encoder(encoder, tmp_path, ("safetensors",), image_size=SIZE)
    assert not list(tmp_path.iterdir())


def test_what_is_missing_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("onnx", "onnxscript", "onnxruntime"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ImportError, match=r"onnx, onnxscript, onnxruntime: pip install 'gcl_fast\[export\]'"):
        export_encoder(small(), tmp_path, image_size=SIZE)
    with pytest.raises(ValueError, match="formats must be of safetensors, torch, onnx, got tflite"):
        export_encoder(small(), tmp_path, ("tflite",))
    with pytest.raises(ValueError, match="got none"):
        export_encoder(small(), tmp_path, ())


def test_a_feature_of_any_width_and_a_folder_anywhere(tmp_path: Path) -> None:
    encoder, out = small("jvtc", feature_width=6), tmp_path / "a" / "b"
    for _ in range(2):  # and written again
        export_encoder(encoder, out, ("safetensors",), image_size=SIZE)
    again, size = encoder_of(out / "encoder.safetensors")
    assert again.feature_dim == 6 and size == SIZE
    torch.testing.assert_close(features(again, PIXELS), features(encoder, PIXELS))


def test_command_on_a_run_and_on_a_weight_file(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    pytest.importorskip("tyro", reason="the command line needs tyro")
    from gcl_fast.config import to_dict

    encoder = small("act")
    config = from_dict(TrainConfig, {"height": 64, "width": 40, "model": {"variant": "act", "backbone": "resnet18", "width": 8}})
    modules = {"encoder": encoder.state_dict()}
    save_checkpoint(tmp_path / "run" / "stage3" / "last.pt", {"stage": "stage3", "config": to_dict(config), "modules": modules})
    torch.save(
        {
            "state_dict": {
                "module.base." + k.removeprefix("backbone.") if k.startswith("backbone.") else "module.feat_" + k: v
                for k, v in encoder.state_dict().items()
            }
        },
        tmp_path / "foreign.pth",
    )
    run = ["export", str(tmp_path / "run"), "--out", str(tmp_path / "a"), "--format", "safetensors", "torch"]
    assert main(run) == 0
    text, notes = capsys.readouterr()
    assert f"{tmp_path / 'run'}: stage3/last.pt is taken\n" in notes
    assert "differ from the checkpoint's by at most" in text and "[B, 3, 64, 40]" in text and "normalised inside" in text
    got = torch.export.load(tmp_path / "a" / "encoder.pt2").module()(IMAGE)
    torch.testing.assert_close(got, features(encoder, PIXELS), rtol=0, atol=1e-5)
    weights = (tmp_path / "run" / "stage3" / "last.pt", tmp_path / "a" / "encoder.safetensors")
    for name, source in zip(("of_a_run", "of_an_export"), weights, strict=True):  # imported, they keep their images' size
        imported = tmp_path / f"{name}.safetensors"
        assert main(["import-checkpoint", str(source), "--out", str(imported)]) == 0
        assert encoder_of(imported)[1] == (64, 40)
    again = ["export", str(tmp_path / "a"), "--out", str(tmp_path / "again"), "--format", "safetensors"]
    assert main(again) == 0 and "[B, 3, 64, 40]" in capsys.readouterr().out
    assert find_encoder(tmp_path / "a") == weights[1]
    shutil.copy(weights[1], tmp_path / "run")  # a run goes on, what was exported from it does not
    assert find_encoder(tmp_path / "run") == weights[0]
    assert (
        main(
            [
                "export",
                str(tmp_path / "foreign.pth"),
                "--out",
                str(tmp_path / "b"),
                "--format",
                "safetensors",
                "--height",
                "64",
                "--width",
                "40",
            ]
        )
        == 0
    )
    assert json.loads((tmp_path / "b" / "encoder.json").read_text())["variant"] == "act"
    torch.save({"backbone.conv1.weight": encoder.backbone.conv1.weight.data}, tmp_path / "head_less.pth")
    assert main(["export", str(tmp_path / "head_less.pth"), "--out", str(tmp_path / "c")]) == 1
    assert "no identity encoder with a head, but a backbone alone" in capsys.readouterr().err
