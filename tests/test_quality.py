"""SSIM and FID: against definitions by hand, with a small network in Inception's place; nothing is downloaded."""

from __future__ import annotations

import json
import pickle
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from gcl_fast.cli.main import main
from gcl_fast.generation import FrechetDistance, score_generated, score_novel_views, ssim
from tests.test_generation import SIZE, Bars, MeanCode, Paint, world  # noqa: F401
from tests.toy_world import SETTINGS, write_toy_world

pytest.importorskip("torchmetrics", reason="SSIM and FID go through torchmetrics")


class Pooled(nn.Module):
    """Stand-in for Inception: uint8 [N, 3, H, W] -> 12 features, averages of four quarters."""

    def forward(self, image):
        assert image.dtype == torch.uint8
        return F.adaptive_avg_pool2d(image.double() / 255, (2, 2)).flatten(1)


def ssim_by_hand(a, b):
    """Float64, the border reflected, window after window."""
    x = np.arange(11) - 5
    g = np.exp(-0.5 * (x / 1.5) ** 2)
    window = np.outer(g, g) / np.outer(g, g).sum()
    c1, c2, values = 0.01**2, 0.03**2, []
    for channel in range(3):
        p, q = (np.pad(image[channel], 5, mode="reflect") for image in (a, b))
        for i in range(p.shape[0] - 10):
            for j in range(p.shape[1] - 10):
                u, v = p[i : i + 11, j : j + 11], q[i : i + 11, j : j + 11]
                mu, nu = (window * u).sum(), (window * v).sum()
                su, sv = (window * u * u).sum() - mu**2, (window * v * v).sum() - nu**2
                cross = (window * u * v).sum() - mu * nu
                values.append((2 * mu * nu + c1) * (2 * cross + c2) / ((mu**2 + nu**2 + c1) * (su + sv + c2)))
    return np.mean(values)


def test_ssim_by_hand():
    rng = np.random.default_rng(0)
    truth = rng.random((2, 3, 20, 24))
    guess = (truth + rng.normal(0, [[[[0.05]]], [[[0.3]]]], truth.shape)).clip(0, 1)
    found = ssim(torch.from_numpy(guess), torch.from_numpy(truth))
    np.testing.assert_allclose(found.numpy(), [ssim_by_hand(g, t) for g, t in zip(guess, truth, strict=True)], rtol=1e-6)
    assert ssim(torch.from_numpy(truth), torch.from_numpy(truth)).tolist() == pytest.approx([1.0, 1.0])
    assert ssim(torch.from_numpy(truth[:1]), torch.from_numpy(truth[:1])).shape == (1,)
    assert ssim(torch.zeros(0, 3, 20, 24), torch.zeros(0, 3, 20, 24)).shape == (0,)
    with pytest.raises(ValueError, match=r"one shape.*\[2, 3, 20, 24\].*\[1, 3, 20, 24\]"):
        ssim(torch.zeros(2, 3, 20, 24), torch.zeros(1, 3, 20, 24))
    with pytest.raises(ValueError, match=r"one shape \[N, 3, H, W\], H and W at least 6, got \[3, 20, 24\]"):
        ssim(torch.zeros(3, 20, 24), torch.zeros(3, 20, 24))
    assert ssim(torch.zeros(1, 3, 6, 6), torch.zeros(1, 3, 6, 6)).tolist() == [1.0]
    for shape in ((1, 3, 5, 20), (1, 3, 20, 5), (1, 1, 20, 24)):
        with pytest.raises(ValueError, match=r"one shape \[N, 3, H, W\], H and W at least 6"):
            ssim(torch.zeros(shape), torch.zeros(shape))


