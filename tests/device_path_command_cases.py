"""The generated views' stages, scores of images and the commands on a pretended GPU: kernels and networks run on it, as in
`device_path_cases`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import nn

pytest.importorskip("torchvision", reason="the backbones need torchvision")
pytest.importorskip("PIL", reason="photos need Pillow")
pytest.importorskip("tyro", reason="the command line needs tyro")

from gcl_fast.cli.main import main
from gcl_fast.config import to_dict
from gcl_fast.config.yaml_files import load_yaml
from gcl_fast.data.datasets.load import load_dataset
from gcl_fast.generation.generated_scores import score_generated
from gcl_fast.generation.measures import FrechetDistance, psnr, ssim
from gcl_fast.meshes import open_mesh_source
from gcl_fast.models.three_networks import Networks
from gcl_fast.runs.networks import build_networks
from gcl_fast.stages.checkpoint import save_checkpoint
from tests.device_path_cases import check_steps, gpu  # noqa: F401 (a fixture)
from tests.guided_steps import guided_batches, guided_stage
from tests.pretended_gpu import GPU, on_cpu, on_gpu
from tests.test_guides import SIZE
from tests.test_quality import Pooled
from tests.toy_world import SETTINGS, write_toy_world

HEAVY = {"mm", "addmm", "bmm", "convolution", "native_batch_norm", "grid_sampler_2d", "sort", "topk"}


def own_work(watch) -> set[str]:
    """Operations of the package's own and of networks that ran on the CPU; not the drawing of meshes beside photos' decoding."""
    ours = {name.split("::")[1].split(".")[0] for name in torch._C._dispatch_get_all_op_names() if name.startswith("gcl_fast::")}
    return {place for place in watch.host if place.split()[0] in (ours | HEAVY) - {"render_mesh"}}


# Stages 2 and 3 with the photo's own pixels as guide.


@pytest.mark.parametrize(
    ("name", "variance"),
    [("stage2", {}), ("stage3", {"background": 1.0, "colour": 1.0, "occluder": 1.0, "crop": 1.0})],
    ids=["stage 2", "stage 3 with variance"],
)
def test_a_guided_step_stays_on_the_gpu(gpu, tmp_path, name, variance):  # noqa: F811
    check_steps(gpu, guided_stage(name, tmp_path, GPU, **variance), guided_batches(2, GPU))


# Scores of images.


@pytest.mark.parametrize("measure", [psnr, ssim])
def test_images_are_compared_on_the_gpu(gpu, measure):  # noqa: F811
    pytest.importorskip("torchmetrics", reason="it computes SSIM")
    guess, truth = (torch.rand(3, 3, 32, 24, generator=torch.Generator().manual_seed(seed)) for seed in (1, 2))
    want = measure(guess, truth)
    gpu.clear()
    got = measure(on_gpu(guess), on_gpu(truth))
    assert got.device == GPU and not own_work(gpu) and not [r for r in gpu.reads if "to cpu" in r]
    torch.testing.assert_close(on_cpu(got), want)


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> Path:
    return write_toy_world(tmp_path_factory.mktemp("world") / "data", people=2, images=4)


def toy_networks(folder: Path, guide: str) -> tuple[Networks, dict]:
    (folder / "toy.yaml").write_text(SETTINGS)
    config = load_yaml(folder / "toy.yaml")
    config.model.guide = guide
    return build_networks(config), to_dict(config)


@pytest.mark.parametrize("guide", ["mesh", "texture"])
def test_generated_views_are_scored_on_the_gpu(gpu, world, tmp_path, guide):  # noqa: F811
    pytest.importorskip("torchmetrics", reason="it computes SSIM and FID")
    records = load_dataset("market1501", world).query[:2]
    meshes = open_mesh_source(world / "mesh", "market1501", "test", SIZE)

    def scores(device: torch.device | str) -> dict[str, float]:
        networks, _ = toy_networks(tmp_path, guide)
        modules: list[nn.Module] = [networks.encoder.to(device), networks.generator.to(device)]
        fid = FrechetDistance(features=Pooled(), device=device)
        gpu.clear()
        return score_generated(*modules, records, meshes, SIZE, device, yaws=(90.0,), fid=fid, batch_size=2)

    found = scores(GPU)
    assert not own_work(gpu), own_work(gpu)
    assert found == pytest.approx(scores("cpu"), rel=1e-4)


# Commands.


@pytest.fixture
def commands(gpu, monkeypatch, capsys):  # noqa: F811
    """Runs a command on the pretended GPU, or also on the CPU; what was said there."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device=None: (1 << 34, 1 << 34))

    def said_on(devices: tuple[str, ...], *arguments: object) -> list[str]:
        said = []
        for device in devices:
            gpu.clear()
            capsys.readouterr()
            code = main([*map(str, arguments), "--device", device])
            told = capsys.readouterr()
            assert code == 0, told.err
            said.append(told.out.replace("cuda", "cpu"))
            assert device == "cpu" or (gpu.operations and not own_work(gpu)), own_work(gpu)
        return said

    return said_on


@pytest.fixture
def run(tmp_path) -> Path:
    """A run folder as stage 2 leaves it."""
    networks, config = toy_networks(tmp_path, "mesh")
    modules = {name: getattr(networks, name).state_dict() for name in ("encoder", "generator", "discriminator")}
    save_checkpoint(tmp_path / "run/stage2/last.pt", {"stage": "stage2", "config": config, "modules": modules})
    return tmp_path / "run/stage2/last.pt"


def test_evaluate_ranks_and_re_ranks_on_the_gpu(commands, run, world, tmp_path):
    where = ("--dataset", "market1501", "--root", world, "--output", tmp_path / "scores.json")
    found, want = commands(("cuda", "cpu"), "evaluate", run, *where, "--rerank")
    assert found == want and "reranked" in want
    assert json.loads((tmp_path / "scores.json").read_text())["plain"]["mAP"] > 0


def test_embed_and_search_run_their_network_on_the_gpu(commands, run, world, tmp_path):
    photos, kept, sheet = (
        next(path for path in world.rglob("query") if path.is_dir()),
        tmp_path / "kept.npz",
        tmp_path / "sheet.png",
    )
    commands(("cuda",), "embed", photos, "--weights", run, "--out", kept)
    asked = sorted(photos.glob("*.jpg"))[0]
    (found,) = commands(("cuda",), "search", asked, kept, "--weights", run, "--top", "2", "--sheet", sheet)
    first, best, *_ = found.splitlines()
    assert first == asked.name and best.split()[0] == "1" and asked.name not in best and sheet.is_file()


def test_generate_decodes_on_the_gpu(commands, run, world, tmp_path):
    where = ("--dataset", "market1501", "--root", world, "--num", "1", "--out", tmp_path / "out")
    commands(("cuda",), "generate", run, *where, "--what", "novel", "--angles", "90")