def frechet_by_hand(a, b):
    from scipy.linalg import sqrtm

    ca, cb = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    return ((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(ca + cb - 2 * sqrtm(ca @ cb).real)


def test_fid_by_hand():
    pytest.importorskip("scipy", reason="its matrix root is the oracle")
    rng = torch.Generator().manual_seed(0)
    real, made = torch.rand(60, 3, 16, 8, generator=rng), torch.rand(50, 3, 16, 8, generator=rng) ** 2
    fid = FrechetDistance(features=Pooled())
    for part in real.split(13):
        fid.add(part, real=True)
    fid.add(made, real=False)
    fid.add(made[:0], real=False)
    features = [Pooled()((x * 255).round().byte()).numpy() for x in (real, made)]
    assert fid.value() == pytest.approx(frechet_by_hand(*features), rel=1e-6)
    same = FrechetDistance(features=Pooled())
    real[:3], brighter = torch.ones(3, 3, 16, 8), real.clone()
    real[3:6], brighter[:3], brighter[3:6] = 0, 1.2, -0.1  # as a generator may overshoot: white and black all the same
    same.add(real, real=True)
    same.add(brighter, real=False)
    assert same.value() == pytest.approx(0, abs=1e-6) and fid.value() > 0.05


def test_fid_errors(tmp_path, monkeypatch):
    for given in ({}, {"weights": tmp_path / "nowhere.pth", "features": Pooled()}):
        with pytest.raises(ValueError, match="one of the two"):
            FrechetDistance(**given)
    with pytest.raises(FileNotFoundError, match=r"nowhere\.pth"):
        FrechetDistance(tmp_path / "nowhere.pth")
    (tmp_path / "evil.pth").write_bytes(pickle.dumps(print))
    with pytest.raises(ValueError, match=r"evil\.pth"):
        FrechetDistance(tmp_path / "evil.pth")
    fid = FrechetDistance(features=Pooled())
    fid.add(torch.rand(3, 3, 8, 8), real=True)
    with pytest.raises(ValueError, match="at least 2 real and 2 generated images, got 3 and 0"):
        fid.value()
    alone = FrechetDistance(features=Pooled())
    alone.add(torch.rand(1, 3, 8, 8), real=True)
    alone.add(torch.rand(2, 3, 8, 8), real=False)
    with pytest.raises(ValueError, match="at least 2 real and 2 generated images, got 1 and 2"):
        alone.value()
    with pytest.raises(ValueError, match=r"\[N, 3, H, W\], got \[3, 8, 8\]"):
        fid.add(torch.rand(3, 8, 8), real=False)
    monkeypatch.setitem(sys.modules, "torchmetrics.image.fid", None)
    with pytest.raises(ImportError, match="pip install torchmetrics torch-fidelity"):
        FrechetDistance(features=Pooled())
    monkeypatch.setitem(sys.modules, "torchmetrics.functional.image", None)
    with pytest.raises(ImportError, match="pip install torchmetrics"):
        ssim(torch.zeros(1, 3, 16, 16), torch.zeros(1, 3, 16, 16))


def test_weights_reach_torchmetrics_and_nothing_is_fetched_unasked(tmp_path, monkeypatch):
    """The file's path is passed on; without torch-fidelity the error says how to get it."""
    import torchmetrics.image.fid as module

    seen = {}

    class Recorded:
        def __init__(self, **options):
            seen.update(options)
            raise ModuleNotFoundError("no torch-fidelity")

    monkeypatch.setattr(module, "FrechetInceptionDistance", Recorded)
    torch.save({"weight": torch.ones(2)}, tmp_path / "inception.pth")
    with pytest.raises(ImportError, match="torch-fidelity.*pip install"):
        FrechetDistance(tmp_path / "inception.pth")
    assert seen == {"feature": 2048, "feature_extractor_weights_path": str(tmp_path / "inception.pth")}
    seen.clear()
    with pytest.raises(ImportError, match="torch-fidelity"):
        FrechetDistance("download")
    assert seen == {"feature": 2048}


def test_ssim_beside_psnr_of_true_views(world):  # noqa: F811
    mean = torch.full((3, *SIZE), 0.5)
    plain = score_novel_views(MeanCode(), Paint(), world / "truth", Bars(), SIZE, mean_image=mean)
    found = score_novel_views(MeanCode(), Paint(), world / "truth", Bars(), SIZE, mean_image=mean, with_ssim=True)
    assert "novel_view_ssim" not in plain.as_metrics() and found.mean["novel_view_psnr"] == plain.mean["novel_view_psnr"]
    metrics = found.as_metrics()
    assert metrics["novel_view_ssim"] == pytest.approx(1.0, abs=1e-5)
    for guess in ("mean_image", "blank_background", "source_image"):
        assert metrics[f"{guess}_ssim"] < 0.9
        assert np.mean(list(found.per_yaw[f"{guess}_ssim"].values())) == pytest.approx(metrics[f"{guess}_ssim"])


def test_scores_without_true_views(world):  # noqa: F811
    records = [SimpleNamespace(path=path) for path in sorted((world / "query").iterdir())]
    fid = FrechetDistance(features=Pooled())
    found = score_generated(MeanCode(), Paint(), records, Bars(), SIZE, yaws=(45.0, 90.0), fid=fid, batch_size=2)
    assert found["images"] == len(records) == fid.num_real and fid.num_generated == 2 * len(records)
    assert -1 <= found["reconstruction_ssim"] <= 1 and found["reconstruction_psnr"] > 0 and found["novel_view_fid"] >= 0
    turned = FrechetDistance(features=Pooled())
    for tone in (100, 200):  # flat photos, of which the generator paints a band
        turned.add(torch.full((1, 3, *SIZE), tone / 255), real=True)
        for width in (6, 7):  # of 45 and 90 degrees
            view = torch.zeros(1, 3, *SIZE)
            view[..., :width] = tone / 255
            turned.add(view, real=False)
    assert found["novel_view_fid"] == pytest.approx(turned.value(), rel=1e-6)
    again = score_generated(MeanCode(), Paint(), records, Bars(), SIZE, yaws=(45.0,), batch_size=5)
    assert "novel_view_fid" not in again
    assert again["reconstruction_ssim"] == pytest.approx(found["reconstruction_ssim"], rel=1e-6)
    three, counts = [records[0], records[1], records[1]], []

    def psnr_of(some, **options):
        return score_generated(MeanCode(), Paint(), some, Bars(), SIZE, yaws=(), **options)["reconstruction_psnr"]

    alone = [psnr_of([record]) for record in three]
    together = psnr_of(three, batch_size=2, progress=lambda *at: counts.append(at))
    assert alone[0] != alone[1] and together == pytest.approx(np.mean(alone)) and counts == [(2, 3), (3, 3)]
    with pytest.raises(ValueError, match="at least one image"):
        score_generated(MeanCode(), Paint(), [], Bars(), SIZE, yaws=())


def test_generate_writes_scores(tmp_path, monkeypatch, capsys):
    pytest.importorskip("tyro", reason="the command line needs tyro")
    root = write_toy_world(tmp_path / "data")
    (tmp_path / "toy.yaml").write_text(SETTINGS)
    assert (
        main(
            [
                "train",
                "--config",
                str(tmp_path / "toy.yaml"),
                "--root",
                str(root),
                "--runs",
                str(tmp_path / "runs"),
                "--stage1.epochs",
                "1",
                "--stage",
                "1",
            ]
        )
        == 0
    )
    assert (
        main(
            [
                "train",
                "--config",
                str(tmp_path / "toy.yaml"),
                "--root",
                str(root),
                "--runs",
                str(tmp_path / "runs"),
                "--stage",
                "2",
                "--name",
                "two",
                "--init",
                str(tmp_path / "runs" / "run" / "stage1" / "last.pt"),
            ]
        )
        == 0
    )
    import gcl_fast.generation as generation

    stand_in = lambda weights, device: FrechetDistance(features=Pooled(), device=device)  # noqa: E731
    monkeypatch.setattr(generation, "FrechetDistance", stand_in)
    command = ["generate", str(tmp_path / "runs" / "two"), "--num", "2", "--out", str(tmp_path / "out"), "--angles", "45", "90"]
    assert main([*command, "--fid-weights", "any"]) == 1 and "--scores" in capsys.readouterr().err
    assert main([*command, "--scores", str(tmp_path / "s.json"), "--fid-weights", "any"]) == 0
    scores = json.loads((tmp_path / "s.json").read_text())
    assert scores["images"] == 4 and scores["novel_view_fid"] > 0 and scores["reconstruction_ssim"] < 1
